"""The parameters of sampling that OpenAI's APIs share, with those that other servers and this one add to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from mlx_agent_llm.request import Choice, Constraint, Grammar, JSONSchema, Regex
from mlx_agent_llm.server.api_error import invalid
from mlx_agent_llm.server.body import Fields

_SAME = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "min_tokens",
    "seed",
    "stop",
    "stop_token_ids",
    "ignore_eos",
    "priority",
    "timeout",
    "cache_salt",
)


class StructuredOutputs(Fields):
    """A constraint in vLLM's form: exactly one of these."""

    json_schema: dict[str, Any] | None = Field(default=None, alias="json")
    json_object: bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None

    def constraint(self) -> Constraint:
        """The constraint; an APIError unless it is one."""
        given = [name for name in type(self).model_fields if getattr(self, name) not in (None, False)]
        if len(given) != 1:
            names = "json, json_object, regex, choice, grammar"
            raise invalid(f"structured_outputs must have exactly one of {names}", "structured_outputs")
        if self.regex is not None:
            return Regex(self.regex)
        if self.choice is not None:
            return Choice(self.choice)
        if self.grammar is not None:
            return Grammar(self.grammar)
        return JSONSchema({"type": "object"} if self.json_schema is None else self.json_schema)


class StreamOptions(Fields):
    """include_usage: a last chunk has the usage of the whole request."""

    include_usage: bool = False
    include_obfuscation: bool = False


class SamplingFields(Fields):
    """Those that mean what SamplingParams says of them, and how many outputs come in which form."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    min_tokens: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    priority: int | None = None
    timeout: float | None = None
    cache_salt: str | None = None
    structured_outputs: StructuredOutputs | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with a chunk of its usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self) -> dict[str, Any]:
        """The fields of SamplingParams that are given, without the constraint."""
        given = {name: getattr(self, name) for name in _SAME if getattr(self, name) is not None}
        return given if self.logit_bias is None else {**given, "logit_bias": _read_bias(self.logit_bias)}


def _read_bias(bias: Mapping[str, float]) -> dict[int, float]:
    for token_id in bias:
        if not token_id.isdecimal():
            raise invalid(f"logit_bias has the key {token_id!r}: must be a token id", "logit_bias")
    return {int(token_id): value for token_id, value in bias.items()}
