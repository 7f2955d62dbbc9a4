"""Regex, Grammar and Choice: what they allow, what is wrong with them, and rows of all kinds in one batch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mlx_agent_llm import Choice, ConstraintError, Engine, GenerationError, Grammar, JSONSchema, Regex, SamplingParams
from mlx_agent_llm.constrain.closing.pushdown import Pushdown
from mlx_agent_llm.constrain.grammars import constraint_grammar
from mlx_agent_llm.languages.context_free.ebnf_parser import parse_ebnf
from mlx_agent_llm.request import RequestOutput
from mlx_agent_llm.request.constraints import Constraint
from mlx_agent_llm.testing import RandomLogitsModel
from tests.support.engines import MakeEngine


def accepts(constraint: Constraint, text: str) -> bool:
    return Pushdown(constraint_grammar(constraint)).accepts(text)


@pytest.mark.parametrize(
    ("ebnf", "texts", "others"),
    [
        ('root ::= "a" | "b" "c"', ["a", "bc"], ["", "ac", "b"]),
        ('root ::= ("a" | "b") "c"', ["ac", "bc"], ["a", "c"]),
        ('root ::= "a"* "b"+ "c"?', ["b", "aabbc"], ["a", "bcc"]),
        ('root ::= "x"{2} "y"{1,} "z"{0,2}', ["xxy", "xxyyzz"], ["xy", "xxyzzz"]),
        ("root ::= [a-c_]+ [^a-c\\n] .", ["ab_d\n", "cxy"], ["abcd", "ab\nd"]),
        (r'root ::= "\"\\\n\t\x41\u00e9\U0001F600" [\]\-\\]', ['"\\\n\tAé😀]', '"\\\n\tAé😀-'], ['"\\\n\tAé😀x']),
        ("root ::= [+-] [-9] [a-]", ["+-a", "-9-"], ["+8a"]),
        ('root ::= "" | "(" root ")"', ["", "(())"], ["(", ")("]),
        (
            '# a comment\nroot ::=   # another\n  item\n  ("," item)*\n\nitem-1.x ::= "x"\nitem ::= item-1.x',
            ["x,x"],
            ["xx"],
        ),
        ('a ::= "1"\nroot ::= a\n| a a\nb ::= root', ["1", "11"], ["111"]),
    ],
)
def test_a_grammar_holds_these_texts_and_not_those(ebnf: str, texts: list[str], others: list[str]) -> None:
    assert [text for text in texts if not accepts(Grammar(ebnf), text)] == []
    assert [text for text in others if accepts(Grammar(ebnf), text)] == []


@pytest.mark.parametrize(
    ("ebnf", "message"),
    [
        ('a ::= "x"', "no rule `root`"),
        ('root ::= "x"\n\nroot ::= "y"', "line 3: the rule 'root' is defined twice"),
        ('root ::= a\na ::= "x" |\nb ::= "y"', 'line 3: an empty alternative must be written as ""'),
        ('root ::= "a" nothing\n', "line 1: the rule 'nothing' is not defined"),
        ('root ::= ("a"\n"b"', "line 1: this group is never closed"),
        ('root ::= "a")\n', "line 1: '\\)' closes nothing"),
        ('root ::= "a"\n| * "b"', "line 2: '\\*' repeats nothing"),
        ('root ::= "abc', "line 1: cannot be read from '\"abc'"),
        ("root ::= [a", "line 1: cannot be read"),
        ("root ::= [z-a]", "line 1: .* is no range"),
        ("root ::= []", "line 1: .* holds no character"),
        ('root ::= "\\q"', "line 1: .* is no escape"),
        ('root ::= "\\ud800"', "line 1: .* is no escape"),
        ('root ::= "a"{3,2}', "line 1: .*3 is above 2"),
        ('root ::= "a"{10001}', "line 1: .*counts beyond 10000"),
        ('"a"\nroot ::= "b"', "line 1: expected `name ::=`"),
        ("root ::= " + "(" * 5000 + '"a"' + ")" * 5000, "nested too deeply"),
    ],
)
def test_what_is_wrong_with_a_grammar_is_told_with_its_line(ebnf: str, message: str) -> None:
    with pytest.raises(ConstraintError, match=message):
        parse_ebnf(ebnf)


@pytest.mark.parametrize(
    ("pattern", "texts", "others"),
    [
        ("a|bc", ["a", "bc"], ["ab", "xa", "ac"]),
        ("^a$|b", ["a", "b"], ["ab"]),
        (r"\d{3}-\d{4}", ["555-0199"], ["555-01990", "x555-0199"]),
        ("[^x]*", ["", "abc\n"], ["axb"]),
    ],
)
def test_a_regex_matches_the_whole_text(pattern: str, texts: list[str], others: list[str]) -> None:
    for text in texts + others:
        assert accepts(Regex(pattern), text) == (text in texts) == (re.fullmatch(pattern, text) is not None)


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", r"\bword", "a(", "[z-a]", "a{2,1}"])
def test_a_regex_that_cannot_be_enforced_is_refused_with_its_place(pattern: str) -> None:
    with pytest.raises(ConstraintError, match=r"\d"):
        constraint_grammar(Regex(pattern))


@pytest.mark.parametrize("texts", [[], "yes", ["a", "a"], ["a", ""], ["a", 1], None, {"a", "b"}])
def test_a_choice_needs_distinct_texts_that_are_not_empty(texts: Any) -> None:
    with pytest.raises(ConstraintError, match="texts"):
        Choice(texts)


@pytest.mark.parametrize("make", [Regex, Grammar])
@pytest.mark.parametrize("text", ["", None, 5, b"a", "\ud800"])
def test_a_regex_and_a_grammar_are_texts(make: Any, text: Any) -> None:
    with pytest.raises(ConstraintError):
        make(text)


def test_constraints_of_equal_content_are_equal() -> None:
    assert Choice(["a", "b"]) == Choice(("a", "b")) != Choice(["b", "a"])
    assert Regex("a") == Regex("a") != Grammar("a")
    assert len({Choice(["a"]), Choice(["a"]), Regex("a"), Regex("b")}) == 3


def test_the_example_of_the_docs_runs(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs/constraints.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.setattr(Engine, "load", lambda name: make_engine(RandomLogitsModel()))
    names: dict[str, Any] = {}
    exec(compile(example, "docs/constraints.md", "exec"), names)
    total, date, answer = capsys.readouterr().out.splitlines()
    assert accepts(names["SUMS"], total)
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", date) and answer in ("yes", "no")


LISTS = Grammar('root ::= item\nitem ::= [0-9] | "(" item ("+" item)* ")"')
# A lexer cannot read it: `ab` begins like `a`, and `b` may follow that.
CLASHING = Grammar('root ::= "a" "b" root ")" | "ab" "c" | "x"')
CONSTRAINTS = [
    Choice(["yes", "no", "north"]),
    Regex("[a-f]{2,8}(-[0-9]{1,3})?"),
    LISTS,
    CLASHING,
    JSONSchema({"type": "object", "properties": {"a": {}, "b": {"type": "integer"}}, "required": ["b"]}),
]


def generate(engine: Any, constraints: list[Constraint | None]) -> list[RequestOutput]:
    params = [
        SamplingParams(max_tokens=60, temperature=1.0, seed=seed, constraint=constraint)
        for seed, constraint in enumerate(constraints)
    ]
    outputs: list[RequestOutput] = engine.generate(["prompt"] * len(params), params)
    return outputs


def test_rows_of_both_libraries_and_free_ones_are_one_batch(make_engine: MakeEngine) -> None:
    engine = make_engine(RandomLogitsModel())
    constraints = [*CONSTRAINTS, None, *reversed(CONSTRAINTS), None]
    together = generate(engine, constraints)
    for constraint, output in zip(constraints, together, strict=True):
        assert constraint is None or accepts(constraint, output.text), (constraint, output.text)
    alone = [generate(engine, [None] * i + [constraint])[i] for i, constraint in enumerate(constraints)]
    assert [output.text for output in together] == [output.text for output in alone]


def test_a_matcher_that_breaks_fails_its_own_request_alone(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(RandomLogitsModel())
    constraints = [Regex("[a-f]{30,60}"), LISTS, CLASHING]
    expected = [output.text for output in generate(engine, constraints)]
    broken: Any = engine._constraints.prepare(constraints[0]).compiled.result()
    make_cursor = broken._make_cursor

    def make_poisoned() -> Any:
        cursor = make_cursor()
        cursor._matcher.consume_token(ord("?"))
        return cursor

    monkeypatch.setattr(broken, "_make_cursor", make_poisoned)
    handles = [
        engine.submit("prompt", SamplingParams(max_tokens=60, temperature=1.0, seed=seed, constraint=constraint))
        for seed, constraint in enumerate(constraints)
    ]
    with pytest.raises(GenerationError, match="llguidance"):
        handles[0].result(timeout=60)
    assert [handle.result(timeout=60).text for handle in handles[1:]] == expected[1:]
