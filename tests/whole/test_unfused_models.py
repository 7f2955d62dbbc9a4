"""Models whose blocks keep mlx-lm's own form, and quantized ones, say what mlx-lm says: in any type, at any length.

On a GPU the contexts go to 40,000 tokens: `pytest tests/whole/test_unfused_models.py`, some minutes, most of which
compile kernels; without one they are short.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.models.cache import make_prompt_cache

from mlx_agent_kernels import backend
from mlx_agent_llm import EngineConfig, SamplingParams
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.loop import EngineCore, Vocabulary
from mlx_agent_llm.request import Request
from mlx_agent_llm.testing import tiny_model

ON_A_GPU = backend() != "reference"
CONTEXTS = (16, 17, 130, 1000, 5000, 20_000, 40_000) if ON_A_GPU else (16, 90)
NUM_NEW = 12 if ON_A_GPU else 5
WIDTH = 256 if ON_A_GPU else 128
VOCAB_SIZE = 512
EXPERTS: dict[str, Any] = {
    "num_experts": 4,
    "num_experts_per_tok": 4,  # all: rounded to 16 bits, a token that two suit alike may go to the other one
    "decoder_sparse_step": 1,
    "moe_intermediate_size": 128,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
}
# Of the logits' spread, by which a token may be worse than the best one to mlx-lm: what rounding makes of 16 bits.
TOLERANCE = {mx.float32: 0.02 if ON_A_GPU else 1e-3, mx.float16: 0.1, mx.bfloat16: 0.5}


class Weights(NamedTuple):
    """A model's type and the form of its weights."""

    model_type: str = "gemma"  # its norms are no RMSNorm of MLX, so that its blocks keep their form
    dtype: mx.Dtype = mx.bfloat16
    quantization: dict[str, Any] | None = None
    is_tied: bool = True

    def model(self) -> nn.Module:
        overrides = EXPERTS if "moe" in self.model_type else {}
        sizes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "head_dim": 64, "vocab_size": VOCAB_SIZE}
        more = {"max_position_embeddings": 65_536, "tie_word_embeddings": self.is_tied}
        model = tiny_model(self.model_type, **sizes, **more, **overrides)
        model.set_dtype(self.dtype)
        if self.quantization is not None:
            nn.quantize(model, **self.quantization)
        mx.eval(model.parameters())
        return model


def mixed(path: str, module: nn.Module) -> bool | dict[str, Any]:
    if not hasattr(module, "to_quantized"):
        return False
    kinds = {"self_attn": (8, 64), "down_proj": (6, 64), "mlp": (4, 32)}
    bits, group_size = next((kind for part, kind in kinds.items() if part in path), (8, 128))
    return {"bits": bits, "group_size": group_size}


FOUR_BITS = {"bits": 4, "group_size": 64}
WEIGHTS = {
    "float32": Weights(dtype=mx.float32),
    "float16": Weights(dtype=mx.float16),
    "bfloat16": Weights(),
    "bfloat16 experts": Weights("qwen3_moe"),
    "4 bits": Weights(quantization=FOUR_BITS),
    "8 bits": Weights(quantization={"bits": 8, "group_size": 64}),
    "4 bits, float16": Weights(dtype=mx.float16, quantization=FOUR_BITS),
    "4 bits, fused": Weights("qwen3", quantization=FOUR_BITS, is_tied=False),
    "8 bits, fused": Weights("llama", quantization={"bits": 8, "group_size": 32}),
    "mixed": Weights(quantization={"class_predicate": mixed}),
    "mixed, fused": Weights("qwen3", quantization={"class_predicate": mixed}, is_tied=False),
    "mxfp4": Weights("qwen3", quantization={"bits": 4, "group_size": 32, "mode": "mxfp4"}),
    "4 bits in experts": Weights("qwen3_moe", quantization=FOUR_BITS, is_tied=False),
    "mxfp4 in experts": Weights("qwen3_moe", quantization={"bits": 4, "group_size": 32, "mode": "mxfp4"}),
}


def cases() -> list[Any]:
    reason = "MLX multiplies by experts of 16 bits on a GPU only"
    on_a_gpu = pytest.mark.skipif(not ON_A_GPU, reason=reason)
    return [pytest.param(name, marks=[on_a_gpu] if name == "bfloat16 experts" else []) for name in WEIGHTS]


@pytest.mark.parametrize("name", cases())
def test_every_token_is_one_that_mlx_lm_would_choose(name: str) -> None:
    model = WEIGHTS[name].model()
    prompts = [np.random.default_rng(length).integers(0, VOCAB_SIZE, length).tolist() for length in CONTEXTS]
    outputs = decode(model, prompts)
    for prompt, output in zip(prompts, outputs, strict=True):
        assert len(output) == NUM_NEW
        assert worst_gap(model, prompt, output) < TOLERANCE[WEIGHTS[name].dtype], len(prompt)


def decode(model: nn.Module, prompts: Sequence[list[int]]) -> list[list[int]]:
    """Each prompt continued greedily by an engine that computes them side by side."""
    limit = max(CONTEXTS) + NUM_NEW + 16
    config = EngineConfig(kv_cache_tokens=2 * sum(CONTEXTS), max_tokens_per_step=2048, max_num_seqs=len(CONTEXTS))
    core = EngineCore(model, probe_model(model), Vocabulary([b""] * VOCAB_SIZE, frozenset()), config, limit)
    outputs: list[list[int]] = [[] for _ in prompts]
    params = SamplingParams(max_tokens=NUM_NEW, temperature=0.0, ignore_eos=True)
    for index, prompt in enumerate(prompts):
        core.add(Request(index, prompt, params, 0, lambda delta: None))
    while core.has_work:
        for request, delta in core.step():
            outputs[request.request_id] += delta.token_ids
    core.check_integrity()
    core.close()
    return outputs


def worst_gap(model: Any, prompt: list[int], output: list[int]) -> float:
    """By how much mlx-lm finds a token of the output worse than its best one, in standard deviations of the logits."""
    cache = make_prompt_cache(model)
    for begin in range(0, len(prompt) - 1, 2048):
        model(mx.array([prompt[begin : min(begin + 2048, len(prompt) - 1)]]), cache=cache)
        mx.eval([layer.state for layer in cache])
    logits = model(mx.array([[prompt[-1], *output[:-1]]]), cache=cache)[0].astype(mx.float32)
    chosen = logits[mx.arange(len(output)), mx.array(output)]
    gap: float = ((logits.max(axis=-1) - chosen) / mx.std(logits, axis=-1)).max().item()
    return gap
