"""Microseconds of a layer's products from packed weights on a CUDA GPU, ours beside MLX's: the table of docs/gpu.md.

python tests/kernels/time_projections.py. Times are those of the kernels alone, by CUPTI through torch's profiler, on
weights that no cache has; random numbers in Qwen3-0.6B's shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import mlx.core as mx

from mlx_agent_kernels import Norm, QuantizedWeight, project

GROUP_SIZE = 64
CACHE_BYTES = 100e6


class Product(NamedTuple):
    """One of a layer's four."""

    name: str
    features: int
    width: int
    has_norm: bool = False
    is_gated: bool = False


PRODUCTS = (
    Product("norm, queries, keys and values", 4096, 1024, has_norm=True),
    Product("output and residual", 1024, 2048),
    Product("norm, gate, up and SwiGLU", 6144, 1024, has_norm=True, is_gated=True),
    Product("down and residual", 1024, 3072),
)


def main() -> None:
    """Print a line a product and number of rows."""
    print("bits | product | rows | ours, with all around it | MLX, a matrix | MLX, one token each")
    for bits in (4, 8):
        for product in PRODUCTS:
            weights = _weights(product, bits)
            for rows in (1, 8, 16, 64):
                times = [_microseconds(call, len(weights)) for call in _calls(product, weights, rows)]
                print(bits, product.name, rows, *(f"{time:.1f}" for time in times), sep=" | ", flush=True)


def _weights(product: Product, bits: int) -> list[QuantizedWeight]:
    """As many as no cache holds."""
    count = int(CACHE_BYTES / (product.features * product.width * bits / 8)) + 1
    weights = []
    for _ in range(count):
        dense = mx.random.normal((product.features, product.width)).astype(mx.bfloat16)
        arrays = mx.quantize(dense, GROUP_SIZE, bits)
        mx.eval(arrays)
        weights.append(QuantizedWeight(*arrays, GROUP_SIZE, bits))
    return weights


def _calls(product: Product, weights: list[QuantizedWeight], rows: int) -> list[Callable[[], list[mx.array]]]:
    x = mx.random.normal((rows, 1, product.width)).astype(mx.bfloat16)
    norm = Norm(mx.ones((product.width,), dtype=mx.bfloat16), 1e-6) if product.has_norm else None
    residual = None if product.has_norm else mx.zeros((rows, 1, product.features), dtype=mx.bfloat16)
    mx.eval(x, residual)

    def alone(inputs: mx.array) -> list[mx.array]:
        return [mx.quantized_matmul(inputs, w.packed, w.scales, w.biases, True, GROUP_SIZE, w.bits) for w in weights]

    return [
        lambda: [project(x, w, norm=norm, residual=residual, is_gated=product.is_gated) for w in weights],
        lambda: alone(x[:, 0]),
        lambda: alone(x),
    ]


def _microseconds(call: Callable[[], list[mx.array]], count: int) -> float:
    """Of all kernels of a call, for each of its products."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    mx.eval(call())
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        mx.eval(call())
        mx.synchronize()
    kernels = [event for event in profiled.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return float(sum(event.device_time_total for event in kernels if "Mem" not in event.name) / count)


if __name__ == "__main__":
    main()
