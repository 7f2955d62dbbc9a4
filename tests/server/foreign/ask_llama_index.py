"""What LlamaIndex's OpenAILike makes of a server's answers, as one JSON object on standard output."""

import asyncio
import json
import sys

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def add(a: int, b: int) -> int:
    """Add two integers."""
    return a + b


llm = OpenAILike(
    model="default",
    api_base=f"{sys.argv[1]}/v1",
    api_key="none",
    context_window=4096,
    max_tokens=200,
    is_chat_model=True,
    is_function_calling_model=True,
    should_use_structured_outputs=True,
)
question = "What is 19 + 23?"
tool = FunctionTool.from_defaults(add)


async def agent() -> str:
    """The answer of an agent that calls the tool."""
    return str(await FunctionAgent(llm=llm, tools=[tool]).run(question))


called = llm.chat_with_tools([tool], user_msg=question)
said = {
    "chat": llm.chat([ChatMessage("Hi")]).message.content,
    "stream": [piece.delta for piece in llm.stream_chat([ChatMessage("Hi")])],
    "complete": llm.complete("Hi").text,
    "call": llm.get_tool_calls_from_response(called)[0].tool_kwargs,
    "required": llm.get_tool_calls_from_response(llm.chat_with_tools([tool], user_msg=question, tool_required=True))[
        0
    ].tool_name,
    "agent": asyncio.run(agent()),
    "object": llm.structured_predict(Person, PromptTemplate("Who?")).model_dump(),
    "usage": llm.chat([ChatMessage("Hi")]).raw.usage.completion_tokens,
}
said["stream"] = "".join(said["stream"])
print(json.dumps(said))
