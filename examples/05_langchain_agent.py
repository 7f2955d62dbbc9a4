"""A LangChain agent with one tool on the demo model: prints the tool call, its result and the answer."""

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool

from langchain_mlx_agent import ChatMLXAgent


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two integers."""
    return a * b


def example(question: str, a: int, b: int) -> list[AnyMessage]:
    call = {"name": "multiply", "args": {"a": a, "b": b}, "id": f"{a}*{b}"}
    result = ToolMessage(str(a * b), tool_call_id=f"{a}*{b}")
    return [HumanMessage(question), AIMessage("", tool_calls=[call]), result, AIMessage(f"It is {a * b}.")]


def main() -> None:
    # 135M parameters are few: the grammar makes every call valid, two worked examples help it to a sensible one.
    examples = example("What is 12 times 31?", 12, 31) + example("How much is 45 * 8?", 45, 8)
    chat = ChatMLXAgent(model="demo", temperature=0, max_tokens=48)
    agent = create_agent(chat, [multiply], system_prompt="Use the tool to multiply.")
    messages = agent.invoke({"messages": [*examples, HumanMessage("What is 17 times 23?")]})["messages"]
    for message in messages[len(examples) + 1 :]:
        match message:
            case AIMessage(tool_calls=[call, *_]):
                print(f"call:   {call['name']}({call['args']})")
            case ToolMessage():
                print(f"result: {message.text}")
            case AIMessage():
                print(f"answer: {message.text}")
    chat.close()


if __name__ == "__main__":
    main()
