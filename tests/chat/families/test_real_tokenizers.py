"""Real tokenizers: whatever a model without sense writes, every choice of tools is obeyed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mlx_agent_llm import ChatOutput, Engine, EngineConfig, SamplingParams, Tool
from mlx_agent_llm.chat import fold_chat
from mlx_agent_llm.testing import RandomLogitsModel
from tests.support.real_tokenizers import REAL_TOKENIZERS, real_tokenizer
from tests.support.replies import assert_obeys

SEARCH = Tool(
    "search",
    "Searches.",
    {
        "type": "object",
        "properties": {"query": {"type": "string", "maxLength": 20}, "limit": {"type": "integer"}},
        "required": ["query", "limit"],
    },
)
NOW = Tool("now", "Tells the time.")
TOOLS = (SEARCH, NOW)
ASK = [{"role": "user", "content": "x"}]
CHOICES = ("auto", "required", "none", "search")


@pytest.mark.parametrize("name", ["llama2"])
def test_every_choice_is_obeyed_with_a_real_tokenizer(name: str) -> None:
    check_every_choice(name, 10)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", REAL_TOKENIZERS)
def test_every_choice_is_obeyed_two_hundred_times_with_each_real_tokenizer(name: str) -> None:
    check_every_choice(name, 200)


def check_every_choice(name: str, num_runs: int) -> None:
    tokenizer = real_tokenizer(name)
    model = RandomLogitsModel(tokenizer.vocab_size, seed=5)
    config = EngineConfig(kv_cache_tokens=65_536, max_model_len=4096, max_num_seqs=16)
    with Engine.from_parts(model, tokenizer, config) as engine:
        for choice in CHOICES:
            for whole, streamed in asyncio.run(answers(engine, choice, num_runs)):
                check(whole, choice)
                assert written(whole) == written(streamed)


async def answers(engine: Engine, choice: str, num_runs: int) -> list[tuple[ChatOutput, ChatOutput]]:
    """Whole replies, every tenth streamed a second time."""
    params = [SamplingParams(max_tokens=60 - seed % 9, temperature=1.0, seed=seed) for seed in range(num_runs)]
    whole = await asyncio.gather(*(engine.achat(ASK, tools=TOOLS, tool_choice=choice, params=one) for one in params))
    streamed = await asyncio.gather(*(stream(engine, choice, one) for one in params[::10]))
    return list(
        zip(whole, [streamed[index // 10] if index % 10 == 0 else one for index, one in enumerate(whole)], strict=True)
    )


async def stream(engine: Engine, choice: str, params: SamplingParams) -> ChatOutput:
    return fold_chat(
        [delta async for delta in engine.astream_chat(ASK, tools=TOOLS, tool_choice=choice, params=params)]
    )


def written(output: ChatOutput) -> list[Any]:
    calls = [(call.name, call.arguments_json) for call in output.tool_calls]
    return [output.text, output.reasoning, calls, output.finish_reason]


def check(output: ChatOutput, choice: str) -> None:
    """Assert that a reply is what the choice asks for."""
    assert_obeys(output, choice, TOOLS)
    if choice == "search":
        assert [call.name for call in output.tool_calls] == ["search"]
