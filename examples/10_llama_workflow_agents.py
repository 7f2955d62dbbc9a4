"""A desk that multiplies or hands off to a guide, asked three questions at once: prints the calls and the answers."""

import asyncio

from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock

from llama_index.llms.mlx_agent import MLXAgentLLM


def multiply(a: int, b: int) -> int:
    """Multiply two integers."""
    return a * b


def example(question: str, answer: str, tool: str, told: str, arguments: dict[str, object]) -> list[ChatMessage]:
    call = ToolCallBlock(tool_call_id=question, tool_name=tool, tool_kwargs=arguments)
    result = ChatMessage(told, role="tool", additional_kwargs={"tool_call_id": question})
    return [ChatMessage(question), ChatMessage([call], role="assistant"), result, ChatMessage(answer, role="assistant")]


async def answer(llm: MLXAgentLLM, question: str) -> None:
    # 135M parameters are few: the grammar makes every call valid, worked examples help it to a sensible one.
    geography = {"to_agent": "guide", "reason": "geography"}
    history = example("What is 12 times 31?", "12 times 31 is 372.", "multiply", "372", {"a": 12, "b": 31})
    history += example("What is the capital of Spain?", "It is Madrid.", "handoff", "guide: geography", geography)
    history += example("What is 45 times 8?", "45 times 8 is 360.", "multiply", "360", {"a": 45, "b": 8})
    history += example("What is the capital of Japan?", "It is Tokyo.", "handoff", "guide: geography", geography)
    desk = FunctionAgent(name="desk", description="Multiplies.", tools=[multiply], llm=llm, initial_tool_choice="any")
    guide = FunctionAgent(name="guide", description="Knows geography.", llm=llm, can_handoff_to=[])
    team = AgentWorkflow([desk, guide], root_agent="desk", handoff_output_prompt="{to_agent}: {reason}")
    output = await team.run(question, chat_history=history)
    calls = ", ".join(f"{call.tool_name}({call.tool_kwargs}) -> {call.tool_output}" for call in output.tool_calls)
    print(f"{question} {calls}; {output.current_agent_name} says: {output}")


async def main() -> None:
    llm = MLXAgentLLM(model="demo", temperature=0, max_tokens=48)
    questions = ("What is 17 times 23?", "What is the capital of Italy?", "What is 21 times 6?")
    await asyncio.gather(*(answer(llm, question) for question in questions))
    llm.close()


if __name__ == "__main__":
    asyncio.run(main())
