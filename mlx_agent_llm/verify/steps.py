"""What a decode step takes with a small and with a large pool, how much memory it reads a second, and its launches.

Keys and values are written in place, so the pool's size must not matter: a step that takes longer with a larger one
copies it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from math import ceil
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from mlx_agent_kernels import backend, paged_attention
from mlx_agent_llm.bench import ours
from mlx_agent_llm.bench.decode import measure_bandwidth
from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.kv.layer_shape import token_bytes
from mlx_agent_llm.core.kv.memory import default_pool_bytes
from mlx_agent_llm.core.loop import EngineCore, Vocabulary
from mlx_agent_llm.core.step_clock import PHASES
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.models import LoadedModel, from_parts
from mlx_agent_llm.request import Request, SamplingParams
from mlx_agent_llm.testing import ByteTokenizer, tiny_model
from mlx_agent_llm.verify.comparison import fastest
from mlx_agent_llm.verify.kernels import normal

MAX_RATIO = 1.5  # of the two steps: they are alike, and a machine that does something else too is not quite even
_ROWS, _PROMPT_TOKENS, _NUM_NEW, _NUM_MEASURED = 4, 64, 64, 48
_NUM_LAYERS = (2, 6)
_SMALL_TOKENS = 2048
_LARGE_BYTES = {"metal": 2**32, "cuda": 2**32, "reference": 2**29}
_READ_BYTES = {"metal": 2**29, "cuda": 2**31, "reference": 2**25}
_VIEWS = frozenset(
    {"AsStrided", "Broadcast", "Depends", "ExpandDims", "Flatten", "Reshape", "Slice", "Split", "Squeeze"}
)
_VIEWS |= {"Transpose", "Unflatten", "View"}  # which launch nothing
# Operations of a command buffer, by the last letter of the chip's architecture (mlx/backend/metal/device.cpp).
_OPERATIONS_A_BUFFER = {"p": 20, "g": 40, "s": 50, "d": 50}


class Steps(NamedTuple):
    """Seconds of the median step with each pool, of so many bytes."""

    small_seconds: float
    large_seconds: float
    small_bytes: int
    large_bytes: int

    @property
    def are_alike(self) -> bool:
        """Whether the pool's size makes no difference."""
        return self.large_seconds < MAX_RATIO * self.small_seconds


class Launches(NamedTuple):
    """Operations of a step of one row: for each layer, and for all that is no layer.

    a_buffer: after how many MLX commits a command buffer; in a compiled forward a step may have fewer.
    """

    a_layer: float
    others: float
    a_buffer: int

    def commits(self, num_layers: int) -> int:
        """Command buffers of a step of a model of so many layers: not observed but counted."""
        return ceil((self.a_layer * num_layers + self.others) / self.a_buffer)


class Bandwidth(NamedTuple):
    """Bytes a second of a copy, and of keys and values that attention reads."""

    copy: float
    attention: float


def measure_steps() -> Steps:
    """Decode steps of a small model, first with a small pool and then with one that is many times as large."""
    loaded = _model(_NUM_LAYERS[1])
    a_token = token_bytes(probe_model(loaded.model).layers)
    most = min(_LARGE_BYTES[backend()], default_pool_bytes(mx.default_device()) // 2)
    sizes = (_SMALL_TOKENS, most // a_token)
    small, large = (_median_step(loaded, num_tokens) for num_tokens in sizes)
    return Steps(small, large, *(num_tokens * a_token for num_tokens in sizes))


def measure_reading() -> Bandwidth:
    """What the memory gives."""
    heads, kv_heads, dim, rows, block_size = 16, 8, 128, 64, 16
    dtype = mx.float32 if backend() == "reference" else mx.bfloat16
    num_blocks = _READ_BYTES[backend()] // (2 * kv_heads * dim * dtype.size * block_size * rows)
    pools = [normal(dtype, seed, rows * num_blocks * block_size, kv_heads, dim) for seed in (0, 1)]
    tables = mx.arange(rows * num_blocks, dtype=mx.int32).reshape(rows, num_blocks)
    lengths = mx.full((rows,), num_blocks * block_size, dtype=mx.int32)
    queries = normal(dtype, 2, rows, heads, dim)
    mx.eval(pools, tables, lengths, queries)
    attend = partial(paged_attention, queries, *pools, tables, lengths, scale=dim**-0.5, block_size=block_size)
    mx.eval(attend())
    return Bandwidth(measure_bandwidth(), sum(pool.nbytes for pool in pools) / fastest(lambda: [attend()]))


def count_launches() -> Launches:
    """The operations of a step of one row, as MLX exports its graph."""
    few, many = map(_num_operations, _NUM_LAYERS)
    a_layer = (many - few) / (_NUM_LAYERS[1] - _NUM_LAYERS[0])
    return Launches(a_layer, few - _NUM_LAYERS[0] * a_layer, _operations_a_buffer())


def _model(num_layers: int) -> LoadedModel:
    width = 256 if backend() == "reference" else 1024
    sizes = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": num_layers}
    heads = {"num_attention_heads": width // 64, "num_key_value_heads": width // 128, "head_dim": 64}
    model = tiny_model("qwen3", **sizes, **heads)
    if backend() != "reference":
        model.set_dtype(mx.bfloat16)
    return from_parts(model, ByteTokenizer())


def _median_step(loaded: LoadedModel, num_tokens: int) -> float:
    tokens = [[row, *range(1, _PROMPT_TOKENS)] for row in range(_ROWS)]
    with Engine(loaded, replace(ours.config_for(_ROWS), kv_cache_tokens=num_tokens)) as engine:
        engine.generate(tokens, ours.fixed_length(_NUM_NEW))
        records = ours.decode_steps(engine, _ROWS)[-_NUM_MEASURED:]
    mx.clear_cache()
    return float(np.median([sum(record.seconds[phase] for phase in PHASES) for record in records]))


def _num_operations(num_layers: int) -> int:
    """Those of a step that computes one row of a model of so many layers."""
    model = _model(num_layers).model
    config = EngineConfig(kv_cache_tokens=_SMALL_TOKENS, max_num_seqs=1, check_model=False, compile=False)
    core = EngineCore(model, probe_model(model), Vocabulary([], frozenset()), config, _SMALL_TOKENS)
    core.scheduler.add(Request(0, [1], SamplingParams(max_tokens=1), 0, lambda delta: None))
    schedule = core.scheduler.schedule()
    assert schedule is not None
    tape: list[dict[str, Any]] = []
    try:
        mx.disable_compile()  # MLX exports no operations that it has made one of
        with core._runner.on_device():
            batch = core._batch_maker.make(schedule, ())
            mx.export_function(
                tape.append, lambda token: core._runner._build(batch.tokens.token_ids + token, batch)[0], mx.array([0])
            )
    finally:
        mx.enable_compile()
        core.close()
    return sum(entry["type"] == "primitive" and entry["name"] not in _VIEWS for entry in tape)


def _operations_a_buffer() -> int:
    """After how many operations MLX commits a command buffer on this chip."""
    asked = os.environ.get("MLX_MAX_OPS_PER_BUFFER")
    architecture = str(mx.device_info().get("architecture", ""))
    return int(asked) if asked else _OPERATIONS_A_BUFFER.get(architecture[-1:], 40)
