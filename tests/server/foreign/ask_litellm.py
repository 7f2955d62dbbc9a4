"""What LiteLLM makes of a server's answers, as one JSON object on standard output."""

import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from pydantic import BaseModel

litellm.suppress_debug_info = True  # it goes to standard output
URL = sys.argv[1]
PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {**PARAMETERS, "required": ["a", "b"]}}}
QUESTION = [{"role": "user", "content": "What is 19 + 23?"}]


class Person(BaseModel):
    name: str
    age: int


def ask(provider: str, base: str) -> dict[str, object]:
    """The answers by one of the APIs."""
    options = {"model": f"{provider}/default", "api_base": base, "api_key": "none", "max_tokens": 200}
    first = litellm.completion(messages=QUESTION, tools=[TOOL], **options)
    call = first.choices[0].message.tool_calls[0]
    turns = [*QUESTION, first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "42"}]
    second = litellm.completion(messages=turns, tools=[TOOL], **options)
    hello = [{"role": "user", "content": "Hi"}]
    chunks = list(litellm.completion(messages=hello, stream=True, stream_options={"include_usage": True}, **options))
    streamed = litellm.stream_chunk_builder(chunks)
    calls = litellm.stream_chunk_builder(
        list(litellm.completion(messages=QUESTION, tools=[TOOL], stream=True, **options))
    )
    return {
        "call": json.loads(call.function.arguments),
        "answer": second.choices[0].message.content,
        "stream": streamed.choices[0].message.content,
        "usage": streamed.usage.completion_tokens,
        "streamed call": json.loads(calls.choices[0].message.tool_calls[0].function.arguments),
        "error": error_of(options),
    }


def error_of(options: dict[str, object]) -> str:
    """The class of the error of a model that there is not."""
    try:
        litellm.completion(
            messages=QUESTION, **{**options, "model": str(options["model"]).replace("default", "nobody")}
        )
    except Exception as error:
        return type(error).__name__
    return ""


openai = {"model": "openai/default", "api_base": f"{URL}/v1", "api_key": "none"}
parsed = litellm.completion(messages=[{"role": "user", "content": "Who?"}], response_format=Person, **openai)
said = {
    "openai": ask("openai", f"{URL}/v1"),
    "anthropic": ask("anthropic", URL),
    "parsed": json.loads(parsed.choices[0].message.content),
    "responses": litellm.responses(input="Hi", **openai).output[0].content[0].text,
    "completions": litellm.text_completion(
        prompt="Hi", max_tokens=3, **{**openai, "model": "text-completion-openai/default"}
    )
    .choices[0]
    .text,
}
print(json.dumps(said))
