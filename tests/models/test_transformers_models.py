"""Models as transformers writes them from version 5 on, beside transformers' own logits."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.models import gemma3_text, glm, olmo3, qwen3_moe, recurrent_gemma

from mlx_agent_llm import UnsupportedModelError
from mlx_agent_llm.models import load_model
from mlx_agent_llm.models.rotary_settings import check_rotary_settings
from mlx_agent_llm.models.transformers_names import in_mlx_lm_names
from tests.models.test_loading import save_tokenizer
from tests.support.model_types.configs import config_of
from tests.support.transformers_models import DEFAULT, LINEAR, LLAMA3, PLAIN, SCALED, WRAPPED, YARN, Rope, write_model

FEW = ("llama", "gemma3_text", "gpt_oss", "qwen3_moe")
YARN_FLAT = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


def check(folder: Path, model_type: str, rope: Rope) -> None:
    token_ids = np.random.default_rng(0).integers(0, 300, (1, 150))
    expected = write_model(folder, model_type, rope, token_ids)
    save_tokenizer(folder)
    found = np.array(load_model(str(folder), device="cpu").model(mx.array(token_ids))[0])
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("model_type", FEW)
def test_a_model_that_transformers_saved_has_the_logits_that_it_has_there(tmp_path: Path, model_type: str) -> None:
    check(tmp_path, model_type, YARN if model_type in SCALED else DEFAULT)


@pytest.mark.long
@pytest.mark.parametrize("rope", [DEFAULT, LINEAR, LLAMA3, YARN], ids=lambda rope: rope["rope_type"])
@pytest.mark.parametrize("model_type", SCALED)
def test_every_scaling_is_what_it_is_in_transformers(tmp_path: Path, model_type: str, rope: Rope) -> None:
    check(tmp_path, model_type, rope)


@pytest.mark.long
@pytest.mark.parametrize("model_type", PLAIN)
def test_every_type_is_what_it_is_in_transformers(tmp_path: Path, model_type: str) -> None:
    check(tmp_path, model_type, DEFAULT)


@pytest.mark.long
@pytest.mark.parametrize("rope", [DEFAULT, YARN], ids=lambda rope: rope["rope_type"])
@pytest.mark.parametrize("model_type", WRAPPED)
def test_the_text_of_a_model_of_images_is_what_it_is_in_transformers(
    tmp_path: Path, model_type: str, rope: Rope
) -> None:
    check(tmp_path, model_type, rope)


@pytest.mark.long
@pytest.mark.parametrize("model_type", sorted(PLAIN.keys() - {"hunyuan_v1_dense", "nemotron", "phi3"}))
def test_a_scaling_that_mlx_lm_does_not_read_is_refused(tmp_path: Path, model_type: str) -> None:
    with pytest.raises(UnsupportedModelError, match=r"rope_scaling=.*'linear'.*mlx-lm does not read it"):
        check(tmp_path, model_type, LINEAR)


def refusal(module: Any, model_type: str, **changes: Any) -> str:
    """Why a type's tiny model, as mlx-lm makes it of a configuration, is not what that asks for; empty if it is."""
    config = in_mlx_lm_names(config_of(model_type) | {"partial_rotary_factor": None} | changes)
    model: nn.Module = module.Model(module.ModelArgs.from_dict(config))
    try:
        check_rotary_settings(Path("config.json"), config, module.ModelArgs, model)
    except UnsupportedModelError as error:
        return str(error)
    return ""


def test_what_mlx_lm_does_not_read_of_rotary_embeddings_is_refused_by_name() -> None:
    scaled = refusal(qwen3_moe, "qwen3_moe", rope_scaling=YARN_FLAT)
    assert "config.json: rope_scaling={'rope_type': 'yarn'" in scaled
    assert scaled.endswith("mlx-lm does not read it for model_type='qwen3_moe'")
    assert "partial_rotary_factor=0.5" in refusal(glm, "glm", partial_rotary_factor=0.5)
    two = {"full_attention": {"rope_theta": 5000.0}, "sliding_attention": {"rope_theta": 3000.0}}
    assert "rope_local_base_freq=3000.0" in refusal(olmo3, "olmo3", rope_theta=None, rope_parameters=two)


def test_what_mlx_lm_reads_or_what_changes_nothing_is_not_refused() -> None:
    assert not refusal(glm, "glm", partial_rotary_factor=1.0)
    assert not refusal(recurrent_gemma, "recurrent_gemma", partial_rotary_factor=0.5)  # the half of a head it turns
    assert not refusal(gemma3_text, "gemma3_text", rope_local_base_freq=3000.0, rope_scaling=YARN_FLAT)
    assert not refusal(qwen3_moe, "qwen3_moe", rope_scaling={"type": "dynamic", "factor": 2.0})
    assert not refusal(qwen3_moe, "qwen3_moe", rope_scaling={"rope_type": "default"})


def test_flat_names_stand_beside_what_transformers_nests_and_are_never_overwritten() -> None:
    text_config = {"model_type": "mistral", "rope_parameters": dict(YARN)}
    nested = {"model_type": "mistral3", "tie_word_embeddings": True, "text_config": text_config}
    text = in_mlx_lm_names(nested)["text_config"]
    assert (text["rope_theta"], text["rope_scaling"]["type"], text["tie_word_embeddings"]) == (5000.0, "yarn", True)
    flat = {"model_type": "llama", "rope_theta": 1.0, "rope_scaling": LINEAR, "rope_parameters": dict(YARN)}
    assert in_mlx_lm_names(flat) == flat | {
        "rotary_emb_base": 5000.0,
        "original_max_position_embeddings": 64,
    }


@pytest.mark.parametrize("rope", [None, [], "yarn", {"full_attention": 3}, {"rope_type": None}])
def test_rotary_settings_of_no_known_form_are_left_to_mlx_lm(rope: Any) -> None:
    config = {"model_type": "llama", "rope_parameters": rope}
    assert json.loads(json.dumps(in_mlx_lm_names(config)))["rope_parameters"] == rope
