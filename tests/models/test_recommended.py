import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlx_agent_llm import Engine, EngineConfig, SamplingDefaults, SamplingParams
from mlx_agent_llm.errors import ModelLoadError
from mlx_agent_llm.models import load_model
from mlx_agent_llm.models.directory import read_sampling_defaults
from mlx_agent_llm.models.parts import from_parts
from mlx_agent_llm.models.recommended import from_generation_config, from_gguf_metadata
from mlx_agent_llm.testing import ByteTokenizer, tiny_model
from tests.support import gguf_files as files

CONFIG = EngineConfig(kv_cache_tokens=1024, max_num_seqs=2)
PATH = Path("generation_config.json")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, SamplingDefaults()),
        (
            {
                "temperature": 0.6,
                "top_p": 0.95,
                "top_k": 20,
                "min_p": 0.1,
                "repetition_penalty": 1.1,
                "eos_token_id": 1,
            },
            SamplingDefaults(0.6, 0.95, 20, 0.1, 1.1),
        ),
        ({"temperature": None, "top_k": 5}, SamplingDefaults(top_k=5)),
        ({"do_sample": False, "temperature": 0.6, "repetition_penalty": 1.2}, SamplingDefaults(repetition_penalty=1.2)),
        ({"do_sample": True, "top_p": 0.9}, SamplingDefaults(temperature=1.0, top_p=0.9)),
        ({"do_sample": True, "temperature": 0.3}, SamplingDefaults(temperature=0.3)),
    ],
)
def test_generation_config_recommends(values: Mapping[str, Any], expected: SamplingDefaults) -> None:
    assert from_generation_config(PATH, values) == expected


def test_the_metadata_of_a_gguf_file_recommends() -> None:
    metadata = {"general.sampling.temp": 0.7, "general.sampling.top_k": 40, "general.sampling.penalty_repeat": 1.05}
    assert from_gguf_metadata(PATH, metadata) == SamplingDefaults(temperature=0.7, top_k=40, repetition_penalty=1.05)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -1}, "generation_config.json.*temperature=-1 must be between 0"),
        ({"top_p": "high"}, "top_p='high' must be a number"),
        ({"top_k": 2.5}, "top_k=2.5 must be an integer"),
    ],
)
def test_a_recommendation_out_of_bounds_is_named(values: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        from_generation_config(PATH, values)


def test_a_loaded_gguf_brings_its_recommendations(tmp_path: Path) -> None:
    spec = files.llama_spec(changes={"general.sampling.temp": 0.5, "general.sampling.top_k": 3})
    path = files.write(tmp_path / "model.gguf", spec)
    assert load_model(str(path), device="cpu").sampling_defaults == SamplingDefaults(temperature=0.5, top_k=3)
    with Engine.load(str(path), CONFIG) as engine:
        assert engine.sampling_defaults == SamplingDefaults(temperature=0.5, top_k=3)


def test_a_request_that_says_nothing_takes_them_and_one_that_says_something_keeps_it() -> None:
    loaded = replace(from_parts(tiny_model(), ByteTokenizer()), sampling_defaults=SamplingDefaults(0.8, top_k=7))
    with Engine(loaded, CONFIG) as engine:
        silent, explicit = (
            engine._admission.single("x", params).params for params in (None, SamplingParams(temperature=0, top_k=0))
        )
    assert (silent.temperature, silent.top_p, silent.top_k) == (0.8, 1.0, 7)
    assert (explicit.temperature, explicit.top_p, explicit.top_k) == (0, 1.0, 0)


def test_recommended_sampling_gives_the_tokens_that_the_same_parameters_give_when_they_are_asked_for() -> None:
    recommended = SamplingDefaults(temperature=1.5, top_k=50, min_p=0.01, repetition_penalty=1.2)
    loaded = from_parts(tiny_model(), ByteTokenizer())
    short = SamplingParams(max_tokens=12, seed=3, ignore_eos=True)
    with Engine(replace(loaded, sampling_defaults=recommended), CONFIG) as engine:
        [by_default] = engine.generate(["Hello"], short)
        [greedy] = engine.generate(["Hello"], replace(short, temperature=0, repetition_penalty=1))
    with Engine(loaded, CONFIG) as engine:
        [asked] = engine.generate(["Hello"], recommended.fill(short))
        [plain] = engine.generate(["Hello"], short)
    assert by_default.token_ids == asked.token_ids != plain.token_ids == greedy.token_ids


def test_a_directory_brings_the_recommendations_of_its_generation_config(tmp_path: Path) -> None:
    assert read_sampling_defaults(tmp_path) == SamplingDefaults()
    (tmp_path / "generation_config.json").write_text(json.dumps({"temperature": 0.25}))
    assert read_sampling_defaults(tmp_path) == SamplingDefaults(temperature=0.25)
