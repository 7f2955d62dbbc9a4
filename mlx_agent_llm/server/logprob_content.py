"""Log-probabilities as OpenAI's clients read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlx_agent_llm.request import TokenLogprob

NOT_COMPUTED = -9999.0
"""Stands for the log-probability of a token that closed an answer and was not sampled: JSON has no NaN."""


class LogprobWriter:
    """Writes the tokens of one model; token_bytes: token id -> the bytes that it adds to the text."""

    def __init__(self, token_bytes: Sequence[bytes]) -> None:
        self._token_bytes = token_bytes

    def content(self, tokens: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
        """One entry a token, with the most probable ones at its place."""
        return [
            {**self._entry(one.token_id, one.logprob), "top_logprobs": [self._entry(*other) for other in one.top]}
            for one in tokens
        ]

    def text(self, token_id: int) -> str:
        """The text of a token; what is no text alone shows as replacement characters."""
        return self._token_bytes[token_id].decode(errors="replace")

    def _entry(self, token_id: int, logprob: float) -> dict[str, Any]:
        return {
            "token": self.text(token_id),
            "logprob": number(logprob),
            "bytes": list(self._token_bytes[token_id]),
        }


def number(logprob: float) -> float:
    """A log-probability that JSON can hold."""
    return logprob if math.isfinite(logprob) else NOT_COMPUTED
