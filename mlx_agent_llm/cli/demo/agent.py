"""One agent of the demo: it calls a tool, gets the result and answers, through LangChain's chat model."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage, ToolCall, ToolMessage

from langchain_mlx_agent import ChatMLXAgent
from mlx_agent_llm.cli.demo.script import shared_messages
from mlx_agent_llm.cli.demo.tools import TOOLS

MAX_CALLS = 2
MAX_TOKENS = 96


@dataclass
class Agent:
    """A task, and what became of it so far; the panel shows it while it runs."""

    task: str
    seed: int
    transcript: str = ""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    answer: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    new_tokens: int = 0
    seconds_to_first_token: float | None = None
    seconds: float = 0.0

    async def run(self, chat: ChatMLXAgent) -> None:
        """First a call, which is required; then, with its result, an answer or another call; at last an answer."""
        started = time.perf_counter()
        messages: list[BaseMessage] = [*shared_messages(), HumanMessage(self.task)]
        choices = ["any", *["auto"] * (MAX_CALLS - 1), "none"]
        for turn, choice in enumerate(choices):
            reply = await self._reply(chat, messages, choice, self.seed + turn, started)
            messages.append(reply)
            if not reply.tool_calls:
                cut_off = [f"cut off: {call['args']}" for call in reply.invalid_tool_calls]
                self.answer = " ".join([reply.text.strip(), *cut_off]).strip()
                break
            messages += [self._call(call) for call in reply.tool_calls]
        self.seconds = time.perf_counter() - started

    @property
    def tokens_per_second(self) -> float:
        """New tokens over the whole time, waiting included."""
        return self.new_tokens / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "task": self.task,
            "tool_calls": self.tool_calls,
            "answer": self.answer,
            "usage": {
                "prompt_tokens": self.prompt_tokens,
                "cached_tokens": self.cached_tokens,
                "new_tokens": self.new_tokens,
            },
            "seconds_to_first_token": self.seconds_to_first_token,
            "seconds": self.seconds,
            "tokens_per_second": self.tokens_per_second,
        }

    async def _reply(
        self, chat: ChatMLXAgent, messages: list[BaseMessage], choice: str, seed: int, started: float
    ) -> AIMessageChunk:
        bound = chat.bind_tools(list(TOOLS.values()), tool_choice=choice, parallel_tool_calls=False)
        reply: AIMessageChunk | None = None
        async for chunk in bound.astream(messages, seed=seed):
            assert isinstance(chunk, AIMessageChunk)
            if self.seconds_to_first_token is None:
                self.seconds_to_first_token = time.perf_counter() - started
            self.transcript += chunk.text + "".join(_shown(part) for part in chunk.tool_call_chunks)
            reply = chunk if reply is None else reply + chunk
        assert reply is not None and reply.usage_metadata is not None
        usage = reply.usage_metadata
        self.prompt_tokens += usage["input_tokens"]
        self.cached_tokens += usage["input_token_details"]["cache_read"]
        self.new_tokens += usage["output_tokens"]
        return reply

    def _call(self, call: ToolCall) -> ToolMessage:
        result = TOOLS[call["name"]].invoke(call["args"])
        self.tool_calls.append({"name": call["name"], "arguments": call["args"], "result": result})
        self.transcript += f"\n  = {result}\n"
        return ToolMessage(result, tool_call_id=call["id"])


def _shown(part: Any) -> str:
    return f"{part['name']} " if part["name"] else part["args"] or ""
