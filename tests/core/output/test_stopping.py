from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_agent_llm.core.output.detokenizer import Detokenizer
from mlx_agent_llm.core.output.stopping import Stopping, TextStop
from mlx_agent_llm.errors import GenerationError
from mlx_agent_llm.request import Delta, Matcher, Request, SamplingParams
from tests.support.search import examples

END = 256
BYTES = [bytes([byte]) for byte in range(256)] + [b""]


def cut(data: bytes, borders: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(border % (len(data) + 1) for border in borders), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def split_text(text: str, borders: Sequence[int]) -> list[str]:
    edges = [0, *sorted(border % (len(text) + 1) for border in borders), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


def first_stop(text: str, stop: Sequence[str]) -> str | None:
    """The text before the stop string that is complete first, read character by character."""
    for end in range(len(text) + 1):
        found = [end - len(one) for one in stop if text[:end].endswith(one)]
        if found:
            return text[: min(found)]
    return None


BORDERS = st.lists(st.integers(0, 1000), max_size=12)
STOPS = st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3)


@settings(max_examples=examples(1000))
@given(st.text("abc", max_size=30), STOPS, BORDERS)
def test_the_shown_text_ends_before_the_first_stop_string_however_it_is_split(
    text: str, stop: list[str], borders: list[int]
) -> None:
    finder, shown, is_stopped = TextStop(stop), "", False
    for piece in split_text(text, borders):
        safe, is_stopped = finder.feed(piece)
        shown += safe
        assert not any(one in shown for one in stop)
        if is_stopped:
            break
    expected = first_stop(text, stop)
    assert is_stopped == (expected is not None)
    assert shown + ("" if is_stopped else finder.finish()[0]) == (text if expected is None else expected)


@settings(max_examples=examples(500))
@given(st.text("abc", max_size=30), STOPS, BORDERS)
def test_no_more_is_held_back_than_could_begin_a_stop_string(text: str, stop: list[str], borders: list[int]) -> None:
    finder, seen, shown = TextStop(stop), "", ""
    for piece in split_text(text, borders):
        safe, is_stopped = finder.feed(piece)
        if is_stopped:
            return
        seen, shown = seen + piece, shown + safe
        held = seen.removeprefix(shown)
        assert shown + held == seen
        assert not held or any(one.startswith(held) and one != held for one in stop)


@settings(max_examples=examples(500))
@given(st.one_of(st.binary(max_size=40), st.text(max_size=20).map(str.encode)), BORDERS)
def test_the_pieces_of_a_text_add_up_to_what_decoding_at_once_gives(data: bytes, borders: list[int]) -> None:
    pieces = cut(data, borders)
    detokenizer = Detokenizer(pieces)
    shown = [detokenizer.add(index) for index in range(len(pieces))]
    assert "".join(shown) + detokenizer.finish() == data.decode(errors="replace")


@settings(max_examples=examples(300))
@given(st.text(min_size=1, max_size=20), BORDERS)
def test_no_piece_shows_half_a_character(text: str, borders: list[int]) -> None:
    pieces = cut(text.encode(), borders)
    detokenizer, shown = Detokenizer(pieces), ""
    for index in range(len(pieces)):
        shown += detokenizer.add(index)
        assert text.startswith(shown)
    assert shown == text


def test_one_leading_space_is_stripped_and_only_at_the_start() -> None:
    detokenizer = Detokenizer([b"", b"  a", b" b"], strip_leading_space=True)
    assert [detokenizer.add(token) for token in (0, 1, 2)] == ["", " a", " b"]


def test_token_ids_beyond_the_tokenizers_add_no_text() -> None:
    assert Detokenizer([b"a"]).add(1) == ""


def test_two_requests_may_be_in_the_middle_of_a_character_at_once() -> None:
    first, second = Detokenizer(BYTES), Detokenizer(BYTES)
    euro = "€".encode()
    assert [first.add(euro[0]), second.add(euro[0]), first.add(euro[1]), first.add(euro[2])] == ["", "", "", "€"]


class OnlyMatcher:
    """Allows one text, byte by byte."""

    def __init__(self, text: bytes) -> None:
        self._left = list(text)

    def accept(self, token_id: int) -> bool:
        return bool(self._left) and self._left.pop(0) == token_id

    def fill_mask(self, mask: npt.NDArray[np.int32], row: int) -> None:
        raise NotImplementedError

    def rollback(self, num_tokens: int) -> None:
        raise NotImplementedError

    def jump_forward(self) -> bytes:
        raise NotImplementedError

    @property
    def is_finished(self) -> bool:
        return not self._left


def feed(
    tokens: Sequence[int], params: SamplingParams, *, max_num_tokens: int | None = None, matcher: Matcher | None = None
) -> list[Delta]:
    """The deltas of a request with a prompt of two tokens, until it ends."""
    stopping = Stopping(BYTES, [END], strip_leading_space=False)
    request = Request(7, [1, 2], params, 0, lambda delta: None, matcher)
    request.max_num_tokens = max_num_tokens or request.max_num_tokens
    deltas: list[Delta] = []
    for token in tokens:
        deltas.append(stopping.advance(request, token))
        if deltas[-1].finish_reason is not None:
            assert request.is_finished
            assert not stopping._outputs, "the text of an ended request is kept"
            break
    return deltas


def outcome(deltas: Sequence[Delta]) -> tuple[str, int, str | None]:
    return (
        "".join(delta.text for delta in deltas),
        sum(len(delta.token_ids) for delta in deltas),
        deltas[-1].finish_reason,
    )


@pytest.mark.parametrize(
    ("tokens", "params", "expected"),
    [
        (b"abc\x00", SamplingParams(max_tokens=3), ("abc", 3, "length")),
        ([*b"ab", END, *b"c"], SamplingParams(), ("ab", 3, "stop")),
        ([*b"ab", END, *b"c"], SamplingParams(ignore_eos=True, max_tokens=4), ("abc", 4, "length")),
        (b"abcd", SamplingParams(stop_token_ids=(ord("c"),)), ("ab", 3, "stop")),
        ([*b"a", END, *b"bcd"], SamplingParams(stop_token_ids=(ord("c"),), ignore_eos=True), ("ab", 4, "stop")),
        (b"hello END more", SamplingParams(stop=("END",)), ("hello ", 9, "stop")),
        (b"hello EN", SamplingParams(stop=("END",), max_tokens=8), ("hello EN", 8, "length")),
        ([*b"hello EN", END], SamplingParams(stop=("END",)), ("hello EN", 9, "stop")),
        (b"abcdef", SamplingParams(stop=("ef", "cd")), ("ab", 4, "stop")),
        (b"aaab", SamplingParams(stop=("aab",)), ("a", 4, "stop")),
        ("x€y".encode(), SamplingParams(stop=("€",)), ("x", 4, "stop")),
        ("x€".encode()[:3], SamplingParams(max_tokens=3), ("x\ufffd", 3, "length")),
        ([*"x€".encode()[:3], END], SamplingParams(stop=("\ufffd",)), ("x", 4, "stop")),
    ],
)
def test_an_output_ends_where_its_parameters_say(
    tokens: Sequence[int], params: SamplingParams, expected: tuple[str, int, str]
) -> None:
    assert outcome(feed(list(tokens), params)) == expected


def test_an_output_ends_when_the_request_has_as_many_tokens_as_it_may_have() -> None:
    assert outcome(feed(b"abcdef", SamplingParams(), max_num_tokens=6)) == ("abcd", 4, "length")


def test_an_output_ends_as_soon_as_its_grammar_allows_nothing_more() -> None:
    assert outcome(feed(b"{}xx", SamplingParams(), matcher=OnlyMatcher(b"{}"))) == ("{}", 2, "stop")


def test_a_token_that_the_grammar_rejects_is_an_error_and_no_text() -> None:
    with pytest.raises(GenerationError, match="request 7: the grammar rejected sampled token 120"):
        feed(b"{x", SamplingParams(), matcher=OnlyMatcher(b"{}"))


def test_a_stop_string_does_not_switch_the_end_tokens_off() -> None:
    assert outcome(feed([*b"ab", END], SamplingParams(stop=("zz",)))) == ("ab", 3, "stop")


@settings(max_examples=examples(300))
@given(st.lists(st.integers(0, 256), min_size=1, max_size=40), STOPS, st.integers(1, 30))
def test_the_text_of_a_request_is_the_text_of_its_tokens_up_to_the_stop(
    tokens: list[int], stop: list[str], max_tokens: int
) -> None:
    deltas = feed(tokens, SamplingParams(stop=tuple(stop), max_tokens=max_tokens))
    text, num_tokens, reason = outcome(deltas)
    taken = [token for delta in deltas for token in delta.token_ids]
    assert taken == tokens[:num_tokens]
    everything = b"".join(BYTES[token] for token in taken).decode(errors="replace")
    if reason is None:  # the tokens ran out before anything ended the output
        assert everything.startswith(text)
    else:
        expected = first_stop(everything, stop)
        assert text == (everything if expected is None else expected)
    assert all(delta.usage is None for delta in deltas[:-1])
