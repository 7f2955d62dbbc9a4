"""What is said of quantized layers is which product their rows get."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlx_agent_kernels import projections
from mlx_agent_llm.core.forward.fast.quantized_products import QuantizedProduct, quantized_products
from mlx_agent_llm.testing import tiny_model
from tests.support.cores import make_core
from tests.support.model_types.tiny import tiny

EXPERTS: dict[str, Any] = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "decoder_sparse_step": 1,
    "moe_intermediate_size": 64,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
}


def mixed(path: str, module: nn.Module) -> bool | dict[str, Any]:
    """The embedding in a form that no kernel of ours knows, the experts' and the attention's in different ones."""
    if not hasattr(module, "to_quantized"):
        return False
    kinds = {"embed_tokens": (6, 64, "affine"), "mlp": (4, 32, "mxfp4"), "self_attn": (8, 32, "affine")}
    bits, group_size, mode = next(kind for part, kind in kinds.items() if part in path)
    return {"bits": bits, "group_size": group_size, "mode": mode}


@pytest.fixture
def model() -> nn.Module:
    model = tiny_model("qwen3_moe", hidden_size=64, head_dim=64, **EXPERTS)
    model.set_dtype(mx.bfloat16)
    nn.quantize(model, class_predicate=mixed)
    return model


def test_without_a_gpu_all_products_are_mlx_s(model: nn.Module, on_the_cpu: None) -> None:
    core = make_core(model)
    assert core.stats().quantized_products == (
        QuantizedProduct(4, 32, "mxfp4", False, 8),  # a router and three of all experts, in each of two layers
        QuantizedProduct(6, 64, "affine", False, 1),
        QuantizedProduct(8, 32, "affine", False, 8),
    )
    core.close()


def test_on_cuda_layers_whose_form_a_kernel_knows_are_ours(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projections, "backend", lambda: "cuda")
    found = quantized_products(model)
    assert {(product.bits, product.is_ours) for product in found} == {(8, True), (4, False), (6, False)}
    assert str(found[2]) == "8 layers of 8 bits in groups of 32, affine: our product"
    assert str(found[1]) == "1 layers of 6 bits in groups of 64, affine: MLX's product"


def test_a_model_that_is_not_quantized_has_none() -> None:
    assert quantized_products(tiny_model()) == ()


def test_layers_of_a_model_s_own_class_are_among_them() -> None:
    found = quantized_products(tiny("prism_hadamard_qwen35"))
    assert {(product.bits, product.group_size, product.mode) for product in found} == {(2, 128, "affine")}
