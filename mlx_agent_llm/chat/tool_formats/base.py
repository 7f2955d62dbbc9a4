"""What a tool format is: how one family of models is told of tools, calls them and gets results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from mlx_agent_llm.chat.messages import Message
from mlx_agent_llm.chat.output import ChatDelta
from mlx_agent_llm.chat.tools import Tool, ToolPlan
from mlx_agent_llm.constrain.spec import Constraint, JSONSchema


class CallParser(Protocol):
    """Reads one reply as it streams: text and calls, whatever the sizes of the pieces."""

    def feed(self, text: str) -> list[ChatDelta]:
        """Return what a piece of the reply adds; markers, and what may become one, are held back."""

    def end(self, cut_off: bool) -> list[ChatDelta]:
        """Return what was held back, when no more text comes; `cut_off`: at the token budget."""


class ToolFormat(Protocol):
    """The wire form of one family; an object without state."""

    def instructions(self, tools: Sequence[Tool]) -> str:
        """Return what the system prompt says about tools; the same for the same tools."""

    def constraint(self, plan: ToolPlan, response: JSONSchema | None) -> Constraint | None:
        """Return what the reply must be; None when anything goes."""

    def template_message(self, message: Message) -> dict[str, Any]:
        """Return a turn of the history as the chat template takes it, calls and results in wire form."""

    def parser(self, plan: ToolPlan, response: JSONSchema | None) -> CallParser:
        """Return a parser for a reply under `constraint(plan, response)`."""
