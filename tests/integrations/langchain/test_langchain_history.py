"""Histories as agents, tools and other providers leave them: parts, media, broken calls, answers without ids."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool

from langchain_mlx_agent.messages import as_dicts
from mlx_agent_llm import RequestError
from tests.support.langchain_chats import ADD, add, scripted

PIXEL = "iVBORw0KGgo="


def test_the_parts_of_a_tools_result_and_of_a_question_do_not_run_together() -> None:
    parts: list[Any] = [{"type": "text", "text": text} for text in ("12", "34", "5")]
    call = {"name": "add", "args": {"a": 1, "b": 2}, "id": "c1", "type": "tool_call"}
    asked: list[str] = []

    def reply(prompt: str) -> str:
        asked.append(prompt)
        return "Fine."

    with scripted(reply) as chat:
        chat.invoke([HumanMessage(parts), AIMessage("", tool_calls=[call]), ToolMessage(parts, tool_call_id="c1")])
    assert asked[0].count("12\n34\n5") == 2


def test_an_agent_goes_on_after_an_invalid_call() -> None:
    broken = {"name": "add", "args": '{"a": 1', "id": "b1", "error": "cut off", "type": "invalid_tool_call"}
    history = [HumanMessage("Add."), AIMessage("", invalid_tool_calls=[broken])]
    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        return "It is 3."

    with scripted(reply) as chat:
        agent: Any = create_agent(chat, [add])
        state = agent.invoke({"messages": [*history, ToolMessage("That was no call.", tool_call_id="b1")]})
        state = agent.invoke({"messages": [*state["messages"], HumanMessage("Sure?")]})
    assert state["messages"][-1].text == "It is 3."
    assert '{"name": "add", "arguments": {"a": 1' in prompts[-1] and "That was no call." in prompts[-1]


@pytest.mark.parametrize("call_id", ["", None])
def test_calls_without_ids_are_answered_in_order_also_late(call_id: Any) -> None:
    calls = [{"name": "add", "args": {"a": n, "b": n}, "id": call_id, "type": "tool_call"} for n in (1, 2)]
    answers = [ToolMessage(str(n), tool_call_id="") for n in (2, 4)]
    with scripted(lambda prompt: "Fine.") as chat:
        history = [HumanMessage("Add."), AIMessage("", tool_calls=calls), answers[0], HumanMessage("And?"), answers[1]]
        assert chat.invoke(history).text == "Fine."


def test_no_budget_makes_an_invalid_call_of_a_marker_that_was_begun() -> None:
    with scripted(["Sure thing. " + ADD]) as chat:
        bound = chat.bind_tools([add])
        for budget in range(1, 100, 3):
            message = bound.invoke("Hi", max_tokens=budget)
            assert not message.invalid_tool_calls
            assert bool(message.tool_calls) == (budget > 80)


@pytest.mark.parametrize(
    ("block", "note"),
    [
        ({"type": "image", "base64": PIXEL, "mime_type": "image/png"}, "[image: image/png, 8 bytes]"),
        ({"type": "image", "source_type": "url", "url": "https://x/y.png"}, "[image: https://x/y.png]"),
        ({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}, "[image: image/png, 8 bytes]"),
        ({"type": "audio", "base64": PIXEL, "mime_type": "audio/wav"}, "[audio: audio/wav, 8 bytes]"),
        (
            {"type": "file", "url": "file:///a.pdf", "mime_type": "application/pdf"},
            "[file: application/pdf, file:///a.pdf]",
        ),
        ({"type": "document", "source": {"data": PIXEL, "media_type": "text/csv"}}, "[file: text/csv, 8 bytes]"),
        ({"type": "video", "file_id": "v1"}, "[video: v1]"),
        ({"type": "image"}, "[image]"),
        ({"type": "text-plain", "text": "As it is."}, "As it is."),
    ],
)
def test_media_in_the_result_of_a_tool_is_noted(block: dict[str, Any], note: str) -> None:
    [entry] = as_dicts([ToolMessage(["Look: ", block], tool_call_id="c1")])
    assert entry["content"] == ["Look: ", note]


def test_an_agent_reads_the_result_of_a_tool_that_shows_an_image() -> None:
    @tool
    def snap() -> list[Any]:
        """Take a picture."""
        return [{"type": "image", "base64": PIXEL, "mime_type": "image/png"}]

    with scripted(['<tool_call>{"name": "snap", "arguments": {}}</tool_call>', "A picture."]) as chat:
        agent: Any = create_agent(chat, [snap])
        assert agent.invoke({"messages": [HumanMessage("Look.")]})["messages"][-1].text == "A picture."


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (HumanMessage([{"type": "image", "url": "https://x"}]), r"messages\[0\].content\[0\] of type 'image' must be"),
        (ToolMessage([{"type": "hologram"}], tool_call_id="c1"), r"content\[0\] of type 'hologram' must be"),
    ],
)
def test_what_a_user_shows_and_what_nobody_knows_is_refused(message: Any, problem: str) -> None:
    with pytest.raises(RequestError, match=problem):
        as_dicts([message])


@pytest.mark.parametrize(
    ("history", "problem"),
    [
        (
            [ToolMessage("1", tool_call_id="c9")],
            "tool_call_id='c9' must be the id of a call in an earlier .* What answers no call is a user's message",
        ),
        (
            [
                AIMessage("", tool_calls=[{"name": "add", "args": {}, "id": "c1", "type": "tool_call"}]),
                *[ToolMessage("1", tool_call_id="c1")] * 2,
            ],
            "tool_call_id='c1' is answered a second time: put all of a result into one message",
        ),
        (
            [AIMessage("", tool_calls=[{"name": "", "args": {}, "id": "c1", "type": "tool_call"}])],
            "a call without one is text",
        ),
    ],
)
def test_answers_of_no_call_second_answers_and_calls_without_a_name_are_refused(history: Any, problem: str) -> None:
    with scripted(["Fine."]) as chat, pytest.raises(RequestError, match=problem):
        chat.invoke([HumanMessage("Hi"), *history])
