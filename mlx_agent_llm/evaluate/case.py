"""Case: one question, and how its reply is judged. Knows neither an engine nor where cases come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mlx_agent_llm.chat import Tool


class Call(NamedTuple):
    """A call of a tool, as it was read."""

    name: str
    arguments: Mapping[str, Any]


class Reply(NamedTuple):
    """What a model said. calls: those that are valid for their tools; num_broken: others. value: None without JSON."""

    calls: Sequence[Call] = ()
    num_broken: int = 0
    value: Any = None


class Verdict(NamedTuple):
    """is_valid: all of the reply fits its schemas; num_right of num_asked: what is right in it, none if it is not."""

    is_valid: bool
    num_right: int
    num_asked: int


@dataclass(frozen=True)
class Case:
    """One question with its tools, or with the schema of its answer."""

    category: str
    name: str
    messages: Sequence[Mapping[str, Any]]
    judge: Callable[[Reply], Verdict]
    tools: Sequence[Tool] = ()
    schema: Mapping[str, Any] | None = None
