"""MLXAgentLLM as LlamaIndex's LLM: chats, completions, streams, usage, events, settings, cancellation, refusals."""

import asyncio
import importlib
import json
import pickle
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    ChatResponse,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler, TokenCountingHandler
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import LLM
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.prompts import PromptTemplate
from llama_index_instrumentation import get_dispatcher
from pydantic import ValidationError

from langchain_mlx_agent import ChatMLXAgent
from llama_index.llms.mlx_agent import LLMRequestError, MLXAgentLLM
from llama_index.llms.mlx_agent.messages import as_dicts
from llama_index.llms.mlx_agent.responses import whole_response
from mlx_agent_llm import (
    ChatDelta,
    Choice,
    ContextLengthError,
    Engine,
    EngineClosedError,
    EngineConfig,
    ModelLoadError,
    Regex,
    RequestError,
    RequestTimeout,
    Timings,
    Usage,
)
from mlx_agent_llm.engine.registry import EngineRegistry
from mlx_agent_llm.testing import ByteTokenizer, ScriptedModel, tiny_model
from tests.support.engines import MakeEngine, MakeLLM

HELLO = [ChatMessage("Hello")]


def text_of(response: Any) -> str:
    return response.message.content if isinstance(response, ChatResponse) else response.text


async def every_answer(llm: LLM, *, formatted: bool) -> list[Any]:
    """The last response of each of the eight ways to ask, or of the four to complete a formatted prompt."""
    options: dict[str, Any] = {"formatted": True} if formatted else {}
    answers = [
        llm.complete("Hello", **options),
        list(llm.stream_complete("Hello", **options))[-1],
        await llm.acomplete("Hello", **options),
        [one async for one in await llm.astream_complete("Hello", **options)][-1],
    ]
    if formatted:
        return answers
    return [
        *answers,
        llm.chat(HELLO),
        list(llm.stream_chat(HELLO))[-1],
        await llm.achat(HELLO),
        [one async for one in await llm.astream_chat(HELLO)][-1],
    ]


def wait_until_idle(engine: Engine) -> None:
    deadline = time.monotonic() + 20
    while engine.stats().num_used_blocks:
        assert time.monotonic() < deadline, "the request went on"
        time.sleep(0.01)


# ---- what it is


def test_it_is_a_function_calling_llm_and_no_custom_one(make_llm: MakeLLM) -> None:
    """CustomLLM's async methods call the sync ones, on the event loop."""
    order = MLXAgentLLM.__mro__
    assert order.index(FunctionCallingLLM) < order.index(LLM)
    assert CustomLLM not in order
    for name in ("achat", "astream_chat", "acomplete", "astream_complete", "astructured_predict"):
        [owner, *_] = (cls for cls in order if name in vars(cls))
        assert owner.__module__.startswith("llama_index.llms.mlx_agent")
    assert MLXAgentLLM.class_name() == "MLXAgentLLM"


def test_metadata_says_what_the_model_can_do(make_llm: MakeLLM) -> None:
    metadata = make_llm(["Hi."], max_tokens=40).metadata
    assert (metadata.context_window, metadata.num_output, metadata.model_name) == (8192, 40, "testing")
    assert metadata.is_chat_model and metadata.is_function_calling_model


async def test_every_way_to_ask_gives_the_same_answer_with_usage(make_llm: MakeLLM) -> None:
    for answer in await every_answer(make_llm(["Grüß dich."]), formatted=False):
        assert text_of(answer) == "Grüß dich."
        usage = answer.raw["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        assert usage["completion_tokens"] == len("Grüß dich.".encode()) + 1
        assert (answer.raw["finish_reason"], answer.raw["model"]) == ("stop", "testing")


async def test_a_formatted_prompt_is_run_as_it_stands(make_llm: MakeLLM) -> None:
    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        return "there."

    llm = make_llm(reply, system_prompt="Be kind.")
    assert [text_of(answer) for answer in await every_answer(llm, formatted=True)] == ["there."] * 4
    assert set(prompts) == {"Hello"}


async def test_a_stream_holds_the_answer_so_far_and_its_deltas_add_up_to_it(make_llm: MakeLLM) -> None:
    llm = make_llm(["One two three."])
    for responses in (list(llm.stream_chat(HELLO)), [one async for one in await llm.astream_chat(HELLO)]):
        said = ""
        for response in responses:
            said += response.delta or ""
            assert response.message.content == said
            assert response.message.role is MessageRole.ASSISTANT
        assert said == "One two three." and len(responses) > 5
        assert [response.raw is not None for response in responses] == [False] * (len(responses) - 1) + [True]
    for completions in (list(llm.stream_complete("Hi")), [one async for one in await llm.astream_complete("Hi")]):
        assert "".join(one.delta or "" for one in completions) == completions[-1].text == "One two three."


def test_an_empty_answer_is_an_empty_text(make_llm: MakeLLM) -> None:
    llm = make_llm([""])
    assert llm.chat(HELLO).message.content == ""
    assert [response.message.content for response in llm.stream_chat(HELLO)] == [""]


def test_thoughts_are_a_block_of_their_own_and_stream_as_thinking_delta() -> None:
    from llama_index.llms.mlx_agent.responses import ResponseWriter, stream_responses

    deltas = [
        ChatDelta(reasoning="Let me "),
        ChatDelta(reasoning="see."),
        ChatDelta(text="Four."),
        ChatDelta(finish_reason="stop", usage=Usage(3, 2, 4, 2), timings=Timings()),
    ]

    def replay() -> Iterator[ChatDelta]:
        yield from deltas

    responses = list(stream_responses(replay(), ResponseWriter("m", [])))
    assert [one.additional_kwargs.get("thinking_delta") for one in responses] == ["Let me ", "see.", None, None]
    whole = whole_response(replay(), ResponseWriter("m", []))
    assert whole.message == responses[-1].message
    thought, text = whole.message.blocks
    assert isinstance(thought, ThinkingBlock) and thought.content == "Let me see."
    assert isinstance(text, TextBlock) and text.text == "Four."
    assert whole.raw["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}
    assert whole.raw["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}


async def test_the_system_prompt_comes_first_once_in_every_way(make_llm: MakeLLM) -> None:
    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        return "Yes."

    llm = make_llm(reply, system_prompt="Be kind.")
    await every_answer(llm, formatted=False)
    template = PromptTemplate("Is {thing} good?")
    llm.predict(template, thing="tea")
    await llm.apredict(template, thing="tea")
    list(llm.stream(template, thing="tea"))
    [one async for one in await llm.astream(template, thing="tea")]
    assert len({prompt for prompt in prompts}) == 2
    for prompt in prompts:
        assert prompt.startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user")
        assert prompt.count("Be kind.") == 1


def test_a_model_without_a_chat_template_completes_prompts(make_engine: MakeEngine) -> None:
    class PlainTokenizer(ByteTokenizer):
        chat_template = None  # type: ignore[assignment]

    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        return "Yes."

    with Engine.from_parts(ScriptedModel(reply), PlainTokenizer(), EngineConfig(kv_cache_tokens=4096)) as engine:
        llm = MLXAgentLLM(engine=engine, completion_to_prompt=lambda prompt: f"Q: {prompt} A:", system_prompt="Kind.")
        assert not llm.metadata.is_chat_model and not llm.metadata.is_function_calling_model
        assert llm.predict(PromptTemplate("Is {thing} good?"), thing="tea") == "Yes."
        assert llm.complete("Is tea good?").text == "Yes."
        assert set(prompts) == {"Kind.\n\nQ: Is tea good? A:"}
        with pytest.raises(LLMRequestError, match="no chat template"):
            llm.chat(HELLO)


# ---- messages


def test_messages_of_every_kind_become_what_the_engine_takes() -> None:
    call = ToolCallBlock(tool_call_id="1", tool_name="add", tool_kwargs={"a": 1})
    same = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    other = {"id": "2", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}
    messages = [
        ChatMessage("Be kind.", role="system"),
        ChatMessage("Be brief.", role="developer"),
        ChatMessage(
            [TextBlock(text="One "), CachePoint(cache_control={"type": "ephemeral"}), TextBlock(text="and one?")]
        ),
        ChatMessage(
            [ThinkingBlock(content="Hm."), TextBlock(text="Let me see."), call],
            role="assistant",
            additional_kwargs={"tool_calls": [same, other]},
        ),
        ChatMessage("2", role="tool", additional_kwargs={"tool_call_id": "1", "name": "add"}),
        ChatMessage("3", role="function", additional_kwargs={"tool_call_id": "2"}),
        ChatMessage("It is 2.", role="chatbot"),
        ChatMessage("Is it?", role="model"),
    ]
    calls = [{**same, "function": {"name": "add", "arguments": {"a": 1}}}, other]
    assert as_dicts(messages) == [
        {"role": "system", "content": "Be kind."},
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": ["One ", "and one?"]},
        {"role": "assistant", "content": "Let me see.", "reasoning_content": "Hm.", "tool_calls": calls},
        {"role": "tool", "content": "2", "tool_call_id": "1"},
        {"role": "tool", "content": "3", "tool_call_id": "2"},
        {"role": "assistant", "content": "It is 2."},
        {"role": "assistant", "content": "Is it?"},
    ]


IMAGE = ImageBlock(image=b"iVBORw0KGgo=", image_mimetype="image/png")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (ChatMessage([TextBlock(text="See"), IMAGE]), r"messages\[0\].blocks\[1\] of type 'image'"),
        (ChatMessage([ThinkingBlock(content="Hm.")]), r"messages\[0\].blocks\[0\] of type 'thinking'"),
        (ChatMessage("2", role="tool"), r"messages\[0\].tool_call_id=None"),
        (
            ChatMessage([ToolCallBlock(tool_name="")], role="assistant"),
            r"messages\[0\].tool_calls\[0\].function.name='' must be a non-empty string",
        ),
        (
            ChatMessage("Hi", role="assistant", additional_kwargs={"tool_calls": ["add"]}),
            r"messages\[0\].additional_kwargs\['tool_calls'\]\[0\]='add' must be a call",
        ),
    ],
)
def test_messages_that_the_model_cannot_read_are_refused(make_llm: MakeLLM, message: ChatMessage, said: str) -> None:
    with pytest.raises(LLMRequestError, match=said):
        make_llm(["Hi."]).chat([message])


def test_what_is_no_message_is_refused(make_llm: MakeLLM) -> None:
    with pytest.raises(LLMRequestError, match=r"messages=\[\] must be a non-empty list"):
        make_llm(["Hi."]).chat([])
    with pytest.raises(RequestError, match=r"messages\[0\]=.* must be a ChatMessage"):
        as_dicts([{"role": "user", "content": "Hi"}])  # type: ignore[list-item]


# ---- parameters


def test_the_parameters_of_a_call_come_before_the_llms_own(make_llm: MakeLLM) -> None:
    llm = make_llm(["One, two. Three."], max_tokens=4, stop=["."], additional_kwargs={"ignore_eos": True})
    assert llm.chat(HELLO).message.content == "One,"
    assert llm.chat(HELLO, max_tokens=12).message.content == "One, two"
    assert llm.chat(HELLO, max_tokens=12, stop=[]).message.content == "One, two. Th"
    assert llm.complete("Hello", max_tokens=2).text == "On"
    assert llm.complete("Hello", formatted=True, max_tokens=3).text == "One"
    assert llm.chat(HELLO, max_tokens=None).raw["finish_reason"] == "length"


async def test_a_call_may_have_a_constraint(make_llm: MakeLLM) -> None:
    llm = make_llm(["Maybe."])
    assert llm.complete("Yes or no?", constraint=Choice(["yes", "no"])).text in ("yes", "no")
    assert (await llm.achat(HELLO, constraint=Regex("[0-9]{3}"))).message.content.isdecimal()
    assert llm.complete("Hello", formatted=True, constraint=Regex("[0-9]{3}")).text.isdecimal()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": -1}, "temperature=-1"),
        ({"max_tokens": 0}, "max_tokens=0 must be at least 1"),
        ({"additional_kwargs": {"topp": 1}}, "additional_kwargs holds 'topp'"),
        ({"additional_kwargs": {"constraint": None}}, "additional_kwargs holds 'constraint'"),
        ({"temprature": 1}, "temprature"),
        ({"engine_config": EngineConfig()}, "cannot be combined with engine"),
        ({"completion_to_prompt": str.upper}, "completion_to_prompt would have no effect"),
        ({"messages_to_prompt": str}, "messages_to_prompt would have no effect"),
        ({"query_wrapper_prompt": PromptTemplate("{query_str}")}, "query_wrapper_prompt would have no effect"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(
    make_llm: MakeLLM, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        make_llm(["Hi."], **settings)


def test_a_model_or_an_engine_is_needed() -> None:
    with pytest.raises(ValidationError, match="model='' must be the name of a model"):
        MLXAgentLLM()
    with pytest.raises(ModelLoadError, match="no-such-folder"):
        MLXAgentLLM(model="./no-such-folder")


def test_an_engine_is_not_passed_off_as_another_model(make_engine: MakeEngine) -> None:
    with pytest.raises(ValidationError, match="model='other' is not what engine serves: 'llama'"):
        MLXAgentLLM(model="other", engine=make_engine())


def test_options_that_make_no_sense_are_refused_at_once(make_llm: MakeLLM) -> None:
    llm = make_llm(["Hi."])
    with pytest.raises(LLMRequestError, match=r"functions=\[\] is not known here: tools takes them"):
        llm.chat(HELLO, functions=[])
    with pytest.raises(LLMRequestError, match="top_p=2"):
        llm.stream_chat(HELLO, top_p=2)
    with pytest.raises(LLMRequestError, match="unknown option 'tools'"):
        llm.complete("Hello", formatted=True, tools=[])


async def test_a_prompt_that_does_not_fit_the_context_is_refused_and_never_cut(make_llm: MakeLLM) -> None:
    llm = make_llm(["Hi."])
    long = [ChatMessage("x" * 9000)]
    with pytest.raises(LLMRequestError, match="8192") as raised:
        llm.chat(long)
    assert isinstance(raised.value.__cause__, ContextLengthError)
    assert not isinstance(raised.value, ValueError), "LlamaIndex's synthesizers would make it an empty response"
    with pytest.raises(LLMRequestError, match="8192"):
        await llm.achat(long)
    with pytest.raises(LLMRequestError, match="8192"):
        [one async for one in await llm.astream_chat(long)]
    with pytest.raises(RequestTimeout):
        await llm.achat(HELLO, timeout=0)


# ---- concurrency and cancellation


async def test_sixteen_chats_at_once_are_one_batch(make_llm: MakeLLM) -> None:
    def reply(prompt: str) -> str:
        return f"Answer {prompt.split('Question ')[1].split('<')[0]}" + "." * 100

    llm = make_llm(reply, system_prompt="Answer the question with its number, and with nothing beside its number.")
    answers = await asyncio.gather(*(llm.achat([ChatMessage(f"Question {index}")]) for index in range(16)))
    assert [answer.message.content for answer in answers] == [f"Answer {index}" + "." * 100 for index in range(16)]
    stats = llm.engine.stats()  # type: ignore[union-attr]
    assert stats.max_batch_size == 16
    assert sum(answer.raw["usage"]["prompt_tokens_details"]["cached_tokens"] > 60 for answer in answers) >= 15


async def test_the_event_loop_goes_on_while_a_chat_runs(make_llm: MakeLLM) -> None:
    task = asyncio.create_task(make_llm(["x" * 300]).achat(HELLO))
    num_turns = 0
    while not task.done():
        await asyncio.sleep(0.001)
        num_turns += 1
    assert num_turns > 20


@pytest.mark.parametrize("observed", [False, True])
async def test_closing_a_stream_or_cancelling_a_task_frees_its_blocks(make_llm: MakeLLM, observed: bool) -> None:
    """Also with a handler that keeps the exception of the end, and with it the frames that hold the stream."""
    handlers: list[Any] = [LlamaDebugHandler(print_trace_on_end=False)] if observed else []
    llm = make_llm(["x" * 4000], max_tokens=4000, callback_manager=CallbackManager(handlers))
    engine = llm.engine
    assert engine is not None
    streams: tuple[Callable[[], Any], ...] = (
        lambda: llm.stream_chat(HELLO),
        lambda: llm.stream_complete("Hello"),
        lambda: llm.stream_complete("Hello", formatted=True),
    )
    for make_stream in streams:
        stream = make_stream()
        next(stream)
        assert engine.stats().num_used_blocks > 0
        stream.close()
        wait_until_idle(engine)
    astream: AsyncIterator[Any] = await llm.astream_chat(HELLO)
    await anext(astream)
    await astream.aclose()  # type: ignore[attr-defined]
    await asyncio.to_thread(wait_until_idle, engine)
    task = asyncio.create_task(llm.achat(HELLO))
    while not engine.stats().num_used_blocks:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(wait_until_idle, engine)
    assert engine.stats().num_generated_tokens < 2000, "a request went on to its end"


def test_a_stream_that_nobody_reads_is_given_up(make_llm: MakeLLM) -> None:
    llm = make_llm(["x" * 4000], max_tokens=4000)
    llm.stream_chat(HELLO)
    assert llm.engine is not None
    wait_until_idle(llm.engine)


# ---- observers


async def test_tokens_are_counted_once_by_the_engines_own_count(make_llm: MakeLLM) -> None:
    counter = TokenCountingHandler(tokenizer=lambda text: pytest.fail("a count was guessed"))
    llm = make_llm(["Hi there."], callback_manager=CallbackManager([counter]))
    answers = await every_answer(llm, formatted=False)
    assert counter.prompt_llm_token_count == sum(answer.raw["usage"]["prompt_tokens"] for answer in answers)
    assert counter.completion_llm_token_count == 8 * (len("Hi there.") + 1)
    assert len(counter.llm_token_counts) == 8


def test_callbacks_see_start_and_end_of_every_call_and_what_went_wrong(make_llm: MakeLLM) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    llm = make_llm(["Hi."], callback_manager=CallbackManager([debug]))
    llm.chat(HELLO)
    list(llm.stream_complete("Hello"))
    with pytest.raises(LLMRequestError):
        llm.chat(HELLO, top_p=2)
    pairs = debug.get_event_pairs(CBEventType.LLM)
    assert [len(pair) for pair in pairs] == [2, 2, 2]
    assert isinstance(pairs[2][1].payload["exception"], LLMRequestError)


def test_instrumentation_hears_of_model_messages_and_every_chunk(make_llm: MakeLLM) -> None:
    events: list[Any] = []

    class Listener(BaseEventHandler):
        def handle(self, event: Any, **kwargs: Any) -> None:
            events.append(event)

    root = get_dispatcher()
    root.add_event_handler(Listener())
    try:
        responses = list(make_llm(["Hi."], temperature=0.0, max_tokens=9).stream_chat(HELLO))
    finally:
        root.event_handlers.pop()
    names = [type(event).__name__ for event in events]
    assert names == ["LLMChatStartEvent", *["LLMChatInProgressEvent"] * len(responses), "LLMChatEndEvent"]
    assert events[0].model_dict["max_tokens"] == 9 and events[0].model_dict["temperature"] == 0.0
    assert events[0].model_dict["model_name"] == "testing" and events[0].model_dict["context_window"] == 8192
    assert json.loads(json.dumps(events[0].model_dict)) == events[0].model_dict


# ---- settings and shared engines


class Loader:
    """Makes engines of small models instead of loading what is asked for."""

    def __init__(self) -> None:
        self.engines: list[Engine] = []

    def __call__(self, model: str, config: EngineConfig) -> Engine:
        self.engines.append(Engine.from_parts(ScriptedModel([f"I am {model}."]), ByteTokenizer(), config))
        return self.engines[-1]


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loader]:
    loader = Loader()
    monkeypatch.setattr(MLXAgentLLM, "engines", EngineRegistry(loader))
    yield loader
    for engine in loader.engines:
        engine.close()


CONFIG = EngineConfig(kv_cache_tokens=4096)


def test_llms_of_one_model_and_config_share_an_engine_until_the_last_is_closed(loader: Loader) -> None:
    one, two = (MLXAgentLLM(model="m", engine_config=CONFIG) for _ in range(2))
    other = MLXAgentLLM(model="n", engine_config=CONFIG)
    assert len(loader.engines) == 2
    assert one.chat(HELLO).message.content == two.chat(HELLO).message.content == "I am m."
    one.close()
    with pytest.raises(EngineClosedError, match="this MLXAgentLLM of 'm' is closed"):
        one.chat(HELLO)
    assert two.chat(HELLO).message.content == "I am m."
    two.close()
    with pytest.raises(EngineClosedError):
        loader.engines[0].submit("Hi")
    assert other.chat(HELLO).message.content == "I am n."
    other.close()


def test_langchains_chat_models_share_the_same_engines() -> None:
    assert MLXAgentLLM.engines is ChatMLXAgent.engines


def test_settings_survive_pickle_and_json_and_leave_the_llm_as_it_is(loader: Loader) -> None:
    settings = {"temperature": 0.5, "stop": ["x"], "additional_kwargs": {"priority": 3}, "system_prompt": "Be kind."}
    llm = MLXAgentLLM(model="m", engine_config=CONFIG, **settings)
    for copy in (pickle.loads(pickle.dumps(llm)), MLXAgentLLM.from_json(llm.to_json())):
        assert copy.to_dict() == llm.to_dict()
        assert copy.engine_config == CONFIG
        assert copy.chat(HELLO).message.content == "I am m."
    assert len(loader.engines) == 1


def test_an_llm_of_a_given_engine_is_pickled_by_its_name_and_keeps_its_engine(
    loader: Loader, make_llm: MakeLLM
) -> None:
    llm = make_llm(["Hi."], max_tokens=9)
    copy = pickle.loads(pickle.dumps(llm))
    assert llm.engine is not None and llm.chat(HELLO).message.content == "Hi."
    assert (copy.model, copy.max_tokens, copy.engine) == ("testing", 9, None)
    assert copy.chat(HELLO).message.content == "I am test"


def test_tokenize_counts_as_the_model_does(make_llm: MakeLLM) -> None:
    assert make_llm(["Hi."]).tokenize("Grüße") == list("Grüße".encode())


def test_a_real_model_answers_the_same_alone_and_beside_others(make_llm: MakeLLM) -> None:
    llm = make_llm(tiny_model(), max_tokens=12)
    alone = [llm.chat([ChatMessage(f"Say {index}")]).message.content for index in range(4)]

    async def together() -> list[ChatResponse]:
        return await asyncio.gather(*(llm.achat([ChatMessage(f"Say {index}")]) for index in range(4)))

    assert [answer.message.content for answer in asyncio.run(together())] == alone


def test_a_missing_llama_index_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_index.core", None)
    monkeypatch.delitem(sys.modules, "llama_index.llms.mlx_agent")
    with pytest.raises(ImportError, match=r"pip install 'mlx-agent-llm\[llama-index\]'"):
        importlib.import_module("llama_index.llms.mlx_agent")


@pytest.mark.usefixtures("demo")
def test_the_documentation_runs_as_it_stands() -> None:
    page = (Path(__file__).parents[3] / "docs/llama_index.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"Paris.*\nname='.+' country='.+'\n$", done.stdout, re.S)
