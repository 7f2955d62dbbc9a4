"""What became of a model type: equal to mlx-lm in every scenario, refused with a reason, or wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import mlx.nn as nn
from mlx_lm.models.cache import make_prompt_cache

from mlx_agent_llm.errors import UnsupportedModelError
from mlx_agent_llm.models.served_types import Verdict
from tests.support.model_types.parity import compare, device_tolerance, make_core
from tests.support.model_types.reference import Reference
from tests.support.model_types.scenarios import Scenario
from tests.support.model_types.tiny import tiny

# What MLX says where a model brings a kernel that is written for Metal alone.
_NEEDS_METAL = "No Metal back-end"


@dataclass
class Judgement:
    """One row of the table. reasons: why it is refused, what is wrong, or why it cannot be run here."""

    model_type: str
    verdict: Verdict
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
    compile: bool = False,
    prepare: Callable[[nn.Module], None] = lambda model: None,
) -> Judgement:
    """Run every scenario on a type's tiny model. prepare: what is done to the model first, such as quantizing it."""
    begin = time.perf_counter()
    try:
        model, own = tiny(model_type), tiny(model_type)
    except SystemExit as error:  # a module of mlx-lm ends the process where a package that it needs is missing
        return Judgement(model_type, "not run", reasons=[f"mlx-lm's module ends the process: {error}"])
    for each in (model, own):
        prepare(each)
    judgement = Judgement(model_type, "equal", kinds_of_layers(own))
    reference = Reference(own)
    for scenario in scenarios:
        _judge_one(model, reference, scenario, compile, judgement)
        if judgement.verdict in ("refused", "not run"):
            break
    judgement.seconds = time.perf_counter() - begin
    return judgement


def _judge_one(model: nn.Module, reference: Reference, scenario: Scenario, compile: bool, judgement: Judgement) -> None:
    try:
        core = make_core(model, scenario, compile=compile)
    except UnsupportedModelError as refusal:
        judgement.verdict = "not run" if _NEEDS_METAL in str(refusal) else "refused"
        judgement.reasons = [str(refusal).partition(": ")[2]]  # without the module's name
        return
    except Exception as error:  # what escapes a load is no refusal
        _add_reasons(judgement, scenario, [f"{type(error).__name__}: {error}"])
        return
    try:
        agreement = compare(core, reference, scenario, device_tolerance())
    except Exception as error:  # any code of any model class runs in there
        _add_reasons(judgement, scenario, [f"{type(error).__name__}: {error}"])
        return
    finally:
        core.close()
    judgement.num_tokens += agreement.num_tokens
    judgement.num_ties += agreement.num_ties
    judgement.largest_error = max(judgement.largest_error, agreement.largest_error)
    _add_reasons(judgement, scenario, agreement.differences)


def _add_reasons(judgement: Judgement, scenario: Scenario, reasons: Sequence[str]) -> None:
    if reasons:
        judgement.verdict = "wrong"
        judgement.reasons += [f"{scenario.name}: {reason}" for reason in reasons]


def kinds_of_layers(model: nn.Module) -> str:
    """What mlx-lm's own caches of a model are, each kind once, in order."""
    return ", ".join(dict.fromkeys(_kind(cache) for cache in make_prompt_cache(model)))


def _kind(cache: object) -> str:
    nested = getattr(cache, "caches", None)
    return type(cache).__name__ if nested is None else "+".join(_kind(inner) for inner in nested)
