"""The table of real templates in docs/tool_formats.md: `python -m tests.support.template_table` writes it anew."""

from __future__ import annotations

from pathlib import Path

from mlx_agent_llm.chat.found_format import found_format
from tests.support.chat_templates import template_names, tokenizer_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "tool_formats.md"
BEGIN, END = "<!-- real templates: begin -->\n", "<!-- real templates: end -->\n"
_HEAD = (
    "| template | format | from | tools | calls | two calls | text beside | results | system | reasoning | switch |\n"
)


def table() -> str:
    """The table, a row a template."""
    columns = _HEAD.count("|") - 1
    return _HEAD + "|" + columns * "---|" + "\n" + "".join(map(_row, template_names()))


def documented() -> str:
    """The table as the document has it."""
    return DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]


def _row(name: str) -> str:
    tool_format, source, can, warning = found_format(tokenizer_of(name))
    marks = tool_format.reasoning
    cells = [
        name,
        f"`{tool_format.name}`",
        source + (" (!)" if warning else ""),
        _mark(can.tools),
        can.calls or "text",
        _mark(can.two_calls),
        can.beside or "no",
        _mark(can.results),
        "first" if can.system and not can.later_systems else _mark(can.system),
        "no" if marks is None else f"`{marks.begin}`".replace("|", "\\|"),
        f"`{can.switch}`" if can.switch else "no",
    ]
    return f"| {' | '.join(cells)} |\n"


def _mark(value: bool) -> str:
    return "yes" if value else "no"


if __name__ == "__main__":
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    DOCUMENT.write_text(before + BEGIN + table() + END + rest.partition(END)[2])
    print(table())
