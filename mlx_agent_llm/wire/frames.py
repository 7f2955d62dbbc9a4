"""Deltas and outputs as JSON, as they stand: what a client adds up is what the engine said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from pydantic import ConfigDict, TypeAdapter

from mlx_agent_llm.chat import ChatDelta
from mlx_agent_llm.request import Delta, RequestOutput, TokenLogprob


class ChatFrame(NamedTuple):
    """A chat's delta; token_bytes: what the tokens of its log-probabilities add to the text."""

    delta: ChatDelta
    token_bytes: Mapping[int, bytes] = {}


class TextFrame(NamedTuple):
    """A completion's delta; token_bytes as in ChatFrame."""

    delta: Delta
    token_bytes: Mapping[int, bytes] = {}


class OutputsFrame(NamedTuple):
    """All outputs of a call; token_bytes as in ChatFrame."""

    outputs: tuple[RequestOutput, ...]
    token_bytes: Mapping[int, bytes] = {}


Frame = ChatFrame | TextFrame | OutputsFrame
F = TypeVar("F", ChatFrame, TextFrame, OutputsFrame)

# Delta's error is always None here: one that failed is raised. A token that was not computed has NaN for its logarithm.
_CONFIG = ConfigDict(
    arbitrary_types_allowed=True, ser_json_inf_nan="strings", ser_json_bytes="base64", val_json_bytes="base64"
)
_ADAPTERS: Mapping[type, TypeAdapter[Any]] = {
    kind: TypeAdapter(kind, config=_CONFIG) for kind in (ChatFrame, TextFrame, OutputsFrame)
}


def write_frame(frame: Frame) -> bytes:
    """A frame as JSON on one line."""
    return _ADAPTERS[type(frame)].dump_json(frame, exclude_defaults=True)


def read_frame(kind: type[F], text: str) -> F:
    """The frame that write_frame wrote."""
    frame: F = _ADAPTERS[kind].validate_json(text)
    return frame


def bytes_of_tokens(logprobs: Sequence[TokenLogprob] | None, token_bytes: Sequence[bytes]) -> dict[int, bytes]:
    """The bytes of every token that log-probabilities name."""
    named = {other for one in logprobs or () for other in (one.token_id, *(token_id for token_id, _ in one.top))}
    return {token_id: token_bytes[token_id] for token_id in sorted(named)}
