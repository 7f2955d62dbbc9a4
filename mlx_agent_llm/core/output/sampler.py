"""Logits, bitmask and per-row parameters to tokens: a function of arrays of all rows at once, no row by row Python.

A row's random numbers come from its own (seed, position) alone, so its tokens do not depend on its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_agent_kernels import apply_token_bitmask
from mlx_agent_llm.core.output.penalties import (
    LogitChanges,
    TokenPenalties,
    change_logits,
    has_changes,
    output_changes,
    prompt_changes,
)
from mlx_agent_llm.request import Request


class Forbidden(NamedTuple):
    """M logits that are set to -inf; both arrays have shape (M,)."""

    rows: npt.NDArray[np.int32]
    token_ids: npt.NDArray[np.int32]


class SamplingRows(NamedTuple):
    """The parameters of S rows, as arrays of shape (S,), and what only some of the rows ask for."""

    temperature: npt.NDArray[np.float32]
    top_k: npt.NDArray[np.int32]
    top_p: npt.NDArray[np.float32]
    min_p: npt.NDArray[np.float32]
    seed: npt.NDArray[np.uint32]
    position: npt.NDArray[np.uint32]  # of the token that is sampled
    prompt_changes: LogitChanges | None = None  # penalties on the prompts' tokens
    output_changes: LogitChanges | None = None  # penalties on the outputs' tokens, and biases
    forbidden: Forbidden | None = None  # end tokens before min_tokens
    logprob_rows: npt.NDArray[np.int32] | None = None  # (L,) the rows whose log-probabilities are wanted
    with_top_logprobs: bool = False  # any of them with alternatives


class Sampler:
    """Makes the SamplingRows of a step; what the same requests have in common with the last step is kept."""

    def __init__(self, end_token_ids: Callable[[Request], Collection[int]], vocab_size: int) -> None:
        self._end_token_ids = end_token_ids
        self._vocab_size = vocab_size
        self._penalties: dict[int, TokenPenalties] = {}
        self._requests: tuple[Request, ...] = ()
        self._fixed = _fixed_rows(())
        self._penalized: list[tuple[int, Request]] = []
        self._delayed: list[tuple[int, Request]] = []  # their end has to wait for min_tokens

    def rows(self, requests: tuple[Request, ...], places: Sequence[int]) -> SamplingRows:
        """The rows' parameters; called when all earlier tokens were read, and before the coming ones are counted.

        places: of each row, how many tokens of its request's draft it takes to be right.
        """
        if requests != self._requests:
            rows = list(enumerate(requests))
            self._penalized = [row for row in rows if has_changes(row[1])]
            self._delayed = [row for row in rows if row[1].params.min_tokens]
            self._requests, self._fixed = requests, _fixed_rows(requests)
            if self._penalized:
                self._fixed = self._fixed._replace(prompt_changes=prompt_changes(self._open()))
        return self._fixed._replace(
            position=np.array(
                [len(r.token_ids) + place for r, place in zip(requests, places, strict=True)], dtype=np.uint32
            ),
            output_changes=self._output_changes(places) if self._penalized else None,
            forbidden=self._forbidden(places) if self._delayed else None,
        )

    def forget(self, request: Request) -> None:
        """Drop what is kept of a request that ended."""
        self._penalties.pop(request.request_id, None)
        self._requests, self._penalized, self._delayed = (), [], []

    def _open(self) -> list[tuple[int, TokenPenalties]]:
        """The rows' penalties; an ended request, whose token nobody reads, has none."""
        for _, request in self._penalized:
            if request.request_id not in self._penalties and not request.is_finished:
                self._penalties[request.request_id] = TokenPenalties(request)
        return [(row, self._penalties[r.request_id]) for row, r in self._penalized if not r.is_finished]

    def _output_changes(self, places: Sequence[int]) -> LogitChanges | None:
        penalties = self._open()
        for _, one in penalties:
            one.follow()
        return output_changes([(row, one.ahead(places[row])) for row, one in penalties])

    def _forbidden(self, places: Sequence[int]) -> Forbidden | None:
        pairs = [
            (row, token_id)
            for row, request in self._delayed
            if request.num_output_tokens + places[row] < request.params.min_tokens
            for token_id in self._end_token_ids(request)
            if token_id < self._vocab_size  # a tokenizer may know end tokens that the model cannot say
        ]
        return Forbidden(*np.array(pairs, dtype=np.int32).T) if pairs else None


def _fixed_rows(requests: Sequence[Request]) -> SamplingRows:
    """What does not change from step to step."""
    params = [request.params for request in requests]
    logprobs = [(row, p.logprobs) for row, p in enumerate(params) if p.logprobs is not None]
    return SamplingRows(
        temperature=np.array([p.temperature for p in params], dtype=np.float32),
        top_k=np.array([p.top_k for p in params], dtype=np.int32),
        top_p=np.array([p.top_p for p in params], dtype=np.float32),
        min_p=np.array([p.min_p for p in params], dtype=np.float32),
        seed=np.array([request.seed for request in requests], dtype=np.uint32),
        position=np.zeros(len(params), dtype=np.uint32),
        logprob_rows=np.array([row for row, _ in logprobs], dtype=np.int32) if logprobs else None,
        with_top_logprobs=any(count for _, count in logprobs),
    )


def sample(logits: mx.array, bitmask: npt.NDArray[np.int32] | None, rows: SamplingRows) -> mx.array:
    """One token a row: penalties and biases, what is forbidden, then the most probable token or a draw.

    logits: (S, V), left as they are; bitmask: (S, ceil(V / 32)) or None when every token is allowed everywhere.
    Returns (S,) int32.
    """
    logits = logits.astype(mx.float32)  # an array of its own, also of the same type: what is assigned stays here
    for changes in (rows.prompt_changes, rows.output_changes):
        if changes is not None:
            logits = change_logits(logits, changes)
    if bitmask is not None:
        logits = apply_token_bitmask(logits, mx.array(bitmask))
    if rows.forbidden is not None:
        logits[mx.array(rows.forbidden.rows), mx.array(rows.forbidden.token_ids)] = -math.inf
    greedy = mx.argmax(logits, axis=-1)
    if not rows.temperature.any():
        return greedy.astype(mx.int32)
    is_random = rows.temperature > 0
    logits = logits - mx.max(
        logits, axis=-1, keepdims=True
    )  # or a temperature near zero makes several of them infinite
    logits = logits / mx.array(np.where(is_random, rows.temperature, np.float32(1)))[:, None]
    tokens = _draw(_keep_likely(logits, rows), rows)
    return mx.where(mx.array(is_random), tokens, greedy).astype(mx.int32)


def _keep_likely(logits: mx.array, rows: SamplingRows) -> mx.array:
    """top_k, then top_p of what is left, then min_p; each row by its own parameters, the rest set to -inf."""
    if (rows.top_k > 0).any() or (rows.top_p < 1).any():
        logits = mx.where(logits >= _threshold(logits, rows)[:, None], logits, -math.inf)
    if (rows.min_p > 0).any():
        bound = mx.max(logits, axis=-1, keepdims=True) + mx.log(mx.array(rows.min_p))[:, None]
        logits = mx.where(logits >= bound, logits, -math.inf)
    return logits


def _threshold(logits: mx.array, rows: SamplingRows) -> mx.array:
    """(S,) the smallest logit that top_k and top_p keep; equal logits stay together."""
    ordered = -mx.sort(-logits, axis=-1)
    rank = mx.arange(logits.shape[-1])[None]
    top_k = mx.array(np.where(rows.top_k > 0, rows.top_k, logits.shape[-1]))[:, None]
    ordered = mx.where(rank < top_k, ordered, -math.inf)
    probabilities = mx.softmax(ordered, axis=-1)
    before = mx.cumsum(probabilities, axis=-1) - probabilities  # the mass of all more likely tokens
    top_p = np.where(rows.top_p < 1, rows.top_p, np.float32(math.inf))  # a sum of float32 passes 1 before its end
    is_kept = (before < mx.array(top_p)[:, None]) & (ordered > -math.inf)
    is_kept = is_kept | (rank == 0)
    return mx.min(mx.where(is_kept, ordered, math.inf), axis=-1)


def _draw(logits: mx.array, rows: SamplingRows) -> mx.array:
    """One draw a row from softmax(logits) by the Gumbel-max trick, which can never take a token at -inf."""
    keys = mx.array(np.stack([rows.seed, rows.position], axis=1))
    noise = mx.vmap(lambda key: mx.random.gumbel((logits.shape[-1],), key=key))(keys)
    return mx.argmax(logits + noise, axis=-1)
