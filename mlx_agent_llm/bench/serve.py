"""serve: what HTTP adds to a streamed token, on a model so small that hardly anything else is left."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mlx_agent_llm.bench import ours
from mlx_agent_llm.bench.result import Bars, Result
from mlx_agent_llm.bench.stream_readers import read_in_a_process
from mlx_agent_llm.bench.workload import Options, Workload
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.models import from_parts
from mlx_agent_llm.request import SamplingParams
from mlx_agent_llm.testing import ByteTokenizer, tiny_model

if TYPE_CHECKING:
    from mlx_agent_llm.server.app import DrainingServer

NUM_STREAMS, NUM_NEW, NUM_MEASURED = 32, 200, 3
_MESSAGES = [{"role": "user", "content": "Hi"}]
_BIAS = {ord("x"): 100.0}  # every time a letter, so that every token is a delta


@dataclass(frozen=True)
class Streamed:
    """Microseconds a token: of all streams together, and what the event loop's thread was busy for."""

    wall: float
    loop: float


def _measure(options: Options) -> Result:
    num_streams, repeats = options.rows or NUM_STREAMS, options.repeats or NUM_MEASURED
    with Engine(from_parts(tiny_model(), ByteTokenizer()), ours.config_for(num_streams)) as engine:
        with _serving(engine) as server:
            runs = [(_in_process(engine, num_streams), _through_http(server, num_streams)) for _ in range(1 + repeats)]
    here, there = zip(*runs[1:], strict=True)  # the first run warmed it up
    return _result(num_streams, _best(here), _best(there))


def _in_process(engine: Engine, num_streams: int) -> Streamed:
    params = SamplingParams(max_tokens=NUM_NEW, ignore_eos=True, logit_bias=_BIAS)

    async def read() -> int:
        return len([delta async for delta in engine.astream_chat(_MESSAGES, params=params) if delta.text])

    async def read_all() -> int:
        return sum(await asyncio.gather(*(read() for _ in range(num_streams))))

    began, busy = time.perf_counter(), time.thread_time()
    num_tokens = asyncio.run(read_all())
    return _a_token(time.perf_counter() - began, time.thread_time() - busy, num_tokens)


def _through_http(server: DrainingServer, num_streams: int) -> Streamed:
    body = {"model": "default", "messages": _MESSAGES, "stream": True, "max_tokens": NUM_NEW, "ignore_eos": True}
    bias = {str(token_id): bias for token_id, bias in _BIAS.items()}
    busy = _busy_seconds(server)
    read = read_in_a_process(server.port, {**body, "logit_bias": bias}, num_streams)
    return _a_token(read.seconds, _busy_seconds(server) - busy, read.num_tokens)


def _busy_seconds(server: DrainingServer) -> float:
    """How long the thread of the server's event loop has computed so far."""

    async def now() -> float:
        return time.thread_time()

    return asyncio.run_coroutine_threadsafe(now(), server.servers[0].get_loop()).result()


def _a_token(wall: float, loop: float, num_tokens: int) -> Streamed:
    return Streamed(1e6 * wall / num_tokens, 1e6 * loop / num_tokens)


def _best(runs: Any) -> Streamed:
    return Streamed(min(run.wall for run in runs), min(run.loop for run in runs))


@contextmanager
def _serving(engine: Engine) -> Iterator[DrainingServer]:
    from mlx_agent_llm.server.app import Address, DrainingServer
    from mlx_agent_llm.server.served_models import ServedModels
    from mlx_agent_llm.server.service import Service
    from mlx_agent_llm.server.settings import ServerSettings

    server = DrainingServer(
        Service(ServedModels({"tiny": "memory"}, lambda _: engine), ServerSettings()), Address(port=0)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join()


def _result(num_streams: int, here: Streamed, there: Streamed) -> Result:
    added = Streamed(there.wall - here.wall, there.loop - here.loop)
    rows = {"engine in the process": here, "through HTTP": there, "added by HTTP": added}
    return Result(
        title=f"serve: {num_streams} streams of {NUM_NEW} tokens on a tiny model",
        columns=("", "us a token", "of them on the event loop"),
        rows=[(label, f"{one.wall:.0f}", f"{one.loop:.0f}") for label, one in rows.items()],
        numbers={
            "streams": num_streams,
            "new_tokens": NUM_NEW,
            "unit": "microseconds",
            "engine": asdict(here),
            "http": asdict(there),
            "added": asdict(added),
        },
        charts=[
            Bars(
                f"a token of {num_streams} streams: less is better",
                "microseconds",
                list(rows)[:2],
                {"a token": [here.wall, there.wall], "event loop": [here.loop, there.loop]},
            )
        ],
        notes=["the readers are a process of their own; wall time has what they take from the server's cores"],
    )


SERVE = Workload("serve", frozenset({"rows", "repeats"}), _measure)
