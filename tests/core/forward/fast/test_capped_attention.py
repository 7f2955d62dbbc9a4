"""Attention with a soft cap: which modules have a form of ours, and that it answers as they do."""

from typing import Any

import pytest

from mlx_agent_llm.core.forward.fast.capped_attention import has_capped_form
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.kv.layer_shape import KVShape
from tests.support.model_types import tiny as tiny_models
from tests.support.model_types.configs import config_of
from tests.support.model_types.scenarios import all_scenarios
from tests.support.model_types.tiny import tiny
from tests.support.model_types.verdict import judge


@pytest.mark.parametrize("model_type", ["gemma2", "gear"])
def test_capped_layers_answer_as_mlx_lm_does(model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def config(model_type: str, *sizes: Any) -> dict[str, Any]:
        return config_of(model_type, *sizes) | {"attn_logit_softcapping": 2.0}

    monkeypatch.setattr(tiny_models, "config_of", config)
    shape = probe_model(tiny(model_type))
    assert shape.capped_modules and not shape.gathered_modules
    judgement = judge(model_type, all_scenarios()[2:4])
    assert (judgement.verdict, judgement.reasons) == ("equal", [])


def test_a_module_that_does_something_else_besides_has_no_such_form() -> None:
    shape = probe_model(tiny("gemma2"))
    [module, other, *_] = shape.capped_modules
    kv_shape = shape.layers[0]
    assert isinstance(kv_shape, KVShape) and has_capped_form(module, kv_shape)
    module.rope.base *= 2
    assert has_capped_form(module, kv_shape)
    cap = type(module).__call__

    class Capped(type(other)):  # type: ignore[misc]
        def __call__(self, *arguments: Any) -> Any:
            self.attn_logit_softcapping /= 2
            try:
                return cap(self, *arguments)
            finally:
                self.attn_logit_softcapping *= 2

    other.__class__ = Capped
    assert not has_capped_form(other, kv_shape)
