"""GPT-OSS: a reply is one message after another, each in a channel; a call is a message to a function."""

from __future__ import annotations

from mlx_agent_llm.chat.reply.calls import JSONArguments, NamedCall
from mlx_agent_llm.chat.reply.channel_reader import MESSAGE, START
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import CallSyntax, Reasoning

_NEXT = f"<|end|>{START}"

# <|channel|>commentary to=functions.f <|constrain|>json<|message|>{...}, ended by the end token <|call|>, or by _NEXT
# and another one
HARMONY = ToolFormat(
    name="harmony",
    signs=("<|channel|>", START),
    reasoning=Reasoning(f"<|channel|>analysis{MESSAGE}", "<|end|>", sign="<|channel|>analysis", bridge=START, gap=0),
    text_begin=f"<|channel|>final{MESSAGE}",
    not_in_text=("<|channel|>", "<|start|>", MESSAGE, "<|end|>", "<|return|>"),
    in_channels=True,
    preamble=(f"<|channel|>commentary{MESSAGE}", _NEXT),
    calls=CallSyntax(
        NamedCall(f" <|constrain|>json{MESSAGE}", JSONArguments(), header_end=MESSAGE),
        marker="<|channel|>commentary to=functions.",
        begin="<|channel|>commentary to=functions.",
        separator=_NEXT,
        others=(
            CallSyntax(  # as the template writes earlier calls
                NamedCall(f"<|channel|>commentary json{MESSAGE}", JSONArguments()),
                begin=" to=functions.",
                separator=_NEXT,
            ),
        ),
    ),
)
