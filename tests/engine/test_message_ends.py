"""Chats that begin with the same messages share them with recurrent layers, too."""

from collections.abc import Callable
from typing import Any

import pytest

from mlx_agent_llm import Engine, EngineConfig, SamplingParams
from mlx_agent_llm.models import from_parts
from mlx_agent_llm.testing import ByteTokenizer, tiny_model
from tests.support.model_types.configs import config_of

PARAMS = SamplingParams(max_tokens=2, temperature=0.0)
Ask = Callable[[Engine, list[dict[str, Any]]], int]


def as_chat(engine: Engine, messages: list[dict[str, Any]]) -> int:
    usage = engine.chat(messages, params=PARAMS).usage
    assert usage is not None
    return usage.cached_tokens


def as_prompt(engine: Engine, messages: list[dict[str, Any]]) -> int:
    [output] = engine.generate([messages], PARAMS)
    return output.usage.cached_tokens


@pytest.mark.parametrize("ask", [as_chat, as_prompt])
def test_a_second_chat_goes_on_from_the_end_of_the_last_message_that_both_have(ask: Ask) -> None:
    model = tiny_model(**config_of("falcon_h1") | {"vocab_size": ByteTokenizer.vocab_size})
    common = [{"role": "system", "content": "Be brief. " * 9}, {"role": "user", "content": "Where is it? " * 8}]
    others = [
        [{"role": "assistant", "content": text * 20}, {"role": "user", "content": "And then?"}]
        for text in ("Here.", "Over there.")
    ]
    with Engine(from_parts(model, ByteTokenizer()), EngineConfig(device="cpu", check_model=False)) as engine:
        assert ask(engine, common + others[0]) == 0
        prompt = ByteTokenizer().apply_chat_template(common, add_generation_prompt=False)
        end = len(ByteTokenizer().encode(prompt.removesuffix("<|im_end|>\n")))
        assert ask(engine, common + others[1]) == end // 16 * 16
