"""What users of other LLMs bring along: histories, media, types, settings by other names, interrupts."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock, ToolCallBlock
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel, PastDate, ValidationError

from llama_index.llms.mlx_agent import LLMRequestError, MLXAgentLLM
from mlx_agent_llm import Engine
from mlx_agent_llm.testing import RandomLogitsModel
from tests.support.engines import MakeLLM
from tests.support.pydantic_models import MODELS, assert_is_valid_or_refused
from tests.support.waiting import interrupt_when, wait_until

ASK = [ChatMessage("Hi")]
PROMPT = PromptTemplate("Say something.")


class Node(BaseModel):
    value: int
    kids: list[Node] = []


class Planting(BaseModel):
    node: Node


class Day(BaseModel):
    day: PastDate


def plant(node: Node) -> int:
    """Plant a tree."""
    return node.value


@pytest.fixture(scope="module")
def random_llm() -> Iterator[MLXAgentLLM]:
    from tests.support.langchain_chats import CONFIG

    model = RandomLogitsModel()
    with Engine.from_parts(model, model.tokenizer, CONFIG) as engine:
        yield MLXAgentLLM(engine=engine, temperature=1, max_tokens=500, seed=1)


CALL = ToolCallBlock(tool_call_id="c1", tool_name="plant", tool_kwargs={})


def test_parts_media_and_invalid_calls_of_the_history_reach_the_model(make_llm: MakeLLM) -> None:
    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        return "Fine."

    broken = {"id": "b1", "text": '<tool_call>{"name"', "error": "cut off"}
    image = ImageBlock(image=b"iVBORw0KGgo=", image_mimetype="image/png")
    call = ToolCallBlock(tool_call_id="c1", tool_name="plant", tool_kwargs={})
    history = [
        ChatMessage([TextBlock(text="12"), TextBlock(text="34")]),
        ChatMessage([call], role="assistant", additional_kwargs={"invalid_tool_calls": [broken]}),
        ChatMessage([TextBlock(text="Look:"), image], role="tool", additional_kwargs={"tool_call_id": "c1"}),
        ChatMessage("No such call.", role="tool", additional_kwargs={"tool_call_id": "b1"}),
    ]
    assert make_llm(reply).chat(history).message.content == "Fine."
    for part in ("12\n34", "Look:\n[image: image/png, 8 bytes]", '<tool_call>{"name"', "No such call."):
        assert part in prompts[0]


def test_a_tool_takes_the_calls_of_a_recursive_schema(random_llm: MLXAgentLLM) -> None:
    tool = FunctionTool.from_defaults(plant, fn_schema=Planting)
    for seed in range(4):
        response = random_llm.chat_with_tools([tool], "Plant.", tool_required=True, seed=seed)
        [call] = random_llm.get_tool_calls_from_response(response)
        Node.model_validate(call.tool_kwargs["node"])


@pytest.mark.parametrize("name", list(MODELS)[3::9])
def test_what_pydantic_reads_is_predicted_validly_or_refused_at_once(random_llm: MLXAgentLLM, name: str) -> None:
    check_model(random_llm, name, range(1))


@pytest.mark.long
@pytest.mark.parametrize("name", list(MODELS))
def test_every_kind_of_model_is_predicted_validly_or_refused_at_once(random_llm: MLXAgentLLM, name: str) -> None:
    check_model(random_llm, name, range(6))


def check_model(llm: MLXAgentLLM, name: str, seeds: range) -> None:
    def predict(seed: int) -> BaseModel:
        predicted: BaseModel = llm.structured_predict(MODELS[name], PROMPT, llm_kwargs={"seed": seed})
        return predicted

    assert_is_valid_or_refused(name, predict, seeds, (LLMRequestError,))


def test_a_class_that_no_grammar_enforces_is_checked_afterwards_where_that_is_wanted(make_llm: MakeLLM) -> None:
    reply = '{"day": "2020-02-02"}'
    with pytest.raises(LLMRequestError, match="'PastDate' cannot be enforced"):
        make_llm([reply]).structured_predict(Day, PROMPT)
    assert make_llm([reply], strict=False).structured_predict(Day, PROMPT).day.year == 2020


async def test_objects_grow_in_every_stream(make_llm: MakeLLM) -> None:
    llm = make_llm(['{"value": 1, "kids": [{"value": 2}]}'])
    streams = [
        list(llm.stream_structured_predict(Node, PROMPT)),
        [one async for one in await llm.astream_structured_predict(Node, PROMPT)],
        [one.raw for one in llm.as_structured_llm(Node).stream_chat(ASK)],
        [one.raw async for one in await llm.as_structured_llm(Node).astream_chat(ASK)],
    ]
    for stream in streams:
        assert len(stream) > 3 and stream[-1] == Node(value=1, kids=[Node(value=2)])


def test_settings_by_other_names_are_taken_or_told_of(make_llm: MakeLLM) -> None:
    llm = make_llm(["Hello there."], request_timeout=60.0, num_predict=3, repeat_penalty=1.5, context_window=99)
    assert (llm.timeout, llm.max_tokens, llm.additional_kwargs) == (60.0, 3, {"repetition_penalty": 1.5})
    assert llm.metadata.context_window == 99 and llm.metadata.num_output == 3
    assert llm.chat(ASK).raw["usage"]["completion_tokens"] == 3
    assert llm.chat(ASK, num_predict=2).raw["usage"]["completion_tokens"] == 2
    with pytest.raises(LLMRequestError, match=r"num_ctx=4096 is not known here: EngineConfig\(max_model_len=...\)"):
        llm.chat(ASK, num_ctx=4096)
    with pytest.raises(ValidationError, match="keep_alive='5m' is not known here"):
        make_llm(["Hi."], keep_alive="5m")
    with pytest.raises(ValidationError, match="context_window=0 must be between 1 and the model's"):
        make_llm(["Hi."], context_window=0)
    with pytest.raises(LLMRequestError, match="n=3 must be 1"):
        llm.chat(ASK, n=3)
    with pytest.raises(LLMRequestError, match="reasoning=True needs a chat template that renders otherwise with it"):
        llm.chat(ASK, reasoning=True)
    assert llm.chat(ASK, reasoning=False).message.content == "Hel"
    with pytest.raises(ValidationError, match="max_reasoning_tokens"):
        make_llm(["Hi."], max_reasoning_tokens=-1)
    with pytest.raises(LLMRequestError, match="api_base='x' is not known here: base_url is the address of a server"):
        llm.chat(ASK, api_base="x")


def test_a_format_among_the_settings_is_json_mode_or_refused(make_llm: MakeLLM) -> None:
    assert make_llm(['{"a": 1}'], format="json").chat(ASK).message.content == '{"a": 1}'
    with pytest.raises(ValidationError, match=r"format=.* must be 'json': a schema is a call's response_format"):
        make_llm(["Hi."], format={"type": "object"})


def test_a_call_whose_arguments_another_provider_broke_stays_in_the_history_as_its_text(make_llm: MakeLLM) -> None:
    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        return "Fine."

    block = ToolCallBlock(tool_call_id="c1", tool_name="plant", tool_kwargs='{"root": ')
    openai = {"id": "c2", "type": "function", "function": {"name": "plant", "arguments": "[1]"}}
    history = [
        ChatMessage("Hi"),
        ChatMessage([block], role="assistant", additional_kwargs={"tool_calls": [openai]}),
        ChatMessage("No JSON.", role="tool", additional_kwargs={"tool_call_id": "c1"}),
        ChatMessage("No object.", role="tool", additional_kwargs={"tool_call_id": "c2"}),
    ]
    assert make_llm(reply).chat(history).message.content == "Fine."
    for part in ('"plant", "arguments": {"root": ', '"arguments": [1]', "No JSON.", "No object."):
        assert part in prompts[0]


@pytest.mark.parametrize(
    ("history", "problem"),
    [
        ([ChatMessage("1", role="tool", additional_kwargs={"tool_call_id": "c9"})], "What answers no call is a user's"),
        (
            [
                ChatMessage([CALL], role="assistant"),
                *[ChatMessage("1", role="tool", additional_kwargs={"tool_call_id": "c1"})] * 2,
            ],
            "tool_call_id='c1' is answered a second time: put all of a result into one message",
        ),
        (
            [ChatMessage([ToolCallBlock(tool_call_id="c1", tool_name="", tool_kwargs={})], role="assistant")],
            "name='' must be a non-empty string; a call without one is text",
        ),
    ],
)
def test_answers_of_no_call_second_answers_and_calls_without_a_name_are_refused(
    make_llm: MakeLLM, history: list[ChatMessage], problem: str
) -> None:
    with pytest.raises(LLMRequestError, match=problem):
        make_llm(["Fine."]).chat([ChatMessage("Hi"), *history])


def test_json_mode_is_a_json_object(random_llm: MLXAgentLLM) -> None:
    import json

    assert isinstance(json.loads(random_llm.chat(ASK, json_mode=True).message.content or ""), dict)


def test_log_probabilities_stand_in_every_kind_of_response(make_llm: MakeLLM) -> None:
    llm = make_llm(["Hi."], logprobs=True, top_logprobs=2)
    for response in (llm.chat(ASK), list(llm.stream_chat(ASK))[-1]):
        assert response.logprobs is not None and len(response.logprobs[0]) == 3
        assert "".join(ranked[0].token for ranked in response.logprobs)[:3] == "Hi."


@pytest.mark.parametrize("ask", ["complete", "chat"])
def test_an_interrupted_call_frees_its_blocks_though_its_error_is_kept(make_llm: MakeLLM, ask: str) -> None:
    llm = make_llm(["on and on " * 300], max_tokens=2500)
    engine = llm.engine
    assert engine is not None

    interrupted_at = interrupt_when(lambda: engine.stats().num_running > 0)
    with pytest.raises(KeyboardInterrupt) as kept:
        llm.complete("Go.") if ask == "complete" else llm.chat(ASK)
    wait_until(lambda: engine.stats().num_used_blocks == 0)
    assert time.monotonic() - interrupted_at[0] < 5 and kept.traceback
