"""Sampling parameters as frameworks set them: by name, one at a time, None for the default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from mlx_agent_llm.request import SamplingParams

SAMPLING_OPTIONS = frozenset(field.name for field in fields(SamplingParams)) - {"n", "logprobs"}
"""The fields of SamplingParams that mean the same in every framework; n and logprobs are for each to translate."""


def sampling_params(values: Mapping[str, Any]) -> SamplingParams:
    """The parameters; those that are None are left to the model's recommendations and SamplingParams' defaults."""
    return SamplingParams(**{name: value for name, value in values.items() if value is not None})
