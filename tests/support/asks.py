"""Random requests of all kinds, asked at the same time, and the comparison of what they say with what they should."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlx_agent_llm import Engine, Handle, JSONSchema, RequestError, RequestOutput, SamplingParams
from tests.support.traffic import FIELDS, FREE_FIELDS, NON_CHAT_FIELDS, SCHEMAS, SYSTEM, is_of_a_fork

Key = tuple[tuple[int, ...], int]  # prompt and seed


@dataclass(frozen=True)
class Ask:
    """One request; it is cancelled after some deltas, or forked after some into one with the same seed."""

    prompt: list[int]
    params: SamplingParams
    way: str
    patience: int

    @property
    def key(self) -> Key:
        seed = self.params.seed
        assert seed is not None
        return tuple(self.prompt), seed


def make_ask(rng: random.Random, seed: int) -> Ask:
    text = SYSTEM[: rng.choice([0, 20, 40])] + "".join(rng.choices("abc ", k=rng.randint(1, 30)))
    is_free = rng.random() < 0.5
    drawn = FIELDS | NON_CHAT_FIELDS | (FREE_FIELDS if is_free else {})
    fields = {name: draw(rng) for name, draw in drawn.items() if name != "timeout" and rng.random() < 1 / 3}
    fields |= {"max_tokens": rng.randint(24, 60), "seed": seed}
    if not is_free:
        fields["constraint"] = JSONSchema(rng.choice(SCHEMAS))
    if rng.random() < 0.3:
        fields["draft_text"] = text
    way = rng.choices(["result", "cancel", "fork"], [8, 1, 1])[0]
    return Ask(list(text.encode()), SamplingParams(**fields), way, rng.randint(0, 6))


def run(engine: Engine, asks: Sequence[Ask]) -> list[list[RequestOutput]]:
    """What all of them get who ask at the same time; of a fork its parent's output, too."""
    handles: list[list[Handle]] = []
    for ask in asks:
        handle = engine.submit(ask.prompt, ask.params)
        handles.append([handle])
        if ask.way != "result":
            list(itertools.islice(handle, ask.patience))
        if ask.way == "cancel":
            handle.cancel()
        elif ask.way == "fork":
            handles[-1].append(handle.fork(ask.params))
    return [[output for one in group if (output := result(one)) is not None] for group in handles]


def result(handle: Handle) -> RequestOutput | None:
    """None of a fork whose parent had ended."""
    try:
        return handle.result(timeout=600)
    except RequestError as error:
        assert is_of_a_fork(error)
        return None


def compare(
    asks: Sequence[Ask],
    found: Sequence[Sequence[RequestOutput]],
    expected: Sequence[RequestOutput],
    tolerance: float = 1e-5,
) -> None:
    """Assert that they are the same, forks included, and of what was cancelled the beginning.

    tolerance: of log-probabilities.
    """
    for ask, outputs, truth in zip(asks, found, expected, strict=True):
        for output in outputs:
            if output.finish_reason == "cancelled":
                assert output.token_ids == truth.token_ids[: len(output.token_ids)], ask
                continue
            assert (output.token_ids, output.text) == (truth.token_ids, truth.text), ask
            assert (output.finish_reason, output.forced_close) == (truth.finish_reason, truth.forced_close), ask
            if output.logprobs is not None:
                assert truth.logprobs is not None
                np.testing.assert_allclose(
                    [one.logprob for one in output.logprobs], [one.logprob for one in truth.logprobs], atol=tolerance
                )
