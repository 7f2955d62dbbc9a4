"""What ChatMLXAgent takes and says about itself: parameters, messages, identity, errors, shared engines."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelRateLimitError,
    ModelTimeoutError,
    OutputParserException,
)
from langchain_core.load import dumpd
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    trim_messages,
)
from pydantic import BaseModel, ValidationError, field_validator

from langchain_mlx_agent import ChatMLXAgent, EngineRegistry
from langchain_mlx_agent.errors import langchain_errors
from langchain_mlx_agent.messages import as_dicts
from mlx_agent_llm import (
    CapacityError,
    ContextLengthError,
    Engine,
    EngineClosedError,
    EngineConfig,
    GenerationError,
    JSONSchema,
    MLXAgentError,
    ModelLoadError,
    QueueFullError,
    RequestError,
    RequestTimeout,
    ToolChoiceError,
    UnsupportedModelError,
    UnsupportedSchemaError,
)
from mlx_agent_llm.engine.registry import EngineHolder
from mlx_agent_llm.testing import ByteTokenizer, RandomLogitsModel, ScriptedModel
from tests.support.langchain_chats import CONFIG, add, engine_of, merged, scripted


def test_a_calls_stop_replaces_the_models_own_and_an_empty_one_means_none() -> None:
    stop_as: dict[str, Any] = {"stop_sequences": ["one"]}
    with scripted(["one two three"], stop=["two"]) as chat:
        assert chat.invoke("Hi").content == "one "
        assert chat.invoke("Hi", stop=["three"]).content == "one two "
        assert chat.invoke("Hi", stop=[]).content == "one two three"
        assert ChatMLXAgent(engine=chat.engine, **stop_as).invoke("Hi").content == ""


def test_the_parameters_of_a_call_come_before_the_models_own() -> None:
    with scripted(["one two three"], max_tokens=3) as chat:
        assert chat.invoke("Hi").content == "one"
        assert chat.invoke("Hi", max_tokens=5).content == "one t"
        with pytest.raises(RequestError, match="temperature=-1 must be"):
            chat.invoke("Hi", temperature=-1)
        with pytest.raises(RequestTimeout):
            ChatMLXAgent(engine=chat.engine, timeout=0).invoke("Hi")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"temperature": float("nan")}, "temperature=nan must be"),
        ({"max_tokens": 0}, "max_tokens=0 must be at least 1"),
        ({"stop": [""]}, "stop="),
        ({"n": 0}, "n=0 must be at least 1"),
        ({"top_logprobs": 2}, "top_logprobs=2 needs logprobs=True"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs=21 must be an integer between 0 and 20"),
        ({"model_kwargs": {"logprobs": 2}}, "model_kwargs holds 'logprobs'; known: .*ignore_eos, .*stop_token_ids"),
        ({"model": "other"}, "model='other' is not what engine serves"),
        ({"engine_config": CONFIG}, "engine_config .* cannot be combined with engine"),
    ],
)
def test_bad_parameters_are_refused_at_once(random_engine: Engine, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ChatMLXAgent(engine=random_engine, **parameters)


def test_a_model_or_an_engine_is_needed_and_unknown_parameters_are_told() -> None:
    with pytest.raises(ValidationError, match="model='' must be"):
        ChatMLXAgent(temperature=0)
    parameters: dict[str, Any] = {"model_name": "demo", "tempreature": 1, "num_ctx": 4096}
    with pytest.warns(UserWarning) as told:
        chat = ChatMLXAgent(**parameters)
    assert chat.model == chat.model_name == "demo"
    assert [str(warning.message) for warning in told] == [
        "ChatMLXAgent has no parameter 'num_ctx', which has no effect: "
        "EngineConfig(max_model_len=...) bounds the context, which is the model's own by default",
        "ChatMLXAgent has no parameter 'tempreature', which has no effect",
    ]
    with pytest.warns(UserWarning, match="no parameter 'format', which has no effect: a call takes it, and bind"):
        ChatMLXAgent(model="demo", format="json")


def test_parameters_that_mean_the_same_elsewhere_are_taken_by_their_names_there(random_engine: Engine) -> None:
    theirs: Any = {"num_predict": 3, "repeat_penalty": 1.5}
    chat = ChatMLXAgent(engine=random_engine, **theirs)
    assert chat.max_tokens == 3 and chat.model_kwargs == {"repetition_penalty": 1.5}
    assert chat.invoke("Hi").response_metadata["eval_count"] == 3
    assert chat.invoke("Hi", num_predict=2).response_metadata["eval_count"] == 2
    whole = chat.invoke("Hi", format="json", max_tokens=400, temperature=1)
    assert isinstance(whole.additional_kwargs["parsed"], dict)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_ctx": 4096}, r"num_ctx=4096 is not known here: EngineConfig\(max_model_len=...\)"),
        ({"keep_alive": "5m"}, "keep_alive='5m' is not known here: an engine stays loaded until .* close"),
        ({"num_predict": 3, "max_tokens": 4}, "mean the same: give one of them"),
        ({"temperature": float("nan")}, "temperature=nan must be"),
        ({"prediction": "x"}, "prediction='x' is not known here: draft_text is a text that the answer may quote"),
        ({"function_call": "add"}, "function_call='add' is not known here: tool_choice takes the name"),
        ({"think": True}, "reasoning=True needs a chat template"),
        ({"reasoning": True}, "reasoning=True needs a chat template that renders otherwise with it"),
        ({"reasoning": "low"}, "reasoning='low' needs a chat template with levels"),
    ],
)
def test_options_of_other_providers_are_named_with_what_to_write_instead(
    random_engine: Engine, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        ChatMLXAgent(engine=random_engine).invoke("Hi", **options)


def test_reasoning_turned_off_is_nothing_to_a_model_without_a_switch(random_engine: Engine) -> None:
    assert ChatMLXAgent(engine=random_engine, reasoning=False, max_tokens=2).invoke("Hi").text


def test_a_model_that_is_not_loaded_yet_says_how_long_its_context_is() -> None:
    assert ChatMLXAgent(model="demo").profile["max_input_tokens"] == 8191
    assert ChatMLXAgent(model="demo", engine_config=EngineConfig(max_model_len=99)).profile["max_input_tokens"] == 98
    assert "max_input_tokens" not in ChatMLXAgent(model="nobody/has-this").profile


class Bare(BaseModel):
    text: str


class Picky(BaseModel):
    text: str

    @field_validator("text")
    @classmethod
    def refuse(cls, text: str) -> str:
        raise ValueError("never")


def test_a_format_that_is_a_class_is_parsed_into_it(random_engine: Engine) -> None:
    chat = ChatMLXAgent(engine=random_engine, temperature=1, max_tokens=200)
    whole = chat.invoke("Hi", response_format=Bare)
    assert whole.additional_kwargs["parsed"] == Bare.model_validate_json(whole.text)
    streamed = merged(list(chat.bind_tools([add], response_format=Bare, tool_choice="none").stream("Hi")))
    assert isinstance(streamed.additional_kwargs["parsed"], Bare)
    with pytest.raises(OutputParserException, match="the answer is no Picky"):
        chat.invoke("Hi", response_format=Picky)


def test_usage_is_in_the_last_chunk_unless_it_is_not_wanted(random_engine: Engine) -> None:
    chat = ChatMLXAgent(engine=random_engine, max_tokens=3)
    assert [chunk.usage_metadata is not None for chunk in chat.stream("Hi")][-1]
    assert not any(chunk.usage_metadata for chunk in chat.stream("Hi", stream_usage=False))


def test_all_that_generate_counts_is_in_its_output(random_engine: Engine) -> None:
    chat = ChatMLXAgent(engine=random_engine, max_tokens=3)
    result = chat.generate([[HumanMessage("Hi")], [HumanMessage("Ho")]])
    messages = [one[0].message for one in result.generations]
    usage = [message.response_metadata["token_usage"] for message in messages]
    total = {name: usage[0][name] + usage[1][name] for name in usage[0]}
    assert result.llm_output == {"token_usage": total, "model_name": chat.model}
    metadata = messages[0].response_metadata
    assert metadata["eval_count"] == 3 and metadata["total_duration"] >= metadata["prompt_eval_duration"] > 0
    assert {"created_at", "load_duration", "queue_duration", "eval_duration", "prompt_eval_count"} <= metadata.keys()


def test_answers_are_cached_by_everything_that_they_depend_on() -> None:
    cache = InMemoryCache()
    with scripted(["one two three"]) as chat:
        models = [ChatMLXAgent(engine=chat.engine, cache=cache, stop=[stop]) for stop in ("two", "three")]
        assert [model.invoke("Hi").content for model in models] == ["one ", "one two "]
        num_steps = engine_of(chat).stats().num_steps
        assert models[0].invoke("Hi").content == "one " and engine_of(chat).stats().num_steps == num_steps
        assert models[0].invoke("Hi", stop=["three"]).content == "one two "


def test_identity_profile_and_tracing_name_the_model() -> None:
    with scripted(["Hi."], temperature=0.5, stop=["x"]) as chat:
        assert chat._llm_type == "mlx-agent" and chat._identifying_params["temperature"] == 0.5
        params = chat._get_ls_params(max_tokens=7)
        assert params["ls_model_name"] == chat.model and params["ls_temperature"] == 0.5
        assert params["ls_stop"] == ["x"] and params["ls_max_tokens"] == 7
        assert chat.profile is not None and chat.profile["structured_output"]
        assert chat.profile["max_input_tokens"] == engine_of(chat).max_model_len - 1
        assert chat.get_num_tokens("wörld") == 6 and chat.get_token_ids("ab") == [97, 98]
        plain = chat.get_num_tokens_from_messages([HumanMessage("Hi")])
        assert chat.get_num_tokens_from_messages([HumanMessage("Hi")], tools=[add]) > plain + 50


def test_messages_of_every_kind_become_what_the_engine_takes() -> None:
    call = {"name": "add", "args": {"a": 1}, "id": "c1", "type": "tool_call"}
    assert as_dicts(
        [
            SystemMessage("Be brief."),
            HumanMessage([{"type": "text", "text": "a"}, "b"], name="Ann"),
            AIMessage([{"type": "thinking", "thinking": "?"}, {"type": "tool_use", "id": "c1"}], tool_calls=[call]),
            ToolMessage("2", tool_call_id="c1"),
            ChatMessage(content="Hm.", role="developer"),
        ]
    ) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": ["a", "b"], "name": "Ann"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "?",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
        {"role": "developer", "content": "Hm."},
    ]


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        (
            [HumanMessage([{"type": "image_url", "image_url": {"url": "x"}}])],
            r"messages\[0\].content\[0\] of type 'image_url'",
        ),
        ([HumanMessage([{"type": "text", "text": None}])], r"messages\[0\].content\[0\] of type 'text' must be"),
        (
            [HumanMessage("a"), AIMessage([{"type": "tool_use", "id": "c9"}])],
            r"messages\[1\].content\[0\] of type 'tool_use'",
        ),
        ([FunctionMessage(content="a", name="f")], r"messages\[0\] of type 'function' must be"),
        ([ToolMessage("2", tool_call_id="c1")], r"messages\[0\].tool_call_id='c1' must be the id of a call"),
        ([ChatMessage(content="a", role="robot")], r"messages\[0\].role='robot' must be one of"),
        ([], "messages="),
    ],
)
def test_messages_that_the_model_cannot_read_are_refused(
    random_engine: Engine, messages: list[BaseMessage], error: str
) -> None:
    with pytest.raises(RequestError, match=error):
        ChatMLXAgent(engine=random_engine).invoke(messages)


@pytest.mark.parametrize(
    ("ours", "theirs", "is_retryable"),
    [
        (ContextLengthError("x"), ContextOverflowError, False),
        (ToolChoiceError("x"), ModelInvalidRequestError, False),
        (UnsupportedSchemaError("/a", "not", "x"), ModelInvalidRequestError, False),
        (CapacityError("x"), ModelError, False),
        (QueueFullError("x"), ModelRateLimitError, True),
        (RequestTimeout("x"), ModelTimeoutError, True),
        (GenerationError("x"), ModelAPIError, True),
        (UnsupportedModelError("x"), ModelNotFoundError, False),
        (EngineClosedError("x"), ModelError, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_error_is_ours_and_langchains_and_says_whether_to_try_again(
    ours: MLXAgentError, theirs: type[ModelError], is_retryable: bool
) -> None:
    with pytest.raises(theirs) as caught, langchain_errors(), langchain_errors():
        raise ours
    both = caught.value
    assert isinstance(both, type(ours)) and type(both).__name__ == type(ours).__name__
    assert str(both) == str(ours) and vars(both) == vars(ours) and both.__cause__ is ours
    assert both.is_retryable is is_retryable


async def test_every_way_to_ask_raises_langchains_errors(random_engine: Engine) -> None:
    chat = ChatMLXAgent(engine=random_engine)
    ways: list[Callable[[Any], Any]] = [
        chat.invoke,
        lambda messages: list(chat.stream(messages)),
        lambda messages: chat.generate([messages]),
        chat.ainvoke,
        lambda messages: anext(chat.astream(messages)),
    ]
    refused: list[tuple[list[BaseMessage], type[ModelError], str]] = [
        ([HumanMessage("x" * 9000)], ContextOverflowError, "max_model_len=8192"),
        ([], ModelInvalidRequestError, "messages="),
        ([ToolMessage("2", tool_call_id="c1")], ModelInvalidRequestError, "tool_call_id='c1' must be the id"),
    ]
    for way in ways:
        for messages, kind, said in refused:
            with pytest.raises(kind, match=said):
                answer = way(messages)
                assert asyncio.iscoroutine(answer) or isinstance(answer, Awaitable)
                await answer


def test_a_schema_that_cannot_be_enforced_is_refused_with_pointer_and_keyword(random_engine: Engine) -> None:
    chat = ChatMLXAgent(engine=random_engine)
    schema = {"title": "P", "type": "object", "properties": {"x": {"$ref": "https://example.com/x.json"}}}
    for method in METHODS:
        with pytest.raises(ModelInvalidRequestError, match="ref") as caught:
            chat.with_structured_output(schema, method=method).invoke("Hi")
        assert isinstance(caught.value, RequestError)


METHODS: tuple[Literal["json_schema", "function_calling"], ...] = ("json_schema", "function_calling")


def test_a_constraint_may_be_given_instead_of_a_format(random_engine: Engine) -> None:
    chat = ChatMLXAgent(engine=random_engine, temperature=1)
    assert chat.invoke("Hi", constraint=JSONSchema({"enum": ["left", "right"]})).content in ('"left"', '"right"')
    fixed = ChatMLXAgent(engine=random_engine, model_kwargs={"constraint": JSONSchema({"const": 7})})
    assert fixed.invoke("Hi").content == "7"
    assert fixed._identifying_params != chat._identifying_params


CALL = AIMessage("", tool_calls=[{"name": "add", "args": {"a": 1, "b": 2}, "id": "c1", "type": "tool_call"}])
TURNS: list[BaseMessage] = [
    SystemMessage("Be brief."),
    HumanMessage("1 + 2?"),
    CALL,
    ToolMessage("3", tool_call_id="c1"),
    AIMessage("It is 3."),
    HumanMessage("Why?"),
]


def test_any_part_of_a_conversation_can_be_counted_in_any_order() -> None:
    with scripted(["Hi."]) as chat:
        whole = chat.get_num_tokens_from_messages(TURNS)
        assert chat.invoke(TURNS[:2]).usage_metadata["input_tokens"] == chat.get_num_tokens_from_messages(TURNS[:2])  # type: ignore[index]
        assert chat.get_num_tokens_from_messages(TURNS[::-1]) == pytest.approx(whole, abs=40)
        counts = [chat.get_num_tokens_from_messages(TURNS[index:]) for index in range(len(TURNS) + 1)]
        assert counts == sorted(counts, reverse=True)
        kept = trim_messages(
            TURNS, max_tokens=whole - 1, token_counter=chat, include_system=True, start_on="human", strategy="last"
        )
        assert kept == [TURNS[0], TURNS[-1]]
        assert trim_messages(TURNS, max_tokens=whole, token_counter=chat) == TURNS


def test_where_the_template_refuses_an_order_every_message_counts_as_a_turn() -> None:
    class Strict(ByteTokenizer):
        def apply_chat_template(self, messages: Any, **options: Any) -> str:
            if [message["role"] for message in messages][-1] != "user":
                raise RequestError("the last turn must be the user's")
            return super().apply_chat_template(messages, **options)

    with Engine.from_parts(RandomLogitsModel(), Strict(), CONFIG) as engine:
        chat = ChatMLXAgent(engine=engine)
        with pytest.raises(ModelInvalidRequestError, match="the last turn must be the user's"):
            chat.invoke(TURNS[1:5])
        each = [chat.get_num_tokens_from_messages([HumanMessage(turn.text)]) for turn in (TURNS[3], TURNS[4])]
        assert chat.get_num_tokens_from_messages(TURNS[3:5]) == sum(each)


def test_a_chat_model_survives_being_written_down() -> None:
    chat = ChatMLXAgent(model="demo", engine_config=CONFIG, temperature=0.5, stop=["x"], model_kwargs={"priority": 2})
    copies = [
        ChatMLXAgent.model_validate(chat.model_dump()),
        ChatMLXAgent.model_validate_json(chat.model_dump_json()),
        pickle.loads(pickle.dumps(chat)),
        chat.model_copy(deep=True),
    ]
    for copy in copies:
        assert copy._identifying_params == chat._identifying_params and copy.engine_config == CONFIG
    assert not chat.is_lc_serializable() and dumpd(chat)["type"] == "not_implemented"


class CountingLoader:
    """Makes engines of scripted models, slowly enough for two threads to ask at the same time."""

    def __init__(self) -> None:
        self.engines: list[Engine] = []

    def __call__(self, model: str, config: EngineConfig) -> Engine:
        time.sleep(0.1)
        if model == "missing":
            raise ModelLoadError(f"model={model!r} is not there")
        scripted_model = ScriptedModel(["Hi."])
        self.engines.append(Engine.from_parts(scripted_model, scripted_model.tokenizer, config))
        return self.engines[-1]


def test_chat_models_share_an_engine_by_model_and_config_until_the_last_one_is_closed() -> None:
    load = CountingLoader()

    class Chat(ChatMLXAgent):
        engines = EngineRegistry(load)

    one, two = (Chat(model="m", engine_config=CONFIG) for _ in range(2))
    other = Chat(model="m", engine_config=EngineConfig(kv_cache_tokens=4096, device="cpu"))
    assert load.engines == []  # nothing is loaded before it is needed
    threads = [threading.Thread(target=chat.invoke, args=["Hi"]) for chat in (one, two, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(load.engines) == 2
    one.close()
    assert two.invoke("Hi").content == "Hi." and len(load.engines) == 2
    assert one.invoke("Hi", model="n").response_metadata["model_name"] == "n" and len(load.engines) == 3
    for chat in (one, two, other):
        chat.close()
        chat.close()
    for engine in load.engines:
        with pytest.raises(EngineClosedError):
            engine.submit("Hi")


def test_a_holder_that_is_gone_keeps_no_engine_open_and_a_failed_load_is_tried_again() -> None:
    load = CountingLoader()
    registry, stays = EngineRegistry(load), EngineHolder()
    assert registry.acquire(EngineHolder(), "m", CONFIG) is registry.acquire(stays, "m", CONFIG)
    registry.release(stays)
    with pytest.raises(EngineClosedError):
        load.engines[0].submit("Hi")
    for _ in range(2):
        with pytest.raises(ModelLoadError, match="model='missing' is not there"):
            registry.acquire(stays, "missing", CONFIG)
    registry.release(stays)


def test_the_profile_knows_the_context_as_soon_as_the_engine_is_there() -> None:
    class Chat(ChatMLXAgent):
        engines = EngineRegistry(CountingLoader())

    unloaded = Chat(model="m", engine_config=CONFIG)
    assert unloaded.profile is not None and "max_input_tokens" not in unloaded.profile
    with Chat(model="m", engine_config=CONFIG, profile={"max_output_tokens": 9}) as chat:
        assert chat.profile is not None
        assert (chat.profile["max_input_tokens"], chat.profile["max_output_tokens"]) == (8191, 9)
        assert Chat(model="m", engine_config=CONFIG).profile == unloaded.open().profile
        unloaded.close()
        engine = chat.engines.find("m", CONFIG)
        assert engine is not None
    with pytest.raises(EngineClosedError):
        engine.submit("Hi")
    assert Chat.engines.find("m", CONFIG) is None


async def test_an_engine_that_is_loading_does_not_stop_the_event_loop() -> None:
    is_loading, loop_goes_on = threading.Event(), threading.Event()

    def load(model: str, config: EngineConfig) -> Engine:
        is_loading.set()
        assert loop_goes_on.wait(5)
        return CountingLoader()(model, config)

    class Chat(ChatMLXAgent):
        engines = EngineRegistry(load)

    chat = Chat(model="m", engine_config=CONFIG)
    answer = asyncio.create_task(chat.ainvoke("Hi"))
    while not is_loading.is_set():
        await asyncio.sleep(0.001)
    loop_goes_on.set()
    assert (await answer).content == "Hi."
    chat.close()
