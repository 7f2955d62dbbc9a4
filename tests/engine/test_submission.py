"""From what is asked to submissions, and from a submission to the requests that the engine computes."""

import inspect
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from mlx_agent_llm import Engine, JSONSchema, RequestError, SamplingParams
from mlx_agent_llm.chat import ChatParser, PreparedChat, prepare_chat
from mlx_agent_llm.constrain.reasoning import Block, LimitedMatcher, ReasoningLimit, ThinkingTracker
from mlx_agent_llm.engine.chat_options import ReplyOptions
from mlx_agent_llm.engine.submission import ForkOf, New, SampleOf
from mlx_agent_llm.request import Delta
from mlx_agent_llm.testing import ScriptedModel

MakeEngine = Callable[..., Engine]

PARAMS = SamplingParams(max_tokens=20, temperature=1.0, seed=2**32 - 2, ignore_eos=True)
MESSAGES = [{"role": "user", "content": "Hello"}]


def take(delta: Delta) -> None:
    """A sink."""


def test_the_samples_of_a_prompt_follow_its_first_request(make_engine: MakeEngine) -> None:
    admission = make_engine()._admission
    first, *samples, other = admission.batch(["one", "another"], [replace(PARAMS, n=2), replace(PARAMS, seed=5)])
    assert [first.origin, *(one.origin for one in samples), other.origin] == [New(), SampleOf(first.request_id), New()]
    assert [first.seed, *(one.seed for one in samples), other.seed] == [2**32 - 2, 2**32 - 1, 5]
    assert all(one.token_ids == first.token_ids and one.params.n == 1 for one in samples)
    assert len({one.request_id for one in (first, *samples, other)}) == 3


def test_a_fork_has_the_tokens_of_its_parent_and_a_seed_of_its_own(make_engine: MakeEngine) -> None:
    admission = make_engine()._admission
    parent = admission.single("x", PARAMS)
    child = admission.fork(parent, None)
    assert (child.origin, child.token_ids) == (ForkOf(parent.request_id), parent.token_ids)
    assert child.params == replace(parent.params, seed=None) and child.seed != parent.seed
    with pytest.raises(FrozenInstanceError):
        child.seed = parent.seed  # type: ignore[misc]


def test_a_refused_call_draws_no_seed(make_engine: MakeEngine) -> None:
    params = SamplingParams(max_tokens=5)
    engines = [make_engine(seed=7) for _ in range(2)]
    with pytest.raises(RequestError, match="at least one token"):
        engines[0]._admission.batch(["fine", ""], params)
    one, other = (engine._admission.single("x", params) for engine in engines)
    assert one.seed == other.seed


def test_every_attempt_at_a_reply_has_its_grammar_its_shown_tokens_and_its_limit(make_engine: MakeEngine) -> None:
    constrained = make_engine()._admission.single("x", SamplingParams(constraint=JSONSchema({"type": "boolean"})))
    limit = ReasoningLimit(ThinkingTracker(Block(b"<", b">"), "open", lambda token_id: b""), [1], 5)
    parser = ChatParser(None, None)  # type: ignore[arg-type]  # the engine never asks it
    chat = PreparedChat([1], None, parser, {256: b"<|im_start|>"})
    free = replace(constrained, prepared=None, chat=chat, reasoning_limit=limit)
    for seed in (1, 2):
        request = replace(constrained, chat=chat, reasoning_limit=limit).request(take, seed, 4.0)
        assert (request.seed, request.submitted_at, request.shown_tokens) == (seed, 4.0, {256: b"<|im_start|>"})
        assert request.grammar is not None and request.budget is not None and request.matcher is None
        assert isinstance(request.grammar.result(20).matcher(), LimitedMatcher)
        assert isinstance(free.request(take, seed, 4.0).matcher, LimitedMatcher)


def test_a_chat_takes_the_options_of_a_prepared_one() -> None:
    names = {name for name, one in inspect.signature(prepare_chat).parameters.items() if one.kind is one.KEYWORD_ONLY}
    assert ReplyOptions.__optional_keys__ == names - {"tool_format", "check"}


async def test_an_unknown_option_of_a_chat_is_refused_by_every_way_to_chat(make_engine: MakeEngine) -> None:
    engine = make_engine(ScriptedModel(["Hi."]))
    options: dict[str, Any] = {"colour": "red"}
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        engine.chat(MESSAGES, **options)
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        engine.stream_chat(MESSAGES, **options)
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        await engine.achat(MESSAGES, **options)
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        await anext(engine.astream_chat(MESSAGES, **options))
