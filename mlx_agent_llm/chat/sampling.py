"""Sampling parameters as frameworks set them: by name, one at a time, None for the default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from mlx_agent_llm.errors import RequestError
from mlx_agent_llm.request import MAX_LOGPROBS, SamplingParams

SAMPLING_OPTIONS = frozenset(field.name for field in fields(SamplingParams)) - {"n", "logprobs"}
"""The fields of SamplingParams that mean the same in every framework; n and logprobs are for each to translate."""


def openai_sampling_params(values: Mapping[str, Any]) -> SamplingParams:
    """Like sampling_params, with OpenAI's logprobs (whether) and top_logprobs (how many beside each token's own)."""
    given = dict(values)
    logprobs = openai_logprobs(given.pop("logprobs", None), given.pop("top_logprobs", None))
    return sampling_params({**given, "logprobs": logprobs})


def openai_logprobs(wanted: Any, num_top: Any) -> int | None:
    """SamplingParams' logprobs by OpenAI's two parameters."""
    if wanted is not None and not isinstance(wanted, bool):
        raise RequestError(f"logprobs={wanted!r} must be True or False; top_logprobs says how many there are")
    if num_top is not None and not wanted:
        raise RequestError(f"top_logprobs={num_top!r} needs logprobs=True")
    if num_top is not None and (isinstance(num_top, bool) or num_top not in range(MAX_LOGPROBS + 1)):
        raise RequestError(f"top_logprobs={num_top!r} must be an integer between 0 and {MAX_LOGPROBS}")
    return (num_top or 0) if wanted else None


def sampling_params(values: Mapping[str, Any]) -> SamplingParams:
    """The parameters; those that are None are left to the model's recommendations and SamplingParams' defaults."""
    return SamplingParams(**{name: value for name, value in values.items() if value is not None})
