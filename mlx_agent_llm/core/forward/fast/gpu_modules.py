"""Which modules of a model are faster on a GPU in a form of ours."""

from __future__ import annotations

from typing import Any

import mlx.nn as nn
from mlx_lm.models.mla import QuantizedMultiLinear

from mlx_agent_llm.core.forward.fast.adaptation import Adaptation
from mlx_agent_llm.core.forward.fast.fused_blocks import fuse_blocks
from mlx_agent_llm.core.forward.fast.packed_layers import PackedEmbedding, PackedLinear, PackedMultiLinear


def speed_up_modules(model: nn.Module, adaptation: Adaptation) -> None:
    """Give blocks of the usual form their fused form, and quantized layers the one that multiplies rows together."""
    fuse_blocks(model, adaptation)
    modules: list[Any] = model.modules()
    for module in modules:
        if issubclass(type(module), PackedLinear | PackedEmbedding | PackedMultiLinear):
            adaptation.keep(module)
        elif type(module) is nn.QuantizedLinear:
            adaptation.give(module, PackedLinear)
        elif type(module) is nn.QuantizedEmbedding:
            adaptation.give(module, PackedEmbedding)
        elif type(module) is QuantizedMultiLinear:
            adaptation.give(module, PackedMultiLinear)
