"""Faults that are put into the engine: only the requests they concern fail, with the cause, and the engine goes on."""

import itertools
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt
import pytest

from mlx_agent_llm import Delta, Engine, GenerationError, Handle, RequestTimeout, SamplingParams
from mlx_agent_llm.core.answers import Answers
from mlx_agent_llm.core.forward.layers.full import PagedLayer
from mlx_agent_llm.core.forward.runner import ModelRunner
from mlx_agent_llm.core.output.stopping import TextStop
from mlx_agent_llm.request import Matcher, Request
from mlx_agent_llm.testing import tiny_model

MakeEngine = Callable[..., Engine]

PARAMS = SamplingParams(max_tokens=30, temperature=1.0, seed=3, ignore_eos=True)
VOCABULARY = 258
SPOILING = 7
NOT_FINITE = r"the model's logits are not finite"


class Fault(Exception):
    pass


class FaultyModel(nn.Module):
    """A tiny model whose `fail_at`-th call from then on raises."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        inner = tiny_model()
        self.args, self.model, self._inner = inner.args, inner.model, inner
        self.calls_left: int | None = None

    @property
    def layers(self) -> Any:
        return self._inner.layers

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left == 0:
                self.calls_left = None
                raise Fault("the forward broke")
        logits: mx.array = self._inner(inputs, cache=cache)
        return logits


class SpoilingModel(nn.Module):
    """A tiny model that makes of token SPOILING what is no number, and in its next `spoils_left` calls of any token."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        inner: Any = tiny_model(tie_word_embeddings=False)
        self.args, self.model, self._inner = inner.args, inner.model, inner
        self._sound = inner.model.embed_tokens.weight
        self._spoiling = mx.where((mx.arange(VOCABULARY) == SPOILING)[:, None], mx.nan, self._sound)
        self._spoiled = mx.full(self._sound.shape, mx.nan)
        mx.eval(self._spoiling, self._spoiled)
        self.is_sound = False
        self.spoils_left = 0

    @property
    def layers(self) -> Any:
        return self._inner.layers

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        weight = self._sound if self.is_sound else self._spoiling
        if self.spoils_left:
            self.spoils_left -= 1
            weight = self._spoiled
        self._inner.model.embed_tokens.weight = weight
        logits: mx.array = self._inner(inputs, cache=cache)
        return logits


class FreeMatcher:
    """Allows everything, and breaks in the one place and at the one token that it is told to."""

    def __init__(self, fault: str = "", at: int = 5) -> None:
        self._fault, self._at = fault, at
        self._num_accepted = 0

    def accept(self, token_id: int) -> bool:
        self._num_accepted += 1
        if self._num_accepted == self._at and self._fault == "accept raises":
            raise Fault("accept broke")
        return not (self._num_accepted == self._at and self._fault == "accept rejects")

    def fill_mask(self, mask: npt.NDArray[np.int32], row: int) -> None:
        mask[row] = -1
        if self._num_accepted == self._at and self._fault == "fill_mask raises":
            mask[row] = 0
            raise Fault("fill_mask broke")

    def rollback(self, num_tokens: int) -> None:
        self._num_accepted -= num_tokens

    def jump_forward(self) -> bytes:
        if self._num_accepted == self._at and self._fault == "jump_forward raises":
            raise Fault("jump_forward broke")
        return b""

    @property
    def is_finished(self) -> bool:
        if self._num_accepted == self._at and self._fault == "is_finished raises":
            raise Fault("is_finished broke")
        return False


_IDS = itertools.count(10**6)


def submit_with(engine: Engine, matcher: Matcher, params: SamplingParams = PARAMS, prompt: str = "x") -> Handle:
    """Submit a request that has a matcher of our own."""
    request_id = next(_IDS)
    handle = Handle(cancel=lambda: engine._worker.abort(request_id))
    request = Request(request_id, engine.tokenizer.encode(prompt), params, 3, handle.deliver, matcher)
    engine._worker.call(lambda core: core.add(request))
    return handle


@pytest.mark.parametrize("calls_left", [1, 2, 5])
def test_a_fault_in_the_forward_fails_what_runs_with_its_cause_and_the_engine_goes_on(
    make_engine: MakeEngine, calls_left: int
) -> None:
    model = FaultyModel()
    engine = make_engine(model, max_num_seqs=2)
    expected = engine.generate(["x", "y", "z"], PARAMS)
    model.calls_left = calls_left
    handles = [engine.submit(prompt, PARAMS) for prompt in ("x", "y", "z")]
    errors, outputs = [], []
    for handle in handles:
        try:
            outputs.append(handle.result(timeout=20))
        except GenerationError as error:
            errors.append(error)
    assert 1 <= len(errors) <= 2, "two requests run at once, the third one waits"
    assert all(isinstance(error.__cause__, Fault) and "the forward broke" in str(error) for error in errors)
    assert outputs[-1].token_ids == expected[2].token_ids
    again = engine.generate(["x", "y", "z"], PARAMS)
    assert [output.token_ids for output in again] == [output.token_ids for output in expected]


def test_nothing_that_a_broken_forward_may_have_written_is_found_again(make_engine: MakeEngine) -> None:
    model = FaultyModel()
    engine = make_engine(model)
    [expected] = engine.generate(["p" * 100], PARAMS)
    model.calls_left = 1
    with pytest.raises(GenerationError):
        engine.generate(["p" * 100], PARAMS)
    [after] = engine.generate(["p" * 100], PARAMS)
    assert (after.usage.cached_tokens, after.token_ids) == (0, expected.token_ids)


def test_a_fault_while_a_preempted_request_waits_changes_none_of_its_tokens(make_engine: MakeEngine) -> None:
    prompts = [f"{number} a prompt of a length that matters" for number in range(4)]
    params = replace(PARAMS, max_tokens=80)
    expected = [output.token_ids for output in make_engine().generate(prompts, params)]
    for calls_left in range(20, 140, 12):
        model = FaultyModel()
        engine = make_engine(model, kv_cache_tokens=256)
        model.calls_left = calls_left
        handles = [engine.submit(prompt, params) for prompt in prompts]
        for handle, tokens in zip(handles, expected, strict=True):
            try:
                assert handle.result(timeout=20).token_ids == tokens
            except GenerationError as error:
                assert isinstance(error.__cause__, Fault)
        engine.close()


def test_the_old_pools_are_gone_before_new_ones_are_made_because_two_may_not_fit(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FaultyModel()
    engine = make_engine(model, kv_cache_tokens=2**16)
    engine.generate(["x"], PARAMS)
    with_pools = mx.get_active_memory()
    without_pools: list[int] = []
    make_layers = ModelRunner._make_layers

    def measure(self: ModelRunner) -> list[PagedLayer]:
        without_pools.append(mx.get_active_memory())
        return make_layers(self)

    monkeypatch.setattr(ModelRunner, "_make_layers", measure)
    model.calls_left = 5
    with pytest.raises(GenerationError, match="the forward broke") as caught:
        engine.generate(["x"], PARAMS)
    pools = 2**16 * 2 * 2 * 2 * 8 * 4  # tokens, layers, keys and values, heads, dimensions, bytes
    assert without_pools[0] < with_pools - 0.9 * pools
    assert "in __call__" in "".join(traceback.format_exception(caught.value)), "the cause still says where it was"


@pytest.mark.parametrize(
    "fault", ["accept raises", "accept rejects", "fill_mask raises", "jump_forward raises", "is_finished raises"]
)
def test_a_fault_in_a_matcher_fails_its_request_alone(make_engine: MakeEngine, fault: str) -> None:
    engine = make_engine()
    free = engine.generate(["x", "y"], PARAMS)
    plain = engine.submit("x", PARAMS)
    faulty = submit_with(engine, FreeMatcher(fault))
    sound = submit_with(engine, FreeMatcher(), prompt="y")
    with pytest.raises(GenerationError, match=r"broke|rejected sampled token") as caught:
        faulty.result(timeout=20)
    assert isinstance(caught.value.__cause__, Fault) or fault == "accept rejects"
    assert plain.result().token_ids == free[0].token_ids
    assert sound.result().token_ids == free[1].token_ids
    assert engine.generate(["x"], PARAMS)[0].token_ids == free[0].token_ids


@pytest.mark.parametrize("fault", ["accept raises", "fill_mask raises", "jump_forward raises"])
def test_an_idle_engine_holds_nothing_of_a_last_request_that_failed(make_engine: MakeEngine, fault: str) -> None:
    engine = make_engine()
    with pytest.raises(GenerationError):
        submit_with(engine, FreeMatcher(fault)).result(timeout=20)
    engine.generate(["x"], replace(PARAMS, max_tokens=1))  # a step after the one that failed
    with pytest.raises(GenerationError):
        submit_with(engine, FreeMatcher(fault)).result(timeout=20)
    engine.close()  # so that the step is over
    assert engine._worker.core._in_flight is None


def test_the_text_before_a_fault_is_delivered_once_and_the_error_once(make_engine: MakeEngine) -> None:
    engine = make_engine()
    [expected] = engine.generate(["x"], PARAMS)
    deltas: list[Delta] = []
    handle = submit_with(engine, FreeMatcher("accept raises", at=5))
    with pytest.raises(GenerationError):
        for delta in handle:
            deltas.append(delta)
    assert tuple(token for delta in deltas for token in delta.token_ids) == expected.token_ids[:4]
    assert list(handle) == []
    with pytest.raises(GenerationError):
        handle.result()


def test_a_fault_while_text_is_made_fails_its_request_alone(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()
    [expected] = engine.generate(["x"], PARAMS)
    feed = TextStop.feed

    def broken_feed(self: TextStop, text: str) -> tuple[str, bool]:
        if self._stop == ("break here",) and text:
            raise Fault("the text broke")
        return feed(self, text)

    monkeypatch.setattr(TextStop, "feed", broken_feed)
    faulty, sound = engine.submit("x", replace(PARAMS, stop=("break here",))), engine.submit("x", PARAMS)
    with pytest.raises(GenerationError, match="the text broke") as caught:
        faulty.result(timeout=20)
    assert isinstance(caught.value.__cause__, Fault)
    assert sound.result().token_ids == expected.token_ids


def test_a_text_that_cannot_even_be_ended_fails_its_request_alone(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()
    feed = TextStop.feed

    def broken_feed(self: TextStop, text: str) -> tuple[str, bool]:
        if self._stop == ("break here",):
            raise Fault("the text broke")
        return feed(self, text)

    monkeypatch.setattr(TextStop, "feed", broken_feed)
    faulty, sound = engine.submit("x", replace(PARAMS, stop=("break here",))), engine.submit("x", PARAMS)
    with pytest.raises(GenerationError, match="the text broke"):
        faulty.result(timeout=20)
    assert len(sound.result(timeout=20).token_ids) == 30


def test_a_cancelled_request_whose_text_cannot_be_ended_fails_alone(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()
    cancelled, sound = engine.submit("x", replace(PARAMS, max_tokens=4000)), engine.submit("x", PARAMS)
    next(iter(cancelled))

    def broken_finish(*arguments: object) -> str:
        raise Fault("the text broke")

    with monkeypatch.context() as patch:
        patch.setattr(TextStop, "finish", broken_finish)
        cancelled.cancel()
        with pytest.raises(GenerationError, match="the text broke"):
            cancelled.result(timeout=20)
    assert len(engine.generate(["x"], PARAMS)[0].token_ids) == 30
    sound.cancel()


def broken_reset(self: ModelRunner) -> None:
    raise Fault("no memory is left")


def test_when_not_even_the_pools_can_be_made_anew_every_request_fails_and_the_engine_is_closed(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FaultyModel()
    engine = make_engine(model, max_num_seqs=2)
    monkeypatch.setattr(ModelRunner, "reset", broken_reset)
    handles = [engine.submit("x", replace(PARAMS, max_tokens=4000)) for _ in range(4)]
    next(iter(handles[0]))
    model.calls_left = 1
    for handle in handles:
        with pytest.raises(GenerationError, match="no memory is left"):
            handle.result(timeout=20)
    with pytest.raises(GenerationError, match="the engine stopped: Fault: no memory is left"):
        engine.submit("x", PARAMS)


def test_a_bug_in_the_loop_itself_leaves_nobody_waiting(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()

    def broken_time_out(self: Answers) -> None:
        raise Fault("a bug")

    handles = [engine.submit("x", replace(PARAMS, max_tokens=4000)) for _ in range(3)]
    next(iter(handles[0]))
    monkeypatch.setattr(Answers, "time_out", broken_time_out)
    for handle in handles:
        with pytest.raises(GenerationError, match="the engine stopped: Fault: a bug"):
            handle.result(timeout=20)


def test_what_ended_in_the_step_after_which_the_engine_stops_is_answered_too(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FaultyModel()
    engine = make_engine(model, max_num_seqs=2)
    monkeypatch.setattr(ModelRunner, "reset", broken_reset)
    long = engine.submit("x", replace(PARAMS, max_tokens=4000))
    next(iter(long))
    late = engine.submit("y", replace(PARAMS, timeout=0))  # fails at the beginning of the step that breaks
    engine._worker.call(lambda core: setattr(model, "calls_left", 1))  # not before that one is there
    with pytest.raises(RequestTimeout):
        late.result(timeout=20)
    with pytest.raises(GenerationError, match="no memory is left"):
        long.result(timeout=20)


# --- logits that are not finite --------------------------------------------------------------------------------------

SPOILED_PROMPT = [*range(100, 140), SPOILING, *range(140, 180)]


def test_a_prompt_whose_logits_are_not_finite_fails_and_is_right_when_the_model_is(make_engine: MakeEngine) -> None:
    model = SpoilingModel()
    engine = make_engine(model)
    model.is_sound = True
    [expected] = make_engine(model).generate([SPOILED_PROMPT], PARAMS)
    model.is_sound = False
    with pytest.raises(GenerationError, match=NOT_FINITE):
        engine.generate([SPOILED_PROMPT], PARAMS)
    model.is_sound = True
    [again] = engine.generate([SPOILED_PROMPT], PARAMS)
    assert (again.usage.cached_tokens, again.token_ids) == (0, expected.token_ids)


@pytest.mark.parametrize("chunk", [16, 2048])
def test_prompts_that_get_the_blocks_of_a_spoiled_one_are_right(make_engine: MakeEngine, chunk: int) -> None:
    model = SpoilingModel()
    others = [[number] * (3 + 5 * number) for number in range(20, 26)]
    params = replace(PARAMS, max_tokens=8)
    expected = [output.token_ids for output in make_engine(model).generate(others, params)]
    engine = make_engine(model, kv_cache_tokens=160, max_num_seqs=8, max_tokens_per_step=chunk)
    for prompt, tokens in zip(others, expected, strict=True):
        with pytest.raises(GenerationError, match=NOT_FINITE):
            engine.generate([SPOILED_PROMPT], params)
        assert engine.generate([prompt], params)[0].token_ids == tokens


def test_requests_that_run_beside_a_spoiled_one_are_right(make_engine: MakeEngine) -> None:
    model = SpoilingModel()
    prefix = list(range(60, 100))
    others = [[*prefix, number] for number in range(20, 26)] + [[number] * 40 for number in range(30, 34)]
    expected = [output.token_ids for output in make_engine(model).generate(others, PARAMS)]
    engine = make_engine(model)
    handles = [engine.submit(prompt, PARAMS) for prompt in others]
    spoiled = [engine.submit([*prefix, SPOILING, number], PARAMS) for number in range(3)]
    for handle in spoiled:
        with pytest.raises(GenerationError, match=NOT_FINITE):
            handle.result(timeout=20)
    assert [handle.result(timeout=20).token_ids for handle in handles] == expected


def test_a_waiting_request_does_not_take_the_blocks_of_a_spoiled_one(make_engine: MakeEngine) -> None:
    model = SpoilingModel()
    prompt = list(range(100, 180))
    [expected] = make_engine(model).generate([prompt], PARAMS)
    engine = make_engine(model, max_num_seqs=1)
    model.spoils_left = 1
    first, waiting = engine.submit(prompt, PARAMS), engine.submit(prompt, PARAMS)
    with pytest.raises(GenerationError, match=NOT_FINITE):
        first.result(timeout=20)
    output = waiting.result(timeout=20)
    assert (output.usage.cached_tokens, output.token_ids) == (0, expected.token_ids)


def test_a_stream_that_is_spoiled_later_keeps_what_came_before_and_its_prompt_is_still_found(
    make_engine: MakeEngine,
) -> None:
    model = SpoilingModel()
    prompt = list(range(100, 164))
    engine = make_engine(model)
    [expected] = engine.generate([prompt], PARAMS)
    engine.reset_prefix_cache()
    handle, deltas = engine.submit(prompt, replace(PARAMS, max_tokens=2000)), list[Delta]()
    with pytest.raises(GenerationError, match=NOT_FINITE):
        for delta in handle:
            deltas.append(delta)
            if len(deltas) == 3:
                model.spoils_left = 1
    seen = [token_id for delta in deltas for token_id in delta.token_ids]
    assert tuple(seen[:30]) == expected.token_ids[: len(seen)]
    [again] = engine.generate([prompt], PARAMS)
    assert (again.usage.cached_tokens, again.token_ids) == (48, expected.token_ids)


def test_a_waiting_request_that_cannot_be_scheduled_fails_alone_with_the_cause(make_engine: MakeEngine) -> None:
    engine = make_engine()
    [expected] = engine.generate(["x"], PARAMS)
    handle = Handle(cancel=lambda: None)
    stream = engine.submit("x", replace(PARAMS, max_tokens=200))
    broken = Request(next(_IDS), [2**70] * 40, PARAMS, 3, handle.deliver)
    engine._worker.call(lambda core: core.add(broken))
    with pytest.raises(GenerationError, match="OverflowError") as caught:
        handle.result(timeout=20)
    assert isinstance(caught.value.__cause__, OverflowError)
    assert len(stream.result(timeout=20).token_ids) == 200
    assert engine.generate(["x"], PARAMS)[0].token_ids == expected.token_ids
