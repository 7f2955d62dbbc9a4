"""Which well-known models this memory has room for, and how fast its bandwidth lets them decode at most.

Sizes are of the models' own configurations; nothing of it was run here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
from rich.table import Table

from mlx_agent_llm.bench.decode import measure_bandwidth
from mlx_agent_llm.cli.models.fit import Size, max_decode_rate, num_agents
from mlx_agent_llm.cli.options import console_beside, write_json
from mlx_agent_llm.models.served_types import served_types
from mlx_agent_llm.process.device_memory import GIB, usable_bytes

_WIDTH = 8192  # 256 MiB in float32


class KnownModel(NamedTuple):
    """A model of the hub by its configuration; parameters in 10^9, all and those that a token reads."""

    name: str
    model_type: str
    parameters: float
    read_parameters: float
    layers: int
    kv_heads: int
    head_dim: int

    def size(self, bits: int) -> Size:
        """With weights of so many bits; those of 4 and 8 have a scale and a bias of 16 bits each in groups of 64."""
        bytes_a_parameter = (bits + (0.5 if bits < 16 else 0)) / 8
        weights, read = (int(1e9 * number * bytes_a_parameter) for number in (self.parameters, self.read_parameters))
        return Size(weights, read, 2 * self.layers * self.kv_heads * self.head_dim * max(bits, 16) // 8)


KNOWN = (
    KnownModel("Qwen/Qwen3-0.6B", "qwen3", 0.596, 0.596, 28, 8, 128),
    KnownModel("meta-llama/Llama-3.2-1B-Instruct", "llama", 1.236, 1.236, 16, 8, 64),
    KnownModel("Qwen/Qwen3-1.7B", "qwen3", 1.721, 1.721, 28, 8, 128),
    KnownModel("meta-llama/Llama-3.2-3B-Instruct", "llama", 3.213, 3.213, 28, 8, 128),
    KnownModel("Qwen/Qwen3-4B", "qwen3", 4.022, 4.022, 36, 8, 128),
    KnownModel("meta-llama/Llama-3.1-8B-Instruct", "llama", 8.030, 8.030, 32, 8, 128),
    KnownModel("Qwen/Qwen3-8B", "qwen3", 8.191, 8.191, 36, 8, 128),
    KnownModel("Qwen/Qwen3-14B", "qwen3", 14.768, 14.768, 40, 8, 128),
    KnownModel("Qwen/Qwen3-30B-A3B", "qwen3_moe", 30.532, 3.353, 48, 4, 128),
    KnownModel("Qwen/Qwen3-32B", "qwen3", 32.762, 32.762, 64, 8, 128),
    KnownModel("meta-llama/Llama-3.3-70B-Instruct", "llama", 70.554, 70.554, 80, 8, 128),
)


def show_recommendations(context: int, json_file: Path | None) -> None:
    """The models that fit, the largest last, with the fewest bits first."""
    device = mx.default_device()
    memory, bandwidth = usable_bytes(device), max(measure_bandwidth(), reading_rate())
    bits = (32,) if device.type == mx.cpu else (4, 8, 16)  # on a CPU all is computed in float32
    rows = list(recommendations(memory, bandwidth, context, bits))
    title = f"{memory / GIB:.1f} GiB may be used; {bandwidth / 1e9:,.0f} GB/s are read (measured just now)"
    table = Table(title=title, title_justify="left")
    table.add_column("model", no_wrap=True)
    for name in ("bits", "GiB", "agents", "tok/s of 1", "of 16"):
        table.add_column(name, justify="right")
    for row in rows:
        rates = (f"{row['max_tokens_per_second']:,.1f}", f"{row['max_tokens_per_second_of_16']:,.1f}")
        table.add_row(row["model"], str(row["bits"]), f"{row['weight_bytes'] / GIB:.1f}", str(row["agents"]), *rates)
    console = console_beside(json_file)
    console.print(table if rows else "None of the models that are known here fits.")
    console.print(
        f"agents: with {context:,} tokens each and nothing in common. tok/s: at most, of 1 and of 16 agents together, "
        "if nothing but reading weights and KV took time. None of it was run; `mlx-agent bench decode` measures.",
        highlight=False,
    )
    write_json(json_file, {"memory_bytes": memory, "bandwidth": bandwidth, "context": context, "models": rows})


def reading_rate() -> float:
    """Bytes a second of a product of one row, as a step reads weights: on a CPU it is far more than a copy moves."""
    matrix, row = mx.ones((_WIDTH, _WIDTH)), mx.ones((1, _WIDTH))
    mx.eval(matrix, row)
    seconds = []
    for _ in range(5):
        began_at = time.perf_counter()
        mx.eval(row @ matrix.T)
        seconds.append(time.perf_counter() - began_at)
    return matrix.nbytes / min(seconds)


def recommendations(memory: int, bandwidth: float, context: int, bits: Sequence[int]) -> Iterator[dict[str, Any]]:
    """What fits with at least one agent; only of types that are served."""
    for known in KNOWN:
        assert served_types().describe(known.model_type) == "served", known
        for width in bits:
            size = known.size(width)
            agents = num_agents(size, memory, context)
            if agents:
                yield {
                    "model": known.name,
                    "bits": width,
                    "weight_bytes": size.weights,
                    "kv_bytes_per_token": size.token_bytes,
                    "agents": agents,
                    "max_tokens_per_second": max_decode_rate(size, bandwidth, context),
                    "max_tokens_per_second_of_16": max_decode_rate(size, bandwidth, context, 16),
                }
