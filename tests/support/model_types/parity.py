"""Whether the engine says of a tiny model what mlx-lm says of it, in one scenario after the other.

Two tokens that mlx-lm holds to be equally probable, up to rounding, may change places: a tie, which is counted; what
comes after it is another text, and is not compared. Of the other tokens the log-probabilities are compared, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from mlx_agent_llm import EngineConfig, SamplingParams
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.loop import EngineCore, Vocabulary
from mlx_agent_llm.request import ForcedTokens, Request, TokenLogprob
from tests.support.model_types.dimensions import CONTEXT, VOCAB_SIZE
from tests.support.model_types.reference import Reference
from tests.support.model_types.scenarios import Arrival, Scenario

MAX_STEPS = 3000


@dataclass
class Agreement:
    """What a scenario showed. differences: one sentence for each row that says something else."""

    differences: list[str]
    num_tokens: int = 0
    num_ties: int = 0
    largest_error: float = 0.0  # of a log-probability


class ForcedRun:
    """A grammar that allows everything, but for one run of tokens."""

    is_finished = False

    def __init__(self, forced: Mapping[int, int]) -> None:
        self._forced = forced
        self._num_accepted = 0

    def accept(self, token_id: int) -> bool:
        self._num_accepted += 1
        return True

    def fill_mask(self, mask: npt.NDArray[np.int32], row: int) -> None:
        mask[row] = -1

    def rollback(self, num_tokens: int) -> None:
        self._num_accepted -= num_tokens

    def jump_forward(self) -> bytes:
        is_at_run = self._num_accepted == min(self._forced)
        return bytes(self._forced.values()) if is_at_run else b""


def make_core(model: nn.Module, scenario: Scenario, *, compile: bool = False) -> EngineCore:
    """A core on a model, whose steps are the caller's. Token i is the byte i."""
    vocabulary = Vocabulary(
        [bytes([token_id]) for token_id in range(VOCAB_SIZE)],
        frozenset(),
        spell_forced_text=lambda token_ids, data: ForcedTokens(list(data), len(data)),
    )
    config = EngineConfig(**scenario.config, compile=compile)
    return EngineCore(model, probe_model(model), vocabulary, config, CONTEXT)


def compare(core: EngineCore, reference: Reference, scenario: Scenario, tolerance: float) -> Agreement:
    """Run a scenario. tolerance: of a log-probability, and of the distance of two that may change places."""
    agreement = Agreement([])
    happened = 0
    for arrivals in scenario.rounds:
        requests = _run(core, arrivals)
        for arrival, request in zip(arrivals, requests, strict=True):
            _compare_row(arrival, request, reference, tolerance, agreement)
        happened += sum(getattr(request, scenario.must) for request in requests) if scenario.must else 1
    core.check_integrity()
    if not happened:
        agreement.differences.append(f"{scenario.must} is 0: the scenario did not come about")
    return agreement


def _run(core: EngineCore, arrivals: Sequence[Arrival]) -> list[Request]:
    """The requests of a round, all of them finished."""
    requests = [_request(index, arrival) for index, arrival in enumerate(arrivals)]
    for step in range(MAX_STEPS):
        for request, arrival in zip(requests, arrivals, strict=True):
            if arrival.step == step:
                _start(core, request, arrival)
        if not core.has_work and step >= max(arrival.step for arrival in arrivals):
            return requests
        for _, delta in core.step():
            if delta.error is not None:
                raise delta.error
    raise AssertionError(f"the core does not come to an end within {MAX_STEPS} steps")


def _request(index: int, arrival: Arrival) -> Request:
    # A token that a grammar may force comes without its log-probability.
    params = SamplingParams(max_tokens=arrival.max_tokens, logprobs=None if arrival.forced else 0)
    matcher = ForcedRun(arrival.forced) if arrival.forced else None
    return Request(index, list(arrival.prompt), params, 0, lambda delta: None, matcher)


def _start(core: EngineCore, request: Request, arrival: Arrival) -> None:
    if arrival.forks is None:
        core.add(request)
        return
    for _, delta in core.fork(request, arrival.forks):
        if delta.error is not None:
            raise delta.error


def _compare_row(
    arrival: Arrival, request: Request, reference: Reference, tolerance: float, agreement: Agreement
) -> None:
    found = request.token_ids[request.num_prompt_tokens :]
    logprobs: Sequence[TokenLogprob | None] = request.logprobs or [None] * len(found)
    if len(found) != arrival.max_tokens:
        agreement.differences.append(f"{len(found)} tokens after {len(arrival.prompt)}, not {arrival.max_tokens}")
    expected = reference.continuation(arrival.prompt, arrival.max_tokens, arrival.forced)
    for index, (token_id, step, logprob) in enumerate(zip(found, expected, logprobs, strict=False)):
        where = f"token {index} after {len(arrival.prompt)}"
        gap = float(step.logprobs[step.token_id] - step.logprobs[token_id])
        if index in arrival.forced:
            gap = 0.0 if token_id == step.token_id else math.inf
        error = 0.0 if logprob is None else abs(logprob.logprob - float(step.logprobs[token_id]))
        agreement.largest_error = max(agreement.largest_error, error)
        agreement.num_tokens += 1
        if not (gap <= tolerance and error <= tolerance):
            agreement.differences.append(
                f"{where}: {token_id} and not {step.token_id}, which is more probable by {gap:.2g} in logarithms; "
                f"its own log-probability is off by {error:.2g}"
            )
            return
        if token_id != step.token_id:
            agreement.num_ties += 1
            return


def device_tolerance() -> float:
    """The error of a log-probability of the tiny models in float32: products on a GPU round to fewer bits."""
    return 2e-3 if mx.default_device().type == mx.cpu else 5e-2
