"""FunctionGemma and Gemma 4: calls in braces, texts between two marks that nothing escapes."""

from __future__ import annotations

from mlx_agent_llm.chat.reply.arguments.literal_arguments import BracedArguments, Literals
from mlx_agent_llm.chat.reply.calls import NamedCall
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import CallSyntax, Reasoning


def _calls(begin: str, quote: str, end: str) -> CallSyntax:
    values = Literals((quote,), has_escapes=False, keys_are_quoted=False, separator=",", colon=":")
    body = NamedCall("", BracedArguments(values))
    return CallSyntax(body, marker=begin, begin=f"{begin}call:", end=end, closing=end)


# <start_function_call>call:f{k:<escape>v<escape>,n:1}<end_function_call>
FUNCTIONGEMMA = ToolFormat(
    name="functiongemma",
    signs=("<start_function_call>",),
    reasoning=None,
    calls=_calls("<start_function_call>", "<escape>", "<end_function_call>"),
)

# <|tool_call>call:f{k:<|"|>v<|"|>,n:1}<tool_call|>
GEMMA4 = ToolFormat(
    name="gemma4",
    signs=("<|tool_call>",),
    reasoning=Reasoning("<|channel>thought", "<channel|>", sign="<|channel>"),
    calls=_calls("<|tool_call>", '<|"|>', "<tool_call|>"),
)
