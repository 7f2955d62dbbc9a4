"""One call of a chat model, checked and completed: what the engine is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import BaseMessage
from pydantic import BaseModel

from langchain_mlx_agent.messages import as_dicts
from langchain_mlx_agent.structured import is_model_class, response_format_of
from langchain_mlx_agent.tools import openai_tool
from mlx_agent_llm import RequestError, SamplingParams
from mlx_agent_llm.chat.foreign_names import REASONING_OPTIONS, with_own_names
from mlx_agent_llm.chat.sampling import SAMPLING_OPTIONS, openai_sampling_params

OWN_OPTIONS = SAMPLING_OPTIONS | {"n", "logprobs", "top_logprobs"}
"""SamplingParams' fields as a chat model or a call may set them: logprobs and top_logprobs are as OpenAI has them."""

_CHAT_OPTIONS = frozenset({"tools", "tool_choice", "parallel_tool_calls", "response_format"})
_OPTIONS = OWN_OPTIONS | REASONING_OPTIONS.keys() | _CHAT_OPTIONS | {"model", "strict", "stream_usage"}


@dataclass(frozen=True)
class ChatRequest:
    """The model that serves a call, the messages, the options of Engine.stream_chat, and how each sample is drawn.

    parsed_class: what the value of the answer is read as.
    """

    model: str
    messages: list[dict[str, Any]]
    options: dict[str, Any]
    params: SamplingParams
    stream_usage: bool = True
    parsed_class: type[BaseModel] | None = None

    @property
    def samples(self) -> list[dict[str, Any]]:
        """The options of each of n answers; as in Engine.generate, the i-th has seed + i."""
        seed, n = self.params.seed, self.params.n
        seeds = [None if seed is None else seed + index for index in range(n)]
        return [{**self.options, "params": replace(self.params, n=1, seed=seed)} for seed in seeds]

    @property
    def only_sample(self) -> dict[str, Any]:
        """The options of the one answer that is streamed."""
        if self.params.n != 1:
            raise RequestError(f"n={self.params.n} must be 1 for a stream: invoke and generate return n answers")
        return self.samples[0]


def read_request(
    messages: Sequence[BaseMessage], model: str, own: Mapping[str, Any], options: Mapping[str, Any]
) -> ChatRequest:
    """Complete a call's options with a chat model's name and its own; None leaves an option to those.

    An unknown option is a RequestError that names it. "stream" is LangChain's own.
    """
    called = {name: value for name, value in options.items() if value is not None and name != "stream"}
    called = with_own_names(called)
    if unknown := called.keys() - _OPTIONS:
        raise RequestError(f"unknown option {sorted(unknown)[0]!r}; known: {', '.join(sorted(_OPTIONS))}")
    given = {**{name: value for name, value in own.items() if value is not None}, **called}
    chat = {name: given[name] for name in _CHAT_OPTIONS & given.keys()}
    if "tools" in chat:
        chat["tools"] = [openai_tool(tool, given.get("strict")) for tool in chat["tools"]]
    wanted = chat.get("response_format")
    if wanted is not None:
        chat["response_format"] = response_format_of(chat["response_format"], given.get("strict"))
    chat |= {REASONING_OPTIONS[name]: given[name] for name in REASONING_OPTIONS.keys() & given.keys()}
    sampling = openai_sampling_params({name: given[name] for name in OWN_OPTIONS & given.keys()})
    return ChatRequest(
        model=given.get("model", model),
        messages=as_dicts(messages),
        options=chat,
        params=sampling,
        stream_usage=given.get("stream_usage", True),
        parsed_class=wanted if is_model_class(wanted) else None,
    )
