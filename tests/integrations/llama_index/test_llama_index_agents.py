"""LlamaIndex's agents and workflows run on MLXAgentLLM: tools, hand-offs, objects at the end, many on one engine."""

import asyncio
import json
from typing import Any

import pytest
from llama_index.core.agent.workflow import (
    AgentOutput,
    AgentStream,
    AgentWorkflow,
    FunctionAgent,
    ReActAgent,
    ToolCallResult,
)
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel, Field
from workflows.errors import WorkflowCancelledByUser

from tests.support.engines import MakeLLM

USER = "<|im_start|>user\n"


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def add(a: int, b: int) -> int:
    """Add two integers."""
    return a + b


async def multiply(a: int, b: int) -> int:
    """Multiply two integers."""
    await asyncio.sleep(0)
    return a * b


def calculate(prompt: str) -> str:
    """Call add for the question "A + B?", and then say the result."""
    question = prompt.split(USER)[1].split("<")[0]
    a, b = (int(number) for number in question.rstrip("?").split(" + "))
    return f"It is {a + b}." if "It is" in prompt or prompt.count(call("add", a=a, b=b)) else call("add", a=a, b=b)


async def streamed(handler: Any) -> tuple[AgentOutput, list[Any]]:
    """The output of a run, and the events on the way."""
    events = [event async for event in handler.stream_events()]
    return await handler, events


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_function_agent_calls_its_tool_reads_the_result_and_answers(make_llm: MakeLLM, streaming: bool) -> None:
    llm = make_llm([call("add", a=19, b=23), "It is 42."])
    agent = FunctionAgent(tools=[add], llm=llm, system_prompt="Use the tool.", streaming=streaming)
    output, events = await streamed(agent.run("19 + 23?"))
    assert str(output) == "It is 42."
    [result] = [event for event in events if isinstance(event, ToolCallResult)]
    assert (result.tool_name, result.tool_kwargs, result.tool_output.raw_output) == ("add", {"a": 19, "b": 23}, 42)
    assert output.tool_calls[0].tool_id == result.tool_id
    deltas = [event for event in events if isinstance(event, AgentStream)]
    assert "".join(event.delta for event in deltas) == ("It is 42." if streaming else "")
    assert output.raw["finish_reason"] == "stop"  # type: ignore[index]


async def test_an_agent_runs_parallel_calls_and_sees_every_result(make_llm: MakeLLM) -> None:
    both = call("add", a=1, b=2) + "\n" + call("multiply", a=3, b=4)
    agent = FunctionAgent(tools=[add, multiply], llm=make_llm([both, "3 and 12."]))
    output = await agent.run("Both?")
    results = sorted(
        (one.tool_name, one.tool_output.raw_output) for one in output.tool_calls
    )  # the first to end is first
    assert results == [("add", 3), ("multiply", 12)]
    single = FunctionAgent(tools=[add, multiply], llm=make_llm([both, "3."]), allow_parallel_tool_calls=False)
    assert [one.tool_name for one in (await single.run("Both?")).tool_calls] == ["add"]


async def test_an_agents_first_tool_can_be_chosen(make_llm: MakeLLM) -> None:
    """The model would say something else; the grammar makes it call with arguments of its own choice."""
    llm = make_llm(["No.", "Done."], max_tokens=600, temperature=1.0, seed=4)
    agent = FunctionAgent(tools=[add, multiply], llm=llm, initial_tool_choice="multiply")
    output = await agent.run("Hello")
    assert [one.tool_name for one in output.tool_calls] == ["multiply"]
    assert str(output) == "Done."


async def test_an_agent_without_tools_just_answers(make_llm: MakeLLM) -> None:
    assert str(await FunctionAgent(llm=make_llm(["Hi."])).run("Hello")) == "Hi."


async def test_an_agent_with_a_memory_finds_the_turns_before_in_the_cache(make_llm: MakeLLM) -> None:
    llm = make_llm([call("add", a=1, b=2), "It is 3.", "As I said, 3."])
    agent = FunctionAgent(tools=[add], llm=llm)
    memory = ChatMemoryBuffer.from_defaults(token_limit=4000, tokenizer_fn=llm.tokenize)
    assert str(await agent.run("1 + 2?", memory=memory)) == "It is 3."
    num_before = llm.engine.stats().num_prompt_tokens_computed  # type: ignore[union-attr]
    output = await agent.run("Again?", memory=memory)
    assert str(output) == "As I said, 3."
    roles = [message.role.value for message in memory.get_all()]
    assert roles == ["user", "assistant", "tool", "assistant", "user", "assistant"]
    usage = output.raw["usage"]  # type: ignore[index]
    assert usage["prompt_tokens_details"]["cached_tokens"] > 600
    num_computed = llm.engine.stats().num_prompt_tokens_computed - num_before  # type: ignore[union-attr]
    assert num_computed == usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"] < 80


async def test_a_tool_that_fails_is_told_to_the_model(make_llm: MakeLLM) -> None:
    def divide(a: int, b: int) -> float:
        """Divide."""
        return a / b

    agent = FunctionAgent(tools=[divide], llm=make_llm([call("divide", a=1, b=0), "That cannot be."]))
    output = await agent.run("1 / 0?")
    assert str(output) == "That cannot be."
    assert output.tool_calls[0].tool_output.is_error


class Sum(BaseModel):
    """A sum."""

    result: int = Field(ge=0, le=100)


@pytest.mark.parametrize("kind", [FunctionAgent, ReActAgent])
async def test_an_agent_ends_with_an_object(make_llm: MakeLLM, kind: Any) -> None:
    def reply(prompt: str) -> str:
        if "according to the provided schema" in prompt:
            return '{"result": 42}'
        return "Thought: I can answer. Answer: It is 42." if kind is ReActAgent else "It is 42."

    agent = kind(llm=make_llm(reply), output_cls=Sum)
    output = await agent.run("19 + 23?")
    assert output.structured_response == {"result": 42}
    assert output.get_pydantic_model(Sum) == Sum(result=42)


async def test_an_object_that_cannot_be_enforced_is_none_and_said(
    make_llm: MakeLLM, recwarn: pytest.WarningsRecorder
) -> None:
    class Word(BaseModel):
        text: str = Field(json_schema_extra={"pattern": "(?=a)b"})

    agent = FunctionAgent(llm=make_llm(["Hi."]), output_cls=Word)
    output = await agent.run("Hello")
    assert output.structured_response is None
    [said] = [str(one.message) for one in recwarn if one.category is UserWarning]
    assert "problem with the generation of the structured output" in said and "pattern" in said


async def test_a_react_agent_reasons_in_text(make_llm: MakeLLM) -> None:
    action = 'Thought: I need to add.\nAction: add\nAction Input: {"a": 19, "b": 23}\n'
    answer = "Thought: I can answer without using any more tools.\nAnswer: It is 42."
    agent = ReActAgent(tools=[add], llm=make_llm([action, answer]))
    output, events = await streamed(agent.run("19 + 23?"))
    assert str(output) == "It is 42."
    assert [event.tool_output.raw_output for event in events if isinstance(event, ToolCallResult)] == [42]


def team(llm: Any, **options: Any) -> AgentWorkflow:
    """One agent that calculates and one that writes."""
    calculator = FunctionAgent(
        name="calculator",
        description="Adds.",
        system_prompt="You calculate.",
        tools=[add],
        llm=llm,
        can_handoff_to=["writer"],
    )
    writer = FunctionAgent(name="writer", description="Writes.", system_prompt="You write.", llm=llm, tools=[])
    return AgentWorkflow(agents=[calculator, writer], root_agent="calculator", **options)


def team_reply(prompt: str) -> str:
    if "You write." in prompt:
        return "Forty-two."
    if call("add", a=19, b=23) in prompt:
        return call("handoff", to_agent="writer", reason="written out")
    return call("add", a=19, b=23)


async def test_agents_hand_off_to_each_other(make_llm: MakeLLM) -> None:
    output, events = await streamed(team(make_llm(team_reply)).run("19 + 23, in words?"))
    assert (str(output), output.current_agent_name) == ("Forty-two.", "writer")
    results = [event.tool_name for event in events if isinstance(event, ToolCallResult)]
    assert results == ["add", "handoff"]


async def test_an_agent_workflow_ends_with_an_object(make_llm: MakeLLM) -> None:
    def reply(prompt: str) -> str:
        return '{"result": 42}' if "according to the provided schema" in prompt else team_reply(prompt)

    output = await team(make_llm(reply), output_cls=Sum).run("19 + 23, in words?")
    assert output.structured_response == {"result": 42}


async def test_many_agents_run_at_once_on_one_engine(make_llm: MakeLLM) -> None:
    llm = make_llm(calculate)
    agents = [FunctionAgent(tools=[add], llm=llm, system_prompt="Use the tool to add.") for _ in range(12)]
    outputs = await asyncio.gather(*(agent.run(f"{index} + {index}?") for index, agent in enumerate(agents)))
    assert [str(output) for output in outputs] == [f"It is {2 * index}." for index in range(12)]
    stats = llm.engine.stats()  # type: ignore[union-attr]
    assert stats.max_batch_size >= 10
    assert stats.prefix_hit_rate > 0.8


async def test_tools_that_ask_the_llm_themselves_share_the_engine(make_llm: MakeLLM) -> None:
    def reply(prompt: str) -> str:
        if "German for" in prompt:
            return "Hallo."
        return "It is Hallo." if "Hallo" in prompt else call("translate", text="Hello")

    llm = make_llm(reply)

    async def translate(text: str) -> str:
        """Translate a text."""
        return (await llm.acomplete(f"German for {text}")).text

    agents = [FunctionAgent(tools=[FunctionTool.from_defaults(translate)], llm=llm) for _ in range(4)]
    outputs = await asyncio.gather(*(agent.run("Hello, auf Deutsch?") for agent in agents))
    assert {str(output) for output in outputs} == {"It is Hallo."}


async def test_a_run_that_is_cancelled_frees_its_blocks(make_llm: MakeLLM) -> None:
    llm = make_llm(["x" * 4000], max_tokens=4000)
    engine = llm.engine
    assert engine is not None
    handler = FunctionAgent(llm=llm).run("Hello")
    async for event in handler.stream_events():
        if isinstance(event, AgentStream):
            break
    assert engine.stats().num_used_blocks > 0
    await handler.cancel_run()
    with pytest.raises(WorkflowCancelledByUser):
        await handler
    for _ in range(500):
        await asyncio.sleep(0.01)
        if engine.stats().num_used_blocks == 0:
            break
    assert engine.stats().num_used_blocks == 0
    assert engine.stats().num_generated_tokens < 2000


async def test_chat_history_of_another_llm_is_taken(make_llm: MakeLLM) -> None:
    """Calls in OpenAI's form, as its class leaves them in a memory."""
    asked = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
    history = [
        ChatMessage("1 + 2?"),
        ChatMessage("", role="assistant", additional_kwargs={"tool_calls": [asked]}),
        ChatMessage("3", role="tool", additional_kwargs={"tool_call_id": "call_1", "name": "add"}),
        ChatMessage("It is 3.", role="assistant"),
    ]

    def reply(prompt: str) -> str:
        return "Yes." if '"a": 1' in prompt else "No."

    agent = FunctionAgent(tools=[add], llm=make_llm(reply))
    assert str(await agent.run("Sure?", chat_history=history)) == "Yes."
