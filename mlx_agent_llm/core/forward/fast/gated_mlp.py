"""The gated MLP with an activation that takes a fifth of the time of MLX's own on x86."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_kernels import swiglu
from mlx_agent_llm.core.forward.fast.adaptation import Form


class FastSwiglu(Form):
    """The form of a module that is_gated_mlp."""

    def __call__(self: Any, x: mx.array) -> mx.array:
        """(..., width) inputs; same shape."""
        output: mx.array = self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))
        return output


def is_gated_mlp(module: Any) -> bool:
    """Whether a module computes just what FastSwiglu does: it has the three layers, and a trial agrees."""
    if not all(isinstance(getattr(module, name, None), nn.Linear) for name in ("gate_proj", "up_proj", "down_proj")):
        return False
    trial = mx.random.normal((1, 1, module.gate_proj.weight.shape[1]), key=mx.random.key(0))
    trial = trial.astype(module.gate_proj.weight.dtype)
    try:
        return bool(mx.allclose(module(trial), FastSwiglu.__call__(module, trial), rtol=1e-3, atol=1e-5))
    except TypeError:  # it takes further arguments
        return False
