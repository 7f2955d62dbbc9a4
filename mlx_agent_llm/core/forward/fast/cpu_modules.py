"""What modules of mlx-lm compute, in fewer and faster operations for a CPU.

Their weights and their results, but for the rounding, stay what they are, for mlx-lm's own functions too. Knows no
cache and no requests.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import mlx.nn as nn

from mlx_agent_llm.core.forward.fast.adaptation import Adaptation
from mlx_agent_llm.core.forward.fast.gated_mlp import FastSwiglu, is_gated_mlp
from mlx_agent_llm.core.forward.fast.output_tiles import TiledEmbedding, TiledLinear
from mlx_agent_llm.core.forward.fast.rope_angles import RoPEAngles, SharedAngles

_MANY_OUTPUTS = 16384  # those of an LM head


def speed_up_modules(model: nn.Module, adaptation: Adaptation) -> None:
    """Give every module that has a faster form here that form."""
    shared_angles = cache(RoPEAngles)
    for _, module in model.named_modules():
        if adaptation.keep(module):
            continue
        if type(module) is nn.RoPE:
            angles = shared_angles(module.dims, module.traditional, module.base, module.scale)
            adaptation.give(module, SharedAngles, _angles=angles)
        elif type(module) is nn.Linear and _has_many_outputs(module):
            adaptation.give(module, TiledLinear)
        elif type(module) is nn.Embedding and _has_many_outputs(module):
            adaptation.give(module, TiledEmbedding)
        elif is_gated_mlp(module):
            adaptation.give(module, FastSwiglu)


def _has_many_outputs(module: Any) -> bool:
    return bool(module.weight.shape[0] > _MANY_OUTPUTS)
