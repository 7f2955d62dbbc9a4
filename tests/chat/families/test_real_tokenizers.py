"""Real tokenizers: whatever a model without sense writes, every choice of tools is obeyed."""

from __future__ import annotations

import asyncio
from collections import Counter
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
CHOICES = ("auto", "required", "none", "search")


@pytest.mark.parametrize("name", ["llama2"])
def test_every_choice_is_obeyed_with_a_real_tokenizer(name: str) -> None:
    check_every_choice(name, 5, temperature=1.0)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", REAL_TOKENIZERS)
def test_every_choice_is_obeyed_two_hundred_times_with_each_real_tokenizer(name: str) -> None:
    check_every_choice(name, 200, temperature=0.0)  # of random logits the highest is a draw, too, and a cheap one


def check_every_choice(name: str, num_runs: int, temperature: float) -> None:
    tokenizer = real_tokenizer(name)
    model = RandomLogitsModel(tokenizer.vocab_size, seed=5)
    config = EngineConfig(kv_cache_tokens=65_536, max_model_len=4096, max_num_seqs=32)
    with Engine.from_parts(model, tokenizer, config) as engine:
        for choice in CHOICES:
            whole, streamed = asyncio.run(answers(engine, choice, num_runs, temperature))
            counts = Counter(len(one.tool_calls) for one in whole)
            print(f"{name}, {choice}: {num_runs} runs, by their number of calls {dict(sorted(counts.items()))}")
            for one in whole:
                check(one, choice)
            assert list(map(written, whole[::10])) == list(map(written, streamed))


async def answers(
    engine: Engine, choice: str, num_runs: int, temperature: float
) -> tuple[list[ChatOutput], list[ChatOutput]]:
    """Whole replies to prompts of different lengths, and every tenth as it streams."""
    runs = [
        (ask(run), SamplingParams(max_tokens=60 - run % 9, temperature=temperature, seed=run))
        for run in range(num_runs)
    ]
    whole = [engine.achat(turns, tools=TOOLS, tool_choice=choice, params=params) for turns, params in runs]
    streamed = [stream(engine, choice, turns, params) for turns, params in runs[::10]]
    return list(await asyncio.gather(*whole)), list(await asyncio.gather(*streamed))


def ask(run: int) -> list[dict[str, Any]]:
    """Random logits depend on a token and its place: each run has places of its own."""
    return [{"role": "user", "content": " x" * (run + 1)}]


async def stream(engine: Engine, choice: str, turns: list[dict[str, Any]], params: SamplingParams) -> ChatOutput:
    return fold_chat(
        [delta async for delta in engine.astream_chat(turns, tools=TOOLS, tool_choice=choice, params=params)]
    )


def written(output: ChatOutput) -> list[Any]:
    calls = [(call.name, call.arguments_json) for call in output.tool_calls]
    return [output.text, output.reasoning, calls, output.finish_reason]


def check(output: ChatOutput, choice: str) -> None:
    """Assert that a reply is what the choice asks for."""
    assert_obeys(output, choice, TOOLS)
    if choice == "search":
        assert [call.name for call in output.tool_calls] == ["search"]
