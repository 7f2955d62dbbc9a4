"""Whatever a source of drafts says, requests of all kinds say token for token what they say without drafts."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_agent_llm import Engine, EngineConfig
from mlx_agent_llm.models import from_parts
from mlx_agent_llm.request import Request
from mlx_agent_llm.testing import ByteTokenizer
from tests.support.asks import compare, make_ask, run
from tests.support.drafters import tell
from tests.support.engines import assert_is_clean
from tests.support.exact_model import EOS_TOKEN_ID, ExactModel
from tests.support.search import examples

VOCAB_SIZE = ByteTokenizer.vocab_size
LOADED = from_parts(ExactModel(), ByteTokenizer())
NUM_ASKS = 5
IN_VOCABULARY = st.integers(0, VOCAB_SIZE - 1)
ANYTHING = IN_VOCABULARY | st.sampled_from([-1, -(2**40), VOCAB_SIZE, 2**31, 2**70, EOS_TOKEN_ID])

Truth = Sequence[int]  # the tokens that the request will say
Lie = Callable[[Truth, int], list[int]]  # what a source says instead when it is asked for so many


def mixed(start: int, said: Sequence[int]) -> Lie:
    """So many right tokens, and then others."""
    return lambda truth, count: [*truth[: min(start, count)], *said]


LIES: st.SearchStrategy[Lie] = st.one_of(
    st.builds(mixed, st.integers(0, 8), st.lists(IN_VOCABULARY, max_size=8)),
    st.builds(mixed, st.integers(0, 8), st.lists(ANYTHING, max_size=8)),
    st.builds(lambda token_id: lambda truth, count: [token_id] * count, IN_VOCABULARY),  # duplicates
    st.just(lambda truth, count: [*truth, *truth] * 3),  # too long, and right as far as there is anything to say
    st.just(lambda truth, count: [truth[0]] * (count + 40) if truth else []),
    st.just(lambda truth, count: list(truth[1 : count + 1])),  # one too far
    st.just(lambda truth, count: []),
)


def check(lies: Sequence[Lie], seed: int, setting: int, config: dict[str, Any]) -> None:
    """Ask an engine without drafts and one whose source tells these lies in turn."""
    settings = {"kv_cache_tokens": 224, "block_size": 4, "max_num_seqs": 4, "max_tokens_per_step": 32} | config
    asks = [make_ask(random.Random(f"{seed} {index}"), index) for index in range(NUM_ASKS)]
    with Engine(LOADED, EngineConfig(check_model=False, **settings)) as plain:
        expected = [outputs[0] for outputs in run(plain, [replace(ask, way="result") for ask in asks])]
    truth = {ask.key: output.token_ids for ask, output in zip(asks, expected, strict=True)}
    told = cycle(lies)

    def say(request: Request, count: int) -> list[int]:
        key = tuple(request.prompt_token_ids), request.seed
        return next(told)(truth[key][request.num_output_tokens :], count)

    with Engine(LOADED, EngineConfig(check_model=False, speculation=setting, **settings)) as engine:
        tell(engine._worker.core, say)
        for _ in range(2):  # and then from what the first round left in the prefix cache
            found = run(engine, asks)
            assert all(found)
            compare(asks, found, expected)
    assert_is_clean(engine)


@settings(max_examples=examples(4))
@given(
    lies=st.lists(LIES, min_size=1, max_size=6),
    seed=st.integers(0, 10**6),
    setting=st.sampled_from([1, 3, 12, 64]),
    config=st.sampled_from([{}, {"prefix_cache": False}, {"jump_forward": False}, {"block_size": 1}]),
)
def test_a_source_that_lies_changes_no_token(lies: list[Lie], seed: int, setting: int, config: dict[str, Any]) -> None:
    check(lies, seed, setting, config)
