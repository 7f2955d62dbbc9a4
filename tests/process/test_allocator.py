"""Freed buffers are kept on the CPU, where arrays of their sizes then cost few page faults, and can be given back."""

import platform
import subprocess
import sys

import mlx.core as mx
import pytest

of_the_heap = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or mx.is_available(mx.Device(mx.gpu)),
    reason="the setting is glibc's, and beside a GPU MLX does not take the CPU's arrays from it",
)

FAULTS = """
import resource, sys, threading
import mlx_agent_llm
import mlx.core as mx
from mlx_agent_llm.process.allocator import keep_freed_buffers

mx.set_default_device(mx.Device(mx.cpu))
if "keep" in sys.argv:
    keep_freed_buffers()

def work():
    x = mx.zeros((40, 2**18 + 4096))
    for _ in range(20):
        parts = [part + 1 for part in x]
        mx.eval(parts)
        del parts

def measure():
    work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=measure)  # as the engine's: its heap is not the main thread's
thread.start()
thread.join()
"""


def num_faults(*arguments: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, *arguments], capture_output=True, text=True, check=True)
    return int(done.stdout)


@of_the_heap
def test_buffers_of_the_same_size_are_used_again_with_few_page_faults() -> None:
    assert num_faults("keep") < num_faults() / 2


RESIDENT = """
import os
import mlx_agent_llm
import mlx.core as mx
from mlx_agent_llm.process.allocator import give_back_freed_buffers, keep_freed_buffers

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

mx.set_default_device(mx.Device(mx.cpu))
keep_freed_buffers()
parts = [mx.ones(2**20) for _ in range(40)]  # of 4 MiB each
mx.eval(parts)
del parts
mx.clear_cache()
before = resident()
give_back_freed_buffers()
print(before - resident())
"""


@of_the_heap
def test_what_is_kept_is_given_back_when_it_is_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", RESIDENT], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 100 * 2**20, "of 160 MiB"
