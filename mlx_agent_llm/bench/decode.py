"""decode: tokens a second of rows in the middle of their output, ours and mlx-lm's, and what the memory allows.

The model is the random one unless another is asked for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlx_agent_llm.bench import ours, peer
from mlx_agent_llm.bench.random_model import random_model
from mlx_agent_llm.bench.result import OURS, OUT_OF_MEMORY, PEER, Bars, Result
from mlx_agent_llm.bench.workload import Options, RandomTokens, Workload, check_context
from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.kv.layer_shape import token_bytes
from mlx_agent_llm.core.step_clock import HOST_PHASES, PHASES
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.models import LoadedModel

NUM_OWN = 32  # tokens of a row after the shared prefix
NUM_WARM, NUM_MEASURED = 32, 96  # steps
NUM_NEW = NUM_WARM + NUM_MEASURED
GROUP_SIZE = 64  # of quantized weights
_BANDWIDTH_BYTES = {"gpu": 2**31, "cpu": 2**27}


class Case(NamedTuple):
    """`rows` sequences of `context` tokens, that have all but their last NUM_OWN tokens in common when shared."""

    rows: int
    context: int
    is_shared: bool = False

    @property
    def name(self) -> str:
        """As the table says it."""
        return f"{self.rows} x {self.context}{' shared' if self.is_shared else ''}"

    def prompts(self, tokens: RandomTokens) -> list[list[int]]:
        """A prompt for each row."""
        prefix = tokens(self.num_shared)
        return [prefix + tokens(self.context - self.num_shared) for _ in range(self.rows)]

    @property
    def num_shared(self) -> int:
        """Tokens that all rows have in common."""
        return self.context - NUM_OWN if self.is_shared else 0

    @property
    def num_pool_tokens(self) -> int:
        """What the rows fill to the end of their output: whole blocks of the shared tokens once, and a row's own."""
        size = EngineConfig.block_size
        num_shared = self.num_shared // size
        num_blocks = -(-(self.context + NUM_NEW) // size) + 1  # a step more may have begun
        return size * (num_shared + self.rows * (num_blocks - num_shared))


CASES = (
    Case(1, 512),
    Case(8, 512),
    Case(16, 2048),
    Case(32, 2048),
    Case(64, 512),
    Case(64, 4096),
    Case(64, 4096 + NUM_OWN, is_shared=True),
)


class Decoded(NamedTuple):
    """Seconds of a mean step, and of the part of it in which the host did not wait for MLX."""

    step: float
    host: float | None = None


def _measure(options: Options) -> Result:
    loaded, rival = (_load(options) for _ in range(2))
    cases = _cases(options)
    for case in cases:
        check_context(loaded, case.context + NUM_NEW, f"decode of {case.name}")
    bandwidth, lines = measure_bandwidth(), []
    for case in cases:
        prompts = case.prompts(RandomTokens(loaded.vocab_size))
        runs = [
            (_run_ours(loaded, case, prompts), _run_peer(rival.model, prompts)) for _ in range(options.repeats or 1)
        ]
        mine, theirs = _best([mine for mine, _ in runs]), peer.best([theirs for _, theirs in runs], _best)
        lines.append(Line(case, mine, theirs, least_bytes(loaded.model, case) / bandwidth))
    return _result(lines, bandwidth)


def _load(options: Options) -> LoadedModel:
    """The model, its weights quantized if that is asked for."""
    loaded = (options.model or random_model)("auto")
    if options.bits in (4, 8):
        nn.quantize(loaded.model, group_size=GROUP_SIZE, bits=options.bits)
        mx.eval(loaded.model.parameters())
    return loaded


class Line(NamedTuple):
    """One case, and the seconds that its least bytes take at the memory's speed; mlx_lm: None without memory for it."""

    case: Case
    ours: Decoded
    mlx_lm: Decoded | None
    floor: float

    @property
    def ratio(self) -> float | None:
        """How many times as fast as mlx-lm."""
        return None if self.mlx_lm is None else self.mlx_lm.step / self.ours.step

    def tokens_per_second(self, seconds: float) -> float:
        """Of a step that takes so long."""
        return self.case.rows / seconds


def _cases(options: Options) -> tuple[Case, ...]:
    """The whole table, or what the options ask for, once with nothing shared and once with all but the ends."""
    if options.rows is None and options.prompt_tokens is None:
        return CASES
    rows, context = options.rows or 64, options.prompt_tokens or 4096
    return (Case(rows, context), Case(rows, context + NUM_OWN, is_shared=True))


def _run_ours(loaded: LoadedModel, case: Case, prompts: Sequence[list[int]]) -> Decoded:
    config = replace(ours.config_for(case.rows), kv_cache_tokens=case.num_pool_tokens)
    with Engine(loaded, config) as engine:
        engine.generate(prompts, ours.fixed_length(1))  # so that all rows start together, on what the cache holds
        engine.generate(prompts, ours.fixed_length(NUM_NEW))
        steps = [record.seconds for record in ours.decode_steps(engine, case.rows)][-NUM_MEASURED:]
    mx.clear_cache()
    means = [
        float(np.mean([sum(step[phase] for phase in phases) for step in steps])) for phases in (PHASES, HOST_PHASES)
    ]
    return Decoded(*means)


@peer.unless_out_of_memory
def _run_peer(model: nn.Module, prompts: Sequence[list[int]]) -> Decoded:
    rows, moments = len(prompts), []
    with peer.batch_generator(model, rows) as generator:
        generator.insert(prompts, max_tokens=[NUM_NEW] * rows)
        num_left = rows * NUM_NEW
        while num_left > 0:
            _, responses = generator.next()
            num_left -= len(responses)
            if len(responses) == rows:
                moments.append(time.perf_counter())
    measured = moments[-NUM_MEASURED:]
    return Decoded((measured[-1] - measured[0]) / (len(measured) - 1))


def _best(runs: Sequence[Decoded]) -> Decoded:
    return min(runs, key=lambda decoded: decoded.step)


def measure_bandwidth() -> float:
    """Bytes a second that the device reads and writes in a copy with an addition."""
    size = _BANDWIDTH_BYTES["cpu" if mx.default_device() == mx.Device(mx.cpu) else "gpu"]
    source = mx.zeros((size // 4,), dtype=mx.int32)
    seconds = []
    for number in range(5):
        mx.eval(source)
        began_at = time.perf_counter()
        mx.eval(source + number)
        seconds.append(time.perf_counter() - began_at)
    return 2 * size / min(seconds)


def least_bytes(model: nn.Module, case: Case) -> float:
    """What a step in the middle of the measurement must read: every weight once, and every key and value once."""
    weights: int = sum(array.nbytes for array in dict(tree_flatten(model.parameters())).values())
    kept = token_bytes(probe_model(model).layers)
    after = NUM_WARM + NUM_MEASURED // 2
    own = case.context - case.num_shared + after
    return weights + kept * (case.num_shared + case.rows * own)


def _result(lines: Sequence[Line], bandwidth: float) -> Result:
    return Result(
        title=f"decode: tokens a second over {NUM_MEASURED} steps",
        columns=("rows x context", PEER, OURS, "times as fast", "step ms", "host ms", "floor", "of the floor"),
        rows=[_row(line) for line in lines],
        numbers={
            "bandwidth_bytes_per_second": bandwidth,
            "cases": [_numbers(line) for line in lines],
        },
        charts=[
            Bars(
                "more is better",
                "tokens a second",
                [line.case.name for line in lines],
                {
                    OURS: [line.tokens_per_second(line.ours.step) for line in lines],
                    PEER: [line.tokens_per_second(line.mlx_lm.step) if line.mlx_lm else math.nan for line in lines],
                },
            )
        ],
        notes=[f"floor: every weight, key and value read once at {bandwidth / 1e9:,.0f} GB/s, measured by a copy"],
    )


def _row(line: Line) -> tuple[str, ...]:
    assert line.ours.host is not None
    return (
        line.case.name,
        OUT_OF_MEMORY if line.mlx_lm is None else f"{line.tokens_per_second(line.mlx_lm.step):,.0f}",
        f"{line.tokens_per_second(line.ours.step):,.0f}",
        "" if line.ratio is None else f"{line.ratio:.2f}x",
        f"{1e3 * line.ours.step:.2f}",
        f"{1e3 * line.ours.host:.2f}",
        f"{line.tokens_per_second(line.floor):,.0f}",
        f"{line.floor / line.ours.step:.0%}",
    )


def _numbers(line: Line) -> dict[str, Any]:
    return {
        **line.case._asdict(),
        "ours": line.ours._asdict(),
        "mlx_lm_step": line.mlx_lm.step if line.mlx_lm else None,
        "mlx_lm_failure": None if line.mlx_lm else OUT_OF_MEMORY,
        "floor": line.floor,
        "tokens_per_second": line.tokens_per_second(line.ours.step),
        "ratio": line.ratio,
    }


DECODE = Workload("decode", frozenset({"model", "rows", "prompt_tokens", "repeats", "bits"}), _measure)
