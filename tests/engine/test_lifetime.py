"""The ends of engines and requests: closed in the middle of all, forgotten, cancelled half way, told to nobody."""

import asyncio
import gc
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mlx.core as mx
import pytest

from mlx_agent_llm import (
    Delta,
    Engine,
    EngineClosedError,
    EngineConfig,
    JSONSchema,
    RequestTimeout,
    SamplingParams,
)
from mlx_agent_llm.constrain.backends import GrammarCompiler
from mlx_agent_llm.constrain.grammars import constraint_grammar
from mlx_agent_llm.core import loop
from mlx_agent_llm.core.answers import Emission
from mlx_agent_llm.core.forward.compiled_forward import CompiledForward
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.forward.runner import ModelRunner
from mlx_agent_llm.core.loop import EngineCore, Vocabulary
from mlx_agent_llm.core.output import samples
from mlx_agent_llm.core.output.samples import Samples
from mlx_agent_llm.models import from_parts
from mlx_agent_llm.request import Request
from mlx_agent_llm.testing import ByteTokenizer, tiny_model
from tests.support.engines import assert_is_clean
from tests.support.exact_model import ExactModel, Fault, Faults
from tests.support.waiting import wait_until

MakeEngine = Callable[..., Engine]

PARAMS = SamplingParams(max_tokens=20, temperature=1.0, seed=3, ignore_eos=True)
ENDLESS = replace(PARAMS, max_tokens=900)
PREFIX = list(b"a prefix that all of them have in common, and that is long. " * 4)


def test_closing_the_engine_answers_fifty_requests_in_every_state_from_threads_and_loops(
    make_engine: MakeEngine,
) -> None:
    engine = make_engine(ExactModel(), max_num_seqs=4, kv_cache_tokens=1024, max_tokens_per_step=16)
    constrained = replace(PARAMS, constraint=JSONSchema({"type": "string"}), ignore_eos=False)
    answers: Counter[str] = Counter()
    ways: list[Callable[[], Any]] = [
        lambda: engine.submit("runs or waits", ENDLESS).result(timeout=60),
        lambda: engine.submit("x" * 800, replace(ENDLESS, max_tokens=100)).result(timeout=60),
        lambda: list(engine.stream("is read as it comes", ENDLESS)),
        lambda: engine.generate(["a", "b"], ENDLESS),
        lambda: engine.submit("a", constrained).result(timeout=60),
    ]

    def ask(way: Callable[[], Any]) -> None:
        while True:
            try:
                way()
                answers["whole"] += 1
            except EngineClosedError:
                answers["closed"] += 1
                return

    async def ask_many() -> None:
        tasks = [asyncio.create_task(engine.agenerate(["from a loop"], ENDLESS)) for _ in range(10)]
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            answers["closed"] += isinstance(result, EngineClosedError)

    threads = [threading.Thread(target=ask, args=(ways[number % len(ways)],), daemon=True) for number in range(40)]
    threads.append(threading.Thread(target=lambda: asyncio.run(ask_many()), daemon=True))
    for thread in threads:
        thread.start()
    wait_until(lambda: engine.stats().num_running == 4 and engine.stats().num_waiting > 20)
    engine.close()
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive(), "somebody waits for an answer"
    assert answers["closed"] == 50


@pytest.mark.parametrize("is_busy", [False, True])
def test_an_engine_that_is_forgotten_unclosed_ends_its_thread(is_busy: bool) -> None:
    engine = Engine.from_parts(ExactModel(), ByteTokenizer(), EngineConfig(kv_cache_tokens=1024))
    thread, gone = engine._worker._thread, weakref.ref(engine)
    engine.generate(["x"], PARAMS)
    handle = engine.submit("x", replace(PARAMS, max_tokens=200)) if is_busy else None
    del engine
    if handle is not None:
        assert len(handle.result(timeout=20).token_ids) == 200, "a request that runs is served to its end"
        del handle
    wait_until(lambda: gc.collect() >= 0 and gone() is None)
    thread.join(timeout=20)
    assert not thread.is_alive()


def test_a_task_that_ends_with_its_loop_while_it_submits_leaves_no_request_after(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(ExactModel())
    submit, is_entered, may_go_on = Engine.submit, threading.Event(), threading.Event()

    def slow_submit(*arguments: Any) -> Any:
        is_entered.set()
        may_go_on.wait(timeout=20)
        return submit(*arguments)

    async def leave() -> None:
        task = asyncio.create_task(anext(engine.astream("x", ENDLESS)))
        await asyncio.to_thread(is_entered.wait, 20)
        assert not task.done()

    def make_loop() -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda _, context: unhandled.append(context))
        return loop

    unhandled: list[dict[str, Any]] = []
    monkeypatch.setattr(Engine, "submit", slow_submit)
    threading.Timer(0.3, may_go_on.set).start()  # the loop has cancelled its tasks by then, and waits for its threads
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(leave())
    wait_until(lambda: engine.stats().num_running == 0 and engine._worker.limit.num_open == 0)
    assert engine.stats().num_generated_tokens < 800, "it was served to its end"
    assert not unhandled


def test_an_idle_engine_holds_on_to_nothing_of_the_requests_it_served(make_engine: MakeEngine) -> None:
    engine = make_engine(ExactModel())
    params = replace(PARAMS, repetition_penalty=1.2, presence_penalty=0.5, min_tokens=2, logprobs=1)
    handles = [engine.submit("x", params), engine.submit("y", replace(params, max_tokens=900))]
    handles[0].result(timeout=20)
    handles[1].cancel()
    handles[1].result(timeout=20)
    gone = [weakref.ref(handle) for handle in handles]
    handles.clear()
    wait_until(lambda: not any(reference() for reference in gone))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_sink_that_raises_ends_its_request_alone_and_the_fault_is_shown(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(ExactModel())
    expected = engine.generate(["x", "y"], PARAMS)
    shown: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", shown.append)
    faulty = engine.submit("z", ENDLESS)
    others = [engine.submit(prompt, PARAMS) for prompt in ("x", "y")]

    def broken_deliver(delta: Delta) -> None:
        raise Fault("nobody listens")

    monkeypatch.setattr(faulty, "deliver", broken_deliver)
    assert [handle.result(timeout=20).token_ids for handle in others] == [output.token_ids for output in expected]
    wait_until(lambda: engine.stats().num_running == 0)
    assert shown and all(isinstance(one.exc_value, Fault) for one in shown)
    assert engine.generate(["x"], PARAMS)[0].token_ids == expected[0].token_ids


def test_errors_that_several_callers_get_are_not_one_object_and_keep_no_caller_alive(make_engine: MakeEngine) -> None:
    engine = make_engine(ExactModel())
    handle = engine.submit("x", replace(PARAMS, timeout=0))
    gone = weakref.ref(handle)
    errors = []
    for _ in range(2):
        with pytest.raises(RequestTimeout) as caught:
            handle.result(timeout=20)
        errors.append(caught.value)
    assert errors[0] is not errors[1] and errors[0].args == errors[1].args
    gc.disable()
    try:
        errors.clear()
        del handle, caught
        wait_until(lambda: gone() is None, seconds=2)
    finally:
        gc.enable()


@pytest.mark.parametrize("is_used", [False, True])
def test_closing_gives_the_memory_of_the_weights_and_the_cache_back_while_the_engine_is_kept(is_used: bool) -> None:
    gc.collect()
    mx.clear_cache()
    before = mx.get_active_memory()
    wide = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 16}
    engine = Engine(from_parts(tiny_model(**wide), ByteTokenizer()), EngineConfig(kv_cache_tokens=1024))
    assert mx.get_active_memory() - before > 20e6
    gc.disable()
    try:
        if is_used:
            engine.generate(["x" * 50] * 4, PARAMS)
            with pytest.raises(RequestTimeout):
                engine.generate(["x"], replace(PARAMS, timeout=0))
            assert mx.get_cache_memory() > 0
        engine.close()
        assert mx.get_active_memory() - before < 0.1e6
        assert mx.get_cache_memory() == 0
    finally:
        gc.enable()
    assert engine.stats().num_generated_tokens == (80 if is_used else 0)
    assert engine.tokenizer.encode("x") == [ord("x")]
    assert_is_clean(engine)


def test_closing_leaves_a_model_to_its_other_holders(make_engine: MakeEngine) -> None:
    model = tiny_model()
    engines = [make_engine(model) for _ in range(2)]
    expected = engines[0].generate(["x"], PARAMS)[0].token_ids
    engines[0].close()
    assert engines[1].generate(["x"], PARAMS)[0].token_ids == expected
    engines[1].close()
    assert make_engine(model).generate(["x"], PARAMS)[0].token_ids == expected


def test_a_compiled_forward_that_is_closed_keeps_no_model_alive() -> None:
    model = tiny_model()
    forward, gone = CompiledForward(model), weakref.ref(model)
    gc.disable()
    try:
        forward.close()
        del model, forward
        assert gone() is None
    finally:
        gc.enable()


# --- step by step ----------------------------------------------------------------------------------------------------


def make_core(model: ExactModel, **config: Any) -> EngineCore:
    """A core without a thread: its steps are the test's."""
    tokenizer, shape = model.tokenizer, probe_model(model)
    vocabulary = Vocabulary(tokenizer.token_bytes, tokenizer.eos_token_ids)
    return EngineCore(model, shape, vocabulary, EngineConfig(**({"kv_cache_tokens": 4096} | config)), 1024)


def add_requests(core: EngineCore, prompts: list[list[int]], params: SamplingParams = PARAMS) -> list[list[Delta]]:
    """Add requests with the ids 0, 1, 2...; the lists that their deltas come to."""
    answers: list[list[Delta]] = [[] for _ in prompts]
    for request_id, (prompt, deltas) in enumerate(zip(prompts, answers, strict=True)):
        core.add(Request(request_id, prompt, params, 3, deltas.append))
    return answers


def deliver(emissions: list[Emission]) -> None:
    for request, delta in emissions:
        request.sink(delta)


def tokens_of(deltas: list[Delta]) -> list[int]:
    return [token_id for delta in deltas for token_id in delta.token_ids]


@pytest.mark.parametrize("end", ["cancel", "timeout", "fault"])
@pytest.mark.parametrize("num_steps", [1, 2, 4])
def test_when_the_first_of_many_ends_half_way_through_a_common_prefix_the_next_goes_on(
    end: str, num_steps: int
) -> None:
    prompts = [[*PREFIX, number] for number in range(6)]
    undisturbed = make_core(ExactModel())
    expected = add_requests(undisturbed, prompts)
    while undisturbed.has_work:
        deliver(undisturbed.step())
    faults = Faults(0)
    core = make_core(ExactModel(faults), max_tokens_per_step=32, max_num_seqs=8)
    answers = add_requests(core, prompts, replace(PARAMS, timeout=1000))
    for _ in range(num_steps):
        deliver(core.step())
    first = core._answers.open[0]
    assert 0 < first.kv.num_computed_tokens < len(PREFIX)
    if end == "cancel":
        deliver(core.abort(0))
    elif end == "timeout":
        first.submitted_at -= 2000
    else:
        faults.rates["forward"] = 1.0
        deliver(core.step())
        faults.rates["forward"] = 0.0
    for _ in range(200):
        deliver(core.step())
    assert not core.has_work, "somebody waits for a prefix that nobody computes"
    assert [answers[0][-1].finish_reason, tokens_of(answers[0])] == ["cancelled" if end == "cancel" else "error", []]
    whole = [number for number in range(1, 6) if answers[number][-1].finish_reason == "length"]
    assert len(whole) == 5 or (end == "fault" and len(whole) >= 1)
    assert all(tokens_of(answers[number]) == tokens_of(expected[number]) for number in whole)
    num_computed = core.stats().num_prompt_tokens_computed
    assert num_computed <= (2 if end == "fault" else 1) * (len(PREFIX) + 32) + 6 * core.kv_manager.block_size
    core.check_integrity()


def test_the_next_forward_is_dispatched_before_the_last_tokens_are_read_and_only_sampling_waits_for_the_masks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []

    def record(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def recording(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            calls.append(name)
            return result

        monkeypatch.setattr(owner, name, recording)

    for owner, name in ((ModelRunner, "forward"), (Samples, "read"), (loop, "fill_masks"), (samples, "sample")):
        record(owner, name)
    model = ExactModel()
    core = make_core(model)
    answers = add_requests(core, [[1], [2]])
    tokenizer = model.tokenizer
    compiler = GrammarCompiler(
        tokenizer.token_bytes, tokenizer.vocab_size, tokenizer.eos_token_ids, tokenizer.special_token_texts
    )
    schema = JSONSchema({"type": "string", "minLength": 30, "maxLength": 30})
    core._answers.open[0].matcher = compiler.compile(constraint_grammar(schema)).matcher()
    calls.clear()  # a core may compute for nobody when it is made
    for _ in range(12):
        deliver(core.step())
    step = ["forward", "read", "fill_masks", "sample"]
    assert calls == ["forward", "fill_masks", "sample", *step * 11]
    assert all(len(tokens_of(deltas)) == 11 for deltas in answers), "the constrained row is as far as the free one"
    deliver(core.fail_all(EngineClosedError("the test is over")))
