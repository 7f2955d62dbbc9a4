"""Patterns as languages, against Python's `re` where both read them alike, and against ECMA-262 where they do not."""

import itertools
import re
import unicodedata
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.languages.regex import parse_regex
from mlx_agent_llm.languages.regular import ANY_TEXT, Literal, literal, repeat
from mlx_agent_llm.languages.regular.char_set import ANY_CHARACTER
from tests.support.search import examples

TEXTS = ["".join(chars) for length in range(5) for chars in itertools.product("ab\n", repeat=length)]

ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", "[^b\\n]", r"\w", r"\n", r"\s", "^", "$", "", "(?:)"])
QUANTIFIERS = st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}", "{2,3}", "*?", "+?", "{0}"])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda options: f"(?:{'|'.join(options)})"),
        st.tuples(inner, QUANTIFIERS).map(lambda pair: f"({pair[0]}){pair[1]}"),
    ),
    max_leaves=8,
)


@settings(max_examples=examples(500))
@given(PATTERNS)
def test_a_pattern_is_found_where_pythons_re_finds_it(pattern: str) -> None:
    # In Python `$` also stands before a last line end; `.` stops at other line ends, which the texts do not have.
    compiled = re.compile(pattern.replace("$", r"\Z"), re.ASCII)
    language = parse_regex(pattern)
    found = {text for text in TEXTS if language.matches(text)}
    assert found == {text for text in TEXTS if compiled.search(text)}


@pytest.mark.parametrize(
    ("pattern", "held", "others"),
    [
        ("b", ["b", "abc", "\nb"], ["", "ac"]),
        ("^a+$", ["a", "aa"], ["", "ba", "ab", "a\n"]),
        ("a|^b$", ["a", "xax", "b"], ["bb", "xb", ""]),
        ("(^a|b)$", ["a", "b", "ab", "cb"], ["ca", "ba"]),
        ("x*^y", ["y", "yx"], ["xy"]),
        ("a$b|c^d|^$", [""], ["ab", "cd", "a"]),
        ("$^|ab", ["", "ab"], ["a", "ba"]),
        ("(^|,)x($|,)", ["x", "a,x", "x,a", "a,x,b"], ["ax", "xa"]),
        ("(?:^a?){2}$", ["a", ""], ["aa"]),
        ("^(?:^a|b){0,2}$", ["", "a", "b", "ab", "bb"], ["abb", "bbb", "ba"]),
        ("^(?:^a|b$|c){2,3}$", ["ab", "cc", "acb", "ccb"], ["a", "ba", "bc", "accb", "aa", "bb"]),
        ("^(?:a|(^|b)$|c)+$", ["", "a", "ab", "acb"], ["ba", "bb"]),
        ("^(a*b*){2,}$", ["", "abab", "ba"], ["c"]),
        (r"^[\w.-]+@\w+\.\w{2,}$", ["a.b-c@d.ef"], ["a@b.c", "@d.ef", "a@b@c.de"]),
        ("", ["", "anything"], []),
    ],
)
def test_anchors_are_exact_wherever_they_stand(pattern: str, held: list[str], others: list[str]) -> None:
    language = parse_regex(pattern)
    assert [text for text in held if not language.matches(text)] == []
    assert [text for text in others if language.matches(text)] == []


def test_a_pattern_between_anchors_is_its_body_and_one_without_is_all_texts() -> None:
    assert parse_regex("^abc$") is literal("abc")
    assert parse_regex(r"^\d{3,2000}$") is repeat(parse_regex("^[0-9]$"), 3, 2000)
    assert parse_regex(r"\Aabc\Z") is parse_regex(r"\Aabc\z") is literal("abc")
    assert parse_regex("") is parse_regex(".*|x") is ANY_TEXT


CLASSES = {
    ".": ("a \t\U0001f600", "\n\r\u2028\u2029"),
    r"\d": ("09", "a٣"),
    r"\D": ("a٣", "09"),
    r"\w": ("azAZ09_", "é-"),
    r"\W": ("é- ", "a_9"),
    r"\s": (" \t\n\v\f\r\u00a0\ufeff\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000", "\x1c\x85\u200b\u180ea"),
    r"\S": ("a\x1c\x85", " \ufeff"),
    "[a-c-]": ("abc-", "d"),
    "[a-a]": ("a", "b-"),
    r"[\ud83d\u0041\u{ffff}]": ("A\uffff", "\ud83d😀"),
    "[-a]": ("a-", "b"),
    r"[\w-.]": ("a-.", "+"),
    r"[a\-z]": ("a-z", "b"),
    "[a^]": ("a^", "b"),
    "[^^]": ("a", "^"),
    r"[\]\\\b]": ("]\\\b", "b"),
    "[(?*.|$]": ("(?*.|$", "a"),
    r"[^\d\s]": ("a", "1 "),
    r"[\x41-\u0043]": ("ABC", "D"),
    r"[\u{1F600}-\u{1F64F}]": ("😀🙏", "\U0001f650"),
    r"[\ud83d\ude00a]": ("😀a", "b"),
    r"\t|\n|\v|\f|\r|\0|\cA|\cj|\x7e|\u00e9|\u{1F600}|\ud83d\ude00": ("\t\n\v\f\r\0\x01\n~é😀", "tAe"),
    r"\.|\*|\/|\-|\"|\@| |\ ": ('.*/-"@ ', "\\"),
    "{|}|]|a{|a{b}|,": ("{}],", "ab"),
    r"\p{Lu}": ("AÉ", "aé1"),
    r"\P{Lu}": ("aé1", "AÉ"),
    r"[\p{Letter}\p{gc=Nd}]": ("aé٣漢", " -"),
    r"\p{ASCII}": ("\x00a\x7f", "\x80"),
    r"\p{LC}": ("aA", "漢"),
    "(?i)[a-c]": ("abcABC", "dD"),
    "(?i)k": ("kK\u212a", "a"),
    "(?i)[^s]": ("a", "sS\u017f"),
    "(?is).": ("a\n", ""),
    "(?s).": ("a\n\u2028", ""),
    "(?<year>a)|(?P<month>b)": ("ab", "c"),
}


@pytest.mark.parametrize("pattern", CLASSES)
def test_a_class_or_an_escape_holds(pattern: str) -> None:
    language = parse_regex(
        f"^({pattern})$" if not pattern.startswith("(?i") and "(?s" not in pattern else f"{pattern}$"
    )
    held, others = CLASSES[pattern]
    assert [char for char in held if not language.matches(char)] == []
    assert [char for char in others if language.matches(char)] == []


@pytest.mark.parametrize("name", ["L", "Lu", "Mn", "Nd", "P", "Zs", "Sc", "Cc", "Cn", "Co"])
def test_categories_are_those_of_unicodedata(name: str) -> None:
    language = parse_regex(rf"^\p{{{name}}}$")
    sample = map(chr, [*range(0x3000), *range(0xE000, 0xE010), *range(0x1F000, 0x1F100)])
    assert [char for char in sample if language.matches(char) != unicodedata.category(char).startswith(name)] == []


def test_lone_surrogates_are_in_no_class() -> None:
    assert parse_regex(r"^[\ud800-\udfff]$").is_empty() and parse_regex(r"\ud83d").is_empty()
    assert parse_regex(r"^[^a]$").derive("\ud800").is_empty()
    spanning = parse_regex(r"^[\u0000-\u{10ffff}]$")
    assert spanning.next_classes()[0] == ANY_CHARACTER


@pytest.mark.parametrize(
    ("pattern", "reason", "position"),
    [
        ("ab(c", "a '(' that is never closed", 2),
        ("ab)c", "a ')' that closes nothing", 2),
        ("a[bc", "a '[' that is never closed", 1),
        ("[b-", "a range that is never closed", 3),
        ("[z-a]", "a range is out of order", 1),
        ("x{3,2}", "the counts are out of order", 1),
        ("x{,2}", "'{,' means different things", 1),
        ("*x", "a quantifier with nothing to repeat", 0),
        ("x|+", "a quantifier with nothing to repeat", 2),
        ("^*", "a quantifier with nothing to repeat", 1),
        ("x**", "a quantifier with nothing to repeat", 2),
        ("x{2}{3}", "a quantifier with nothing to repeat", 4),
        ("x*+", "a possessive quantifier", 2),
        ("a(?=b)", "a lookahead", 2),
        ("a(?!b)", "a lookahead", 2),
        ("a(?<=b)", "a lookbehind", 2),
        ("a(?<!b)", "a lookbehind", 2),
        ("(?>a)", "an atomic group", 1),
        ("(?#a)", "a kind of group", 1),
        ("a(?i)b", "a kind of group", 2),
        (r"(a)\1", "a back-reference", 3),
        (r"(?<n>a)\k<n>", "a back-reference", 7),
        ("(?P<n>a)(?P=n)", "a back-reference", 9),
        (r"a\b", "a word boundary", 1),
        (r"a\Bb", "a word boundary", 1),
        ("a\\", "a '\\' at the end", 1),
        (r"\q", "an escape that ECMA-262 does not know", 0),
        (r"\a", "an escape that ECMA-262 does not know", 0),
        (r"\08", "an escape that ECMA-262 does not know", 0),
        (r"\xg0", "an escape without its hexadecimal digits", 0),
        (r"\u12", "an escape without its hexadecimal digits", 0),
        (r"\u{}", "an escape without its hexadecimal digits", 0),
        (r"\u{1", "an escape without its hexadecimal digits", 0),
        (r"\u{110000}", "a code point beyond U+10FFFF", 0),
        (r"a\p{Greek}", "only general categories", 1),
        (r"\pL", "only general categories", 0),
        (r"\p{Script=Latin}", "only general categories", 0),
        ("[]a]", "']' right after '['", 1),
        ("[^]a]", "']' right after '['", 2),
        ("[[:alpha:]]", "a POSIX class", 1),
        ("(?i)é", "(?i) is supported on characters of ASCII alone", 4),
        ("(" * 51 + ")" * 51, "groups are nested deeper than 50", 50),
        ("(^a){101}", "an anchor is repeated more than 100 times", 4),
    ],
)
def test_what_is_no_pattern_or_not_regular_is_refused_with_its_position(
    pattern: str, reason: str, position: int
) -> None:
    with pytest.raises(ConstraintError) as caught:
        parse_regex(pattern)
    assert reason in str(caught.value) and str(caught.value).endswith(f"(at position {position})")
    assert repr(pattern) in str(caught.value)


@settings(max_examples=examples(500))
@given(st.text(st.sampled_from(r"ab^$.|()[]{}*+?\-,1:<=!dpu"), max_size=12))
def test_any_text_is_a_pattern_or_a_constraint_error(pattern: str) -> None:
    try:
        parse_regex(pattern)
    except ConstraintError:
        return
    with_ends = pattern.replace("$", r"\Z") if r"\$" not in pattern and "[" not in pattern else pattern
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of sets inside sets, which neither has
            re.compile(with_ends)
    except (re.error, OverflowError):
        assert re.search(r"\\p|\\u|\{|\[|\(\?<|\\c", pattern), "Python reads it too, but for ECMA's own forms"


def test_long_patterns_and_deep_groups_are_read() -> None:
    words = [f"word{number}" for number in range(300)]
    assert parse_regex(f"^({'|'.join(words)})$").automaton(600) is not None
    long = parse_regex("^" + "a" * 10_000 + "$")
    assert isinstance(long, Literal) and len(long.text) == 10_000
    assert parse_regex("(" * 50 + "a" + ")" * 50).matches("xax")
    date = parse_regex(r"^(19|20)\d\d-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$")
    automaton = date.automaton(30)
    assert automaton is not None and date.shortest() is not None and date.matches("2024-02-29")
