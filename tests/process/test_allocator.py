"""Freed buffers are kept on the CPU: working on with arrays of the same sizes costs few page faults."""

import platform
import subprocess
import sys

import pytest

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_buffers_of_the_same_size_are_used_again_with_few_page_faults() -> None:
    assert num_faults("keep") < num_faults() / 2
