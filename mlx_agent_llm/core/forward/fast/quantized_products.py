"""Which product multiplies by a model's quantized weights: a kernel of ours, or MLX's where none knows their form."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import mlx.nn as nn

from mlx_agent_kernels import has_product_kernel
from mlx_agent_llm.core.forward.fast.projections import quantized_weight


class QuantizedProduct(NamedTuple):
    """How many layers have weights of one quantized form; is_ours: a decode step's rows go to a kernel of ours.

    mode: MLX's name of the form.
    """

    bits: int
    group_size: int
    mode: str
    is_ours: bool
    num_layers: int

    def __str__(self) -> str:
        """As a report says it."""
        product = "our product" if self.is_ours else "MLX's product"
        kind = f"{self.bits} bits in groups of {self.group_size}, {self.mode}"
        return f"{self.num_layers} layers of {kind}: {product}"


def quantized_products(model: nn.Module) -> tuple[QuantizedProduct, ...]:
    """The forms of a model's quantized layers, those of few bits first."""
    modules: list[Any] = model.modules()
    quantized = [module for module in modules if "scales" in module and "weight" in module]
    kinds = Counter((module.bits, module.group_size, _mode(module), _is_ours(module)) for module in quantized)
    return tuple(QuantizedProduct(*kind, count) for kind, count in sorted(kinds.items()))


def _mode(module: Any) -> str:
    """MLX's own layers name it; those of a model's module may know no other than this one."""
    return getattr(module, "mode", "affine")


def _is_ours(module: Any) -> bool:
    """Experts, for one, have no form of ours on any device."""
    has_form = isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding)
    return has_form and has_product_kernel(quantized_weight(module, module), module.scales.dtype)
