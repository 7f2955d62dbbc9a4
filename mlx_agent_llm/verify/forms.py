"""Models whose modules run in forms of ours on this device, beside the same models with mlx-lm's own cache."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_kernels import backend
from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.core.forward.fast.fused_blocks import FusedBlock
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.loop import EngineCore, Vocabulary
from mlx_agent_llm.testing import ByteTokenizer, tiny_model
from mlx_agent_llm.verify.comparison import Comparison, dtype_name

_SIZES = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}
_EXPERTS: dict[str, Any] = {
    "num_experts": 4,
    "num_experts_per_tok": 4,
    "decoder_sparse_step": 1,
    "moe_intermediate_size": 128,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
}
_CONTEXT = 512


class Form(NamedTuple):
    """A model in one type, quantized or not."""

    name: str
    model_type: str
    dtype: mx.Dtype
    quantization: dict[str, Any] | None = None

    def model(self) -> nn.Module:
        """Random weights in this form."""
        model = tiny_model(self.model_type, **_SIZES, **(_EXPERTS if "moe" in self.model_type else {}))
        model.set_dtype(self.dtype)
        if self.quantization is not None:
            nn.quantize(model, **self.quantization)
        mx.eval(model.parameters())
        return model


def compare_forms() -> Iterator[Comparison]:
    """The logits of each form after a prompt and after single tokens, which mlx-lm computes too."""
    for form in _forms():
        began_at = time.perf_counter()
        name, error, tolerance = _tried(form)
        yield Comparison(name, dtype_name(form.dtype), error, tolerance, time.perf_counter() - began_at)


def _forms() -> Iterator[Form]:
    for dtype in (mx.float32, mx.float16, mx.bfloat16):
        yield Form("blocks of Llama's form", "llama", dtype)
        yield Form("blocks of Qwen 3's form", "qwen3", dtype)
        yield Form("blocks that keep their own form (Gemma)", "gemma", dtype)
        if dtype == mx.float32 or backend() != "reference":  # MLX multiplies by experts of 16 bits on a GPU only
            yield Form("experts (Qwen 3)", "qwen3_moe", dtype)
    for bits in (4, 8):
        affine = {"bits": bits, "group_size": 64}
        yield Form(f"{bits} bits, blocks of Qwen 3's form", "qwen3", mx.bfloat16, affine)
        yield Form(f"{bits} bits, blocks that keep their own form", "gemma", mx.bfloat16, affine)
        yield Form(f"{bits} bits, experts", "qwen3_moe", mx.bfloat16, affine)
    yield Form("3 bits, MLX's product", "qwen3", mx.bfloat16, {"bits": 3, "group_size": 64})
    yield Form("mxfp4, MLX's product", "qwen3", mx.bfloat16, {"bits": 4, "group_size": 32, "mode": "mxfp4"})


def _tried(form: Form) -> tuple[str, float, float]:
    """The form's name, with whether its blocks are fused, its distance from mlx-lm, and what rounding may make."""
    model: Any = form.model()
    config = EngineConfig(kv_cache_tokens=_CONTEXT, max_num_seqs=4, check_model=False)
    vocabulary = Vocabulary([b""] * ByteTokenizer.vocab_size, frozenset())
    core = EngineCore(model, probe_model(model), vocabulary, config, _CONTEXT)
    try:
        trial = core.trial(model, config, _CONTEXT)
        is_fused = all(isinstance(block, FusedBlock) for block in model.layers)
        name = form.name + (", fused" if is_fused else "")
        return name, trial.distance(trial.random_tokens(0)), trial.tolerance
    finally:
        core.close()
