"""DeepSeek V3 and R1, and the shorter form of V3.1: calls in a section, each between its own marks."""

from __future__ import annotations

from mlx_agent_llm.chat.reply.calls import JSONArguments, NamedCall
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import CallSyntax

SECTION_BEGIN, SECTION_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
BEGIN, SEPARATOR, END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"

# <section><call>function<sep>f\n```json\n{...}\n```<end>\n<call>...</section>
DEEPSEEK_V3 = ToolFormat(
    name="deepseek_v3",
    signs=(SECTION_BEGIN, "```json"),
    calls=CallSyntax(
        NamedCall("\n```json\n", JSONArguments()),
        marker=SECTION_BEGIN,
        section_begin=SECTION_BEGIN,
        begin=f"{BEGIN}function{SEPARATOR}",
        end=f"\n```{END}",
        separator="\n",
        section_end=SECTION_END,
        closing=END,
    ),
)

# <section><call>f<sep>{...}<end><call>...</section>
DEEPSEEK_V31 = ToolFormat(
    name="deepseek_v31",
    signs=(SECTION_BEGIN,),
    calls=CallSyntax(
        NamedCall(SEPARATOR, JSONArguments()),
        marker=SECTION_BEGIN,
        section_begin=SECTION_BEGIN,
        begin=BEGIN,
        end=END,
        section_end=SECTION_END,
        closing=END,
    ),
)
