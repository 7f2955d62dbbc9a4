"""Prompts of real templates against Hugging Face's way of rendering them: the same, or different for a reason."""

from __future__ import annotations

from typing import Any

import pytest
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from mlx_agent_llm.chat import prepare_chat
from tests.support.chat_templates import template_names, template_source, tokenizer_of
from tests.support.tool_conversations import CONVERSATIONS, TOOLS, WITH_CALLS, WITH_TOOLS, as_openai

# The conversations whose prompts are not those of Hugging Face's way of rendering, and why.
AS_TEXT = (WITH_TOOLS, "the template shows no tools: they are text in the system turn")
CALLS_AS_TEXT = (WITH_CALLS, "the template drops or refuses calls: they are text, as the model writes them")
ONE_BY_ONE = (WITH_CALLS, "the template shows one call a turn, or refuses more: each call is a turn with its result")
WANTS_LIST = (set(CONVERSATIONS) - WITH_TOOLS, "the template needs a list of tools, if an empty one")
DIFFERENT: dict[str, tuple[set[str], str]] = {
    "CohereForAI-c4ai-command-r-plus-tool_use": (set(CONVERSATIONS), f"{WANTS_LIST[1]}, and refuses these tools"),
    "GigaChat3-10B-A1.8B": ONE_BY_ONE,
    "GigaChat3.1-10B-A1.8B": ONE_BY_ONE,
    "HuggingFaceTB-SmolLM3-3B": AS_TEXT,
    "Kimi-K2-Instruct": CALLS_AS_TEXT,
    "Kimi-K2-Thinking": CALLS_AS_TEXT,
    "LFM2-8B-A1B": CALLS_AS_TEXT,
    "LFM2.5-Instruct": CALLS_AS_TEXT,
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": WANTS_LIST,
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": WANTS_LIST,
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": AS_TEXT,
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": AS_TEXT,
    "deepseek-ai-DeepSeek-V3.1": AS_TEXT,
    "fireworks-ai-llama-3-firefunction-v2": (set(CONVERSATIONS), "the template takes the tools in a variable"),
    "google-gemma-2-2b-it": ({*WITH_TOOLS, "system"}, f"{AS_TEXT[1]}, and that is in the first turn of the user"),
    "ibm-granite-granite-3.3-2B-Instruct": CALLS_AS_TEXT,
    "llama-cpp-deepseek-r1": AS_TEXT,
    "llama-cpp-rwkv-world": AS_TEXT,
    "meetkai-functionary-medium-v3.2": (WITH_TOOLS, "its calls are not written: they and the tools are text"),
    "meta-llama-Llama-3.1-8B-Instruct": ONE_BY_ONE,
    "meta-llama-Llama-3.2-3B-Instruct": ONE_BY_ONE,
    "meta-llama-Llama-3.3-70B-Instruct": ONE_BY_ONE,
    "microsoft-Phi-3.5-mini-instruct": AS_TEXT,
    "moonshotai-Kimi-K2": (WITH_CALLS, "ids of calls are those that the model was trained on"),
    "openai-gpt-oss-120b": ONE_BY_ONE,
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in DIFFERENT else pytest.mark.long) for name in template_names()]
    or ["not fetched"],
)
def test_prompts_are_what_hugging_face_renders_or_the_difference_has_a_reason(name: str) -> None:
    cases, _ = DIFFERENT.get(name, (set(), ""))
    tokenizer = tokenizer_of(name)
    differing = set()
    for case, turns in CONVERSATIONS.items():
        tools = TOOLS if case in WITH_TOOLS else None
        shown = prepare_chat(tokenizer, turns, tools=tools).prompt_token_ids
        if shown != hugging_face_prompt(name, turns, [as_openai(tool) for tool in tools or ()] or None):
            differing.add(case)
    assert differing == cases


def hugging_face_prompt(name: str, turns: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> list[int] | None:
    """The prompt as transformers renders it; None where the template fails there."""
    tokenizer = tokenizer_of(name)
    inner = tokenizer._tokenizer
    assert isinstance(inner, PreTrainedTokenizerFast)
    try:
        ((text,), _) = render_jinja_template(
            [turns],
            tools=tools,
            chat_template=template_source(name),
            add_generation_prompt=True,
            **inner.special_tokens_map,
        )
    except (TemplateError, TypeError):
        return None
    return tokenizer.encode(text, add_special_tokens=False)
