"""restart: the first token of a long prompt whose KV an earlier engine computed, or an earlier mlx-lm saved.

An engine that is made anew from weights that are read anew stands for a new process; of both sides the system may hold
the files in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import load_prompt_cache, make_prompt_cache, save_prompt_cache

from mlx_agent_llm.bench import ours, peer
from mlx_agent_llm.bench.result import OURS, PEER, Bars, Result
from mlx_agent_llm.bench.workload import Options, RandomTokens, Workload, check_context
from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.models import LoadedModel

NUM_PROMPT = 4096
_PLACES = ("cold", "disk", "memory")


@dataclass(frozen=True)
class Times:
    """Seconds to the first token: with no KV, with that on the disk, and with that in memory.

    reading_seconds of those of the disk its KV was read, and put where it is used; saving_seconds it took to write it.
    found_tokens of the prompt were on the disk.
    """

    cold: float
    disk: float
    memory: float
    reading_seconds: float
    saving_seconds: float
    num_bytes: int
    found_tokens: int


def _measure(options: Options) -> Result:
    num_prompt = options.prompt_tokens or NUM_PROMPT
    with TemporaryDirectory() as folder:
        sides = zip(*_runs(options, num_prompt, Path(folder)), strict=True)
        mine, theirs = (_best(list(side)) for side in sides)
    return _result(num_prompt, mine, theirs)


def _runs(options: Options, num_prompt: int, folder: Path) -> Iterator[tuple[Times, Times]]:
    for number in range(options.repeats or 1):
        yield (
            _run_ours(options.load, num_prompt, folder / f"ours-{number}"),
            _run_peer(options.load, num_prompt, folder / f"mlx-lm-{number}.safetensors"),
        )


def _run_ours(load: Callable[[], LoadedModel], num_prompt: int, folder: Path) -> Times:
    config = replace(ours.config_for(1), kv_tier=str(folder))
    loaded = load()
    check_context(loaded, num_prompt + 1, "restart")
    with _warm_engine(loaded, config) as engine:
        cold = _first_token(engine, _prompt(loaded, num_prompt))
        began = perf_counter()
        engine.close()
        saving = perf_counter() - began
    loaded = load()
    with _warm_engine(loaded, config) as engine:
        disk = _first_token(engine, _prompt(loaded, num_prompt))
        tier = engine.stats().tier
        assert tier is not None, "the config names one"
        memory = _first_token(engine, _prompt(loaded, num_prompt))
    return Times(cold, disk, memory, tier.read_seconds, saving, tier.num_read_bytes, tier.num_hit_tokens)


def _run_peer(load: Callable[[], LoadedModel], num_prompt: int, file: Path) -> Times:
    """mlx-lm's way: the caller computes all but the last token, saves the cache and loads it."""
    loaded = _warm_model(load())
    prompt = _prompt(loaded, num_prompt)
    cold = _seconds(lambda: next(peer.single_tokens(loaded.model, prompt, 1)))
    cache: Any = make_prompt_cache(loaded.model)
    list(peer.single_tokens(loaded.model, prompt[:-1], 0, cache))
    saving = _seconds(lambda: save_prompt_cache(str(file), cache))
    anew = _warm_model(load())
    began = perf_counter()
    cache = _loaded_cache(file)
    reading = perf_counter() - began
    next(peer.single_tokens(anew.model, prompt[-1:], 1, cache))
    disk = perf_counter() - began
    cache = _loaded_cache(file)
    memory = _seconds(lambda: next(peer.single_tokens(anew.model, prompt[-1:], 1, cache)))
    return Times(cold, disk, memory, reading, saving, file.stat().st_size, num_prompt - 1)


def _warm_engine(loaded: LoadedModel, config: EngineConfig) -> Engine:
    """One that has answered something else."""
    engine = Engine(loaded, config)
    engine.generate([RandomTokens(loaded.vocab_size, seed=1)(16)], ours.fixed_length(4))
    return engine


def _warm_model(loaded: LoadedModel) -> LoadedModel:
    list(peer.single_tokens(loaded.model, RandomTokens(loaded.vocab_size, seed=1)(16), 4))
    return loaded


def _prompt(loaded: LoadedModel, num_prompt: int) -> list[int]:
    return RandomTokens(loaded.vocab_size)(num_prompt)


def _first_token(engine: Engine, prompt: list[int]) -> float:
    [output] = engine.generate([prompt], ours.fixed_length(1))
    return output.timings.ttft


def _loaded_cache(file: Path) -> Any:
    cache: Any = load_prompt_cache(str(file))
    mx.eval([layer.state for layer in cache])
    return cache


def _seconds(work: Callable[[], object]) -> float:
    began = perf_counter()
    work()
    return perf_counter() - began


def _best(runs: Sequence[Times]) -> Times:
    """The shortest of each time; of the others all runs have the same."""
    return Times(*(min(getattr(run, field.name) for run in runs) for field in fields(Times)))


def _result(num_prompt: int, mine: Times, theirs: Times) -> Result:
    over_warm = (mine.disk - mine.reading_seconds) / mine.memory
    return Result(
        title=f"restart: the first token of a prompt of {num_prompt} tokens",
        columns=("", "cold s", "disk s", "memory s", "cold / disk", "reading s", "saving s", "MB"),
        rows=[_row(OURS, mine), _row(PEER, theirs)],
        numbers={
            "prompt_tokens": num_prompt,
            "ours": asdict(mine),
            "mlx_lm": asdict(theirs),
            "ratios": {"cold / disk": mine.cold / mine.disk, "(disk - reading) / memory": over_warm},
        },
        charts=[Bars("first token, less is better", "seconds", _PLACES, {OURS: _bars(mine), PEER: _bars(theirs)})],
        notes=[
            f"from the disk {mine.cold / mine.disk:.1f}x as fast as computed; beside reading {over_warm:.2f}x what it "
            "takes with the KV in memory",
        ],
    )


def _row(label: str, times: Times) -> tuple[str, ...]:
    seconds = (times.cold, times.disk, times.memory)
    ends = (times.reading_seconds, times.saving_seconds)
    ratio, megabytes = f"{times.cold / times.disk:.1f}x", f"{times.num_bytes / 1e6:.0f}"
    return (label, *(f"{one:.3f}" for one in seconds), ratio, *(f"{one:.3f}" for one in ends), megabytes)


def _bars(times: Times) -> list[float]:
    return [times.cold, times.disk, times.memory]


RESTART = Workload("restart", frozenset({"model", "repeats", "prompt_tokens"}), _measure)
