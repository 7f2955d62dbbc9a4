"""What became of a model type: equal to mlx-lm in every scenario, refused with a reason, or wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import mlx.nn as nn
from mlx_lm.models.cache import make_prompt_cache

from mlx_agent_llm.errors import UnsupportedModelError
from tests.support.model_types.parity import compare, make_core, mlx_device_tolerance
from tests.support.model_types.reference import Reference
from tests.support.model_types.scenarios import Scenario
from tests.support.model_types.tiny import tiny

Kind = Literal["equal", "refused", "wrong", "not built"]


@dataclass
class Verdict:
    """One row of the table. reasons: why it is refused, what is wrong or why mlx-lm cannot build or run it here."""

    model_type: str
    kind: Kind
    layers: str = ""
    reasons: list[str] = field(default_factory=list)
    num_tokens: int = 0
    num_ties: int = 0
    largest_error: float = 0.0
    seconds: float = 0.0


def judge(
    model_type: str,
    scenarios: Sequence[Scenario],
    *,
    head_dim: int = 8,
    compile: bool = False,
    prepare: Callable[[nn.Module], None] = lambda model: None,
) -> Verdict:
    """Run every scenario on a type's tiny model. prepare: what is done to its weights first, such as quantizing them."""
    begin = time.perf_counter()
    try:
        model, own = tiny(model_type, head_dim), tiny(model_type, head_dim)
        for each in (model, own):
            prepare(each)
        reference = Reference(own)
        reference.continuation([1, 2, 3], 2)
    except Exception as error:  # any code of any model class of mlx-lm runs in there
        return Verdict(model_type, "not built", reasons=[f"{type(error).__name__}: {error}"])
    verdict = Verdict(model_type, "equal", kinds_of_layers(own))
    for scenario in scenarios:
        _judge_one(model, reference, scenario, compile, verdict)
        if verdict.kind == "refused":
            break
    verdict.seconds = time.perf_counter() - begin
    return verdict


def _judge_one(model: nn.Module, reference: Reference, scenario: Scenario, compile: bool, verdict: Verdict) -> None:
    try:
        core = make_core(model, scenario, compile=compile)
    except UnsupportedModelError as refusal:
        verdict.kind, verdict.reasons = "refused", [str(refusal)]
        return
    except Exception as error:  # what escapes a load is no refusal
        _add_reasons(verdict, scenario, [f"{type(error).__name__}: {error}"])
        return
    try:
        agreement = compare(core, reference, scenario, mlx_device_tolerance())
    except Exception as error:
        _add_reasons(verdict, scenario, [f"{type(error).__name__}: {error} ({error.__cause__!r})"])
        return
    finally:
        core.close()
    verdict.num_tokens += agreement.num_tokens
    verdict.num_ties += agreement.num_ties
    verdict.largest_error = max(verdict.largest_error, agreement.largest_error)
    _add_reasons(verdict, scenario, agreement.differences)


def _add_reasons(verdict: Verdict, scenario: Scenario, reasons: Sequence[str]) -> None:
    if reasons:
        verdict.kind = "wrong"
        verdict.reasons += [f"{scenario.name}: {reason}" for reason in reasons]


def kinds_of_layers(model: nn.Module) -> str:
    """What mlx-lm's own caches of a model are, each kind once, in order."""
    return ", ".join(dict.fromkeys(_kind(cache) for cache in make_prompt_cache(model)))


def _kind(cache: object) -> str:
    nested = getattr(cache, "caches", None)
    return type(cache).__name__ if nested is None else "+".join(_kind(inner) for inner in nested)
