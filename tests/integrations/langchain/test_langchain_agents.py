"""LangChain's agents and LangGraph on one engine: formats, middleware, streams, checkpoints, a supervisor's workers."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware, SummarizationMiddleware
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.prompt_values import StringPromptValue
from langchain_core.runnables import ConfigurableField
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel, Field

from langchain_mlx_agent import ChatMLXAgent
from tests.support.langchain_chats import ADD, Person, add, engine_of, now, scripted
from tests.support.waiting import interrupt_when, wait_until

ANN = '{"name": "Ann", "age": 42, "mood": "good"}'


def asking(text: str) -> Any:
    return {"messages": [HumanMessage(text)]}


def test_an_agent_calls_its_tool_reads_the_result_and_answers() -> None:
    with scripted([ADD, "It is 42."]) as chat:
        messages = create_agent(chat, [add, now]).invoke(asking("What is 19 + 23?"))["messages"]
    assert [type(message) for message in messages] == [HumanMessage, AIMessage, ToolMessage, AIMessage]
    assert [(call["name"], call["args"]) for call in messages[1].tool_calls] == [("add", {"a": 19, "b": 23})]
    assert messages[2].content == "42" and messages[2].tool_call_id == messages[1].tool_calls[0]["id"]
    assert messages[3].content == "It is 42."
    assert messages[1].response_metadata["finish_reason"] == "tool_calls"
    assert messages[3].usage_metadata["input_token_details"]["cache_read"] > 0


@pytest.mark.parametrize(
    ("response_format", "last"),
    [
        (Person, ANN),
        (ProviderStrategy(Person, strict=True), ANN),
        (ToolStrategy(Person), f'<tool_call>{{"name": "Person", "arguments": {ANN}}}</tool_call>'),
    ],
    ids=["by profile", "provider", "tool"],
)
async def test_an_agent_with_a_response_format_may_call_tools_and_then_answers_in_its_form(
    response_format: Any, last: str
) -> None:
    with scripted([ADD, last]) as chat:
        agent: Any = create_agent(chat, [add], response_format=response_format)
        for state in (agent.invoke(asking("Who?")), await agent.ainvoke(asking("Who?"))):
            assert state["structured_response"] == Person(name="Ann", age=42, mood="good")
            assert [call["name"] for call in state["messages"][1].tool_calls] == ["add"]


async def test_an_agent_streams_the_tokens_of_its_model() -> None:
    with scripted([ADD, "It is 42."]) as chat:
        agent: Any = create_agent(chat, [add])
        streamed = list(agent.stream(asking("What is 19 + 23?"), stream_mode="messages"))
        awaited = [item async for item in agent.astream(asking("What is 19 + 23?"), stream_mode="messages")]
    for items in (streamed, awaited):
        chunks = [message for message, _ in items if isinstance(message, AIMessageChunk)]
        assert "".join(chunk.text for chunk in chunks) == "It is 42."
        assert len([chunk for chunk in chunks if chunk.text]) > 3
        assert "".join(piece["args"] or "" for chunk in chunks for piece in chunk.tool_call_chunks) == (
            '{"a": 19, "b": 23}'
        )


def test_middleware_summarizes_when_a_part_of_the_context_is_used() -> None:
    def reply(prompt: str) -> str:
        return "They greeted each other." if "context" in prompt.lower() and "extract" in prompt.lower() else "Fine."

    with scripted(reply) as chat:
        middleware = SummarizationMiddleware(
            chat,
            trigger=("fraction", 0.03),
            keep=("messages", 1),
            token_counter=chat.get_num_tokens_from_messages,
        )
        agent: Any = create_agent(chat, [], middleware=[middleware])
        history = [HumanMessage("Hello. " * 20), AIMessage("Hello."), HumanMessage("How are you? " * 20)]
        messages = agent.invoke({"messages": history})["messages"]
    assert len(messages) == 3 and "They greeted each other." in messages[0].content
    assert messages[-1].content == "Fine."


def test_retries_are_for_what_may_succeed() -> None:
    num_calls = 0

    class Counting(ChatMLXAgent):
        def _request(self, *arguments: Any) -> Any:
            nonlocal num_calls
            num_calls += 1
            return super()._request(*arguments)

    with scripted(["Hi."]) as chat:
        retry = ModelRetryMiddleware(max_retries=3, initial_delay=0, on_failure="error")
        agent: Any = create_agent(Counting(engine=chat.engine), [], middleware=[retry])
        with pytest.raises(ContextOverflowError):
            agent.invoke(asking("x" * 9000))
        assert num_calls == 1
        agent = create_agent(Counting(engine=chat.engine, timeout=0), [], middleware=[retry])
        with pytest.raises(TimeoutError):
            agent.invoke(asking("x"))
        assert num_calls == 1 + 4


async def test_agents_run_at_the_same_time_and_share_what_they_have_in_common() -> None:
    with scripted([ADD, "It is 42. " * 9]) as chat:
        agent: Any = create_agent(chat, [add, now], system_prompt="You add numbers. " * 20)
        states = await asyncio.gather(*(agent.ainvoke(asking(f"What is {number} + 23?")) for number in range(12)))
        stats = engine_of(chat).stats()
    assert all(state["messages"][-1].content == "It is 42. " * 9 for state in states)
    assert stats.max_batch_size >= 8
    assert stats.peak_shared_blocks >= 20 and stats.prefix_hit_rate > 0.8


async def test_a_supervisors_workers_run_at_the_same_time() -> None:
    def ask(name: str) -> str:
        return f'<tool_call>{{"name": "ask", "arguments": {{"worker": "{name}"}}}}</tool_call>'

    def reply(prompt: str) -> str:
        if "You supervise." in prompt:
            return "Both have answered." if "I am" in prompt else ask("left") + "\n" + ask("right")
        return f"I am {'left' if 'You are left.' in prompt else 'right'}. " * 20

    with scripted(reply) as chat:
        workers: dict[str, Any] = {
            name: create_agent(chat, [], system_prompt=f"You are {name}.") for name in ("left", "right")
        }

        @tool
        async def ask_worker(worker: str) -> str:
            """Ask a worker."""
            state = await workers[worker].ainvoke(asking("Who are you?"))
            return str(state["messages"][-1].content)

        ask_worker.name = "ask"
        supervisor: Any = create_agent(chat, [ask_worker], system_prompt="You supervise.")
        messages = (await supervisor.ainvoke(asking("Ask both.")))["messages"]
        assert engine_of(chat).stats().max_batch_size == 2
    assert [message.content[:9] for message in messages if isinstance(message, ToolMessage)] == [
        "I am left",
        "I am righ",
    ]
    assert messages[-1].content == "Both have answered."


async def test_a_checkpoint_resumes_a_conversation_whose_prefix_is_still_there() -> None:
    saver, thread = InMemorySaver(), {"configurable": {"thread_id": "1"}}
    with scripted(["One. " * 10, "Two."]) as chat:

        def agent() -> Any:
            return create_agent(chat, [add], system_prompt="Be brief. " * 20, checkpointer=saver)

        first = (await agent().ainvoke(asking("First?"), thread))["messages"][-1]
        messages = (await agent().ainvoke(asking("Second?"), thread))["messages"]
    assert [message.content for message in messages] == ["First?", "One. " * 10, "Second?", "Two."]
    usage = messages[-1].usage_metadata
    written = first.usage_metadata["input_tokens"] + first.usage_metadata["output_tokens"]
    assert written - 16 <= usage["input_token_details"]["cache_read"] < usage["input_tokens"]


def test_a_model_may_be_configured_at_run_time() -> None:
    with scripted(["one two three"]) as chat:
        flexible: Any = chat.configurable_fields(max_tokens=ConfigurableField(id="length"))
        assert flexible.invoke("Hi").content == "one two three"
        assert flexible.with_config(configurable={"length": 3}).invoke("Hi").content == "one"


@pytest.mark.parametrize("ask", ["batch", "generate_prompt", "invoke", "structured"])
def test_an_interrupt_ends_every_request_at_once(ask: str) -> None:
    with scripted(lambda prompt: "on and on " * 400, max_tokens=3500) as chat:
        engine = engine_of(chat)
        num_requests = 1 if ask == "invoke" else 4
        calls: dict[str, Any] = {
            "batch": lambda: chat.batch(["Hi"] * 4),
            "generate_prompt": lambda: chat.generate_prompt([StringPromptValue(text="Hi")] * 4),
            "invoke": lambda: chat.invoke("Hi"),
            "structured": lambda: chat.with_structured_output(Long).batch(["Hi"] * 4),
        }
        interrupted_at = interrupt_when(lambda: engine.stats().num_running == num_requests)
        with pytest.raises(KeyboardInterrupt) as kept:
            calls[ask]()
        wait_until(lambda: engine.stats().num_used_blocks == 0)
        assert time.monotonic() - interrupted_at[0] < 5 and kept.traceback


class Long(BaseModel):
    text: Annotated[str, Field(min_length=3000)]
