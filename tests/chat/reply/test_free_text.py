"""Which text of a reply a stop text may end: none of its reasoning, its calls and the marks around them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_agent_llm.chat import TOOL_FORMATS
from mlx_agent_llm.chat.reply.free_text import ReplyText
from mlx_agent_llm.constrain.reasoning import Thinking
from mlx_agent_llm.core.output.stopping import TextStop
from mlx_agent_llm.request import TextPiece
from tests.support.search import examples

CALL = '<tool_call>\n{"name": "f", "arguments": {"x": "a"}}\n</tool_call>'
BORDERS = st.lists(st.integers(0, 1000), max_size=12)


def split_text(text: str, borders: list[int]) -> list[str]:
    edges = [0, *sorted(border % (len(text) + 1) for border in borders), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


def joined(pieces: list[TextPiece]) -> list[tuple[str, bool]]:
    """The pieces, with neighbours of one kind in one."""
    whole: list[tuple[str, bool]] = []
    for text, is_free in pieces:
        if whole and whole[-1][1] == is_free:
            whole[-1] = (whole[-1][0] + text, is_free)
        elif text:
            whole.append((text, is_free))
    return whole


def read(name: str, thinking: Thinking, *texts: str, may_call: bool = True) -> list[tuple[str, bool]]:
    reader = ReplyText(TOOL_FORMATS[name], thinking, may_call=may_call)
    return joined([piece for text in texts for piece in reader.feed(text)] + list(reader.finish()))


HEAD = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>"
REPLIES: list[tuple[str, Thinking, list[tuple[str, bool]]]] = [
    ("qwen3", "none", [("Let me <tool see.\n", True), (CALL + "\n" + CALL, False)]),
    ("qwen3", "auto", [("\n<think>a < b</think>", False), ("\n\nSo <tool", True)]),
    ("qwen3", "open", [("a < b</think>", False), ("So. ", True), (CALL, False)]),
    ("qwen3", "auto", [("  Not <think>a</think>", True)]),
    ("llama3_json", "none", [('{"name": "f", "parameters": {}}', False)]),
    ("llama3_json", "none", [('{"name"; no call <|python_tag|>', True)]),
    ("command_r", "none", [("<|START_RESPONSE|>", False), ("Hi", True), ("<|END_RESPONSE|>", False)]),
    ("command_r", "none", [("<|START_ACTION|>[<|START_RESPONSE|>", False)]),
    (
        "harmony",
        "auto",
        [
            ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary<|message|>", False),
            ("Now.", True),
            ("<|end|><|start|>assistant" + HEAD + "{}", False),
        ],
    ),
    ("harmony", "auto", [("<|channel|>final<|message|>", False), ("Yes", True)]),
    ("harmony", "auto", [("No channel", True)]),
]


@pytest.mark.parametrize(("name", "thinking", "expected"), REPLIES)
def test_free_text_is_told_from_the_rest(name: str, thinking: Thinking, expected: list[tuple[str, bool]]) -> None:
    assert read(name, thinking, "".join(text for text, _ in expected)) == expected


@settings(max_examples=examples(100))
@given(st.sampled_from(REPLIES), BORDERS)
def test_any_split_of_a_reply_gives_the_same(
    reply: tuple[str, Thinking, list[tuple[str, bool]]], borders: list[int]
) -> None:
    name, thinking, expected = reply
    assert read(name, thinking, *split_text("".join(text for text, _ in expected), borders)) == expected


def test_a_reply_that_must_not_call_is_text() -> None:
    assert read("qwen3", "none", "a " + CALL, may_call=False) == [("a " + CALL, True)]


def stopped(stop: list[str], text: str, borders: list[int]) -> tuple[str, str | None]:
    finder = TextStop(stop, ReplyText(TOOL_FORMATS["qwen3"], "auto", may_call=True))
    shown = ""
    for piece in split_text(text, borders):
        safe, is_stopped = finder.feed(piece)
        shown += safe
        if is_stopped:
            return shown, finder.found
    return shown + finder.finish()[0], finder.found


@settings(max_examples=examples(200))
@given(
    st.sampled_from(
        [
            (["<", "tool", "a", '"}', "\n"], f"So.{CALL}", f"So.{CALL}", None),
            (["<tool"], f"So <tool.{CALL}", "So ", "<tool"),
            (["<tool"], "So <tool", "So ", "<tool"),
            ([".<"], f"So.{CALL}", f"So.{CALL}", None),
            (["o."], f"<think>o.</think>No.{CALL}", "<think>o.</think>N", "o."),
            (["x>y"], "<think></thinkx>y</think>y", "<think></thinkx>y</think>y", None),
        ]
    ),
    BORDERS,
)
def test_a_stop_text_counts_where_all_of_it_is_free_text(
    case: tuple[list[str], str, str, str | None], borders: list[int]
) -> None:
    stop, text, shown, found = case
    assert stopped(stop, text, borders) == (shown, found)
