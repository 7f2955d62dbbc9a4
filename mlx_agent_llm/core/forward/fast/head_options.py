"""What an attention of the usual form does to its heads, as our kernel takes it."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_agent_kernels import HeadOptions, Norm
from mlx_agent_llm.core.forward.fast.equivalence import turns_alike


def find_head_options(attention: Any) -> HeadOptions | None:
    """How the attention's heads are normed and turned; None where that is not what our kernel does."""
    frequencies = _frequencies(attention.rope)
    norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
    if frequencies is None:
        return None
    mx.eval(frequencies)  # here: another thread, of a second engine on this model, could not
    if (norms[0] is None) != (norms[1] is None):
        return None
    options = HeadOptions(attention.n_heads, frequencies, bool(attention.rope.traditional))
    if norms[0] is not None:
        first, second = map(find_norm, norms)
        if first is None or second is None or first.eps != second.eps:
            return None
        options = options._replace(q_norm=first.weight, k_norm=second.weight, eps=first.eps)
    return options if turns_alike(attention.rope, options, head_dim(attention)) else None


def find_norm(module: Any) -> Norm | None:
    """An RMS norm as our kernels take it; None of any other."""
    return Norm(module.weight, module.eps) if type(module) is nn.RMSNorm else None


def head_dim(attention: Any) -> int:
    """Dimensions of one of the heads."""
    num_features: int = attention.q_proj.weight.shape[0]
    return num_features // int(attention.n_heads)


def _frequencies(rope: Any) -> mx.array | None:
    """(dims / 2,) radians a token of a RoPE module of mlx or mlx-lm."""
    if type(rope) is nn.RoPE:
        return mx.array((rope.scale * float(rope.base) ** -(np.arange(0, rope.dims, 2) / rope.dims)).astype(np.float32))
    if all(hasattr(rope, name) for name in ("_freqs", "dims", "traditional")):
        frequencies: mx.array = 1.0 / rope._freqs
        return frequencies
    return None
