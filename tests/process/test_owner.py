"""An engine in a process that was forked from its own: every call says so, and none waits for a thread that is gone."""

import subprocess
import sys

FORKED_PROCESS = """
import os, sys, warnings
import mlx_agent_llm
from mlx_agent_llm import Engine, EngineConfig, ForkedProcessError, SamplingParams
from mlx_agent_llm.testing import ByteTokenizer, tiny_model

warnings.simplefilter("ignore", DeprecationWarning)
engine = Engine.from_parts(tiny_model(), ByteTokenizer(), EngineConfig(kv_cache_tokens=1024))
handle = engine.submit("x", SamplingParams(max_tokens=400, ignore_eos=True))
stream = engine.stream("x", SamplingParams(max_tokens=400, ignore_eos=True))
next(stream)
messages = [{"role": "user", "content": "x"}]
calls = [
    lambda: engine.generate(["x"]), lambda: engine.submit("x"), lambda: engine.stream("x"),
    lambda: engine.chat(messages), lambda: engine.stream_chat(messages), engine.stats, engine.reset_prefix_cache,
    handle.result, handle.fork, lambda: list(handle), lambda: next(stream),
]
import asyncio
calls += [lambda: asyncio.run(engine.agenerate(["x"])), lambda: asyncio.run(engine.achat(messages)),
          lambda: asyncio.run(handle.aresult())]
child = os.fork()
if child == 0:
    for call in calls:
        try:
            call()
        except ForkedProcessError as error:
            assert "spawn" in str(error)
        else:
            os._exit(1)
    handle.cancel()
    stream.close()
    engine.close()
    del stream, engine
    sys.exit(7)  # runs the finalizers
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert len(handle.result(timeout=200).token_ids) == 400
assert len(list(stream)) == 399
engine.close()
"""


def test_an_engine_in_a_forked_process_raises_and_never_hangs() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED_PROCESS], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
