"""The tables of docs/guarantee.md: run this file to write them anew; a test holds the page to them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from textwrap import fill

from mlx_agent_llm.constrain.schema import schema_grammar
from mlx_agent_llm.errors import ConstraintError, UnsupportedSchemaError
from mlx_agent_llm.request.schema_dialect import FORMATS
from tests.support.json_schema_suite import DRAFTS, load_cases, load_remotes
from tests.support.schema_corpora import CORPORA, compile_schema

PAGE = Path(__file__).parents[2] / "docs" / "guarantee.md"
EXACT = "enforced"
REWRITTEN = "rewritten"

# How each keyword is kept, and what of it is refused. Keywords of one line are alike.
KEYWORDS: list[tuple[str, str, str, str]] = [
    ("type const enum", EXACT, "constants of any depth", "more than 2,000 numbers"),
    (
        "minimum maximum exclusiveMinimum exclusiveMaximum",
        EXACT,
        "as digits",
        "numbers that a double cannot tell apart near the bound",
    ),
    (
        "multipleOf",
        EXACT,
        "as digits",
        "divisors that no double holds, like 0.01, of more than 1,000 multiples; integers above about a thousand",
    ),
    ("minLength maxLength", EXACT, "counted in characters", ""),
    ("pattern", EXACT, "as a regular language", "lookaround, back-references, word boundaries"),
    ("format", EXACT, "the formats below; others are annotations", ""),
    ("prefixItems items additionalItems minItems maxItems", EXACT, "", "counts above 10,000"),
    ("contains minContains maxContains", REWRITTEN, "a rule for every count", "more than 1,100 cases"),
    (
        "uniqueItems",
        REWRITTEN,
        "by what the array holds so far, where each item has one text; beside `contains` by a rule for every set",
        "items of open objects, of any type or nested arrays of this kind; ten values beside `contains`",
    ),
    ("properties required additionalProperties", EXACT, "", "2,500 names or more in one object"),
    ("patternProperties propertyNames", EXACT, "disjoint languages of names", "more than 16 overlaps of patterns"),
    (
        "minProperties maxProperties",
        EXACT,
        "a rule for every count",
        "a minimum that two or more names beside the declared ones would have to reach",
    ),
    ("$ref", EXACT, "pointers, anchors and $id within the schema and `documents`", "circles without a value"),
    ("$dynamicRef $recursiveRef", EXACT, "where its name is unique", "where it depends on the references before it"),
    ("allOf", REWRITTEN, "one type", "more than 2,000 cases"),
    ("anyOf", EXACT, "", "more than 2,000 cases"),
    ("nullable discriminator", REWRITTEN, "OpenAPI's, where no dialect is named; the property is written", ""),
    ("oneOf", REWRITTEN, "anyOf of branches, each without those it overlaps with", "more than 2,000 cases"),
    ("not", REWRITTEN, "the complement", "complements of many constants; of uniqueItems over many values"),
    ("if then else", REWRITTEN, "`if` and `then`, or not `if` and `else`", "more than 2,000 cases"),
    (
        "dependentRequired dependentSchemas dependencies",
        REWRITTEN,
        "by presence of the property",
        "more than 2,000 cases",
    ),
    (
        "unevaluatedItems unevaluatedProperties",
        REWRITTEN,
        "by the branches that are taken",
        "more than 200 ways to be valid",
    ),
]


def keyword_table() -> str:
    """Return the table of keywords; the last columns count the suite's schemas that are accepted."""
    counts = {draft: accepted_by_file(draft) for draft in DRAFTS}
    names_of_drafts = " | ".join(draft.removeprefix("draft") for draft in DRAFTS)
    head = f"| keyword | kept | how | refused | {names_of_drafts} |\n|---|---|---|---|{'---|' * len(DRAFTS)}"
    rows = []
    for names, kept, how, refused in KEYWORDS:
        sums = [_sum(counts[draft], names.split()) for draft in DRAFTS]
        rows.append(f"| {', '.join(names.split())} | {kept} | {how} | {refused} | {' | '.join(sums)} |")
    totals = [f"{sum(a for a, _ in each.values())} of {sum(b for _, b in each.values())}" for each in counts.values()]
    rows.append(f"| all files of the suite | | | | {' | '.join(totals)} |")
    return "\n".join([head, *rows])


def corpora_table() -> str:
    """The table of real schemas: how many are compiled, and which are refused for what."""
    rows = ["| schemas | compiled | refused, and for what |", "|---|---|---|"]
    for corpus, load in CORPORA.items():
        refused, count = [], 0
        for named in load():
            count += 1
            try:
                compile_schema(named)
            except UnsupportedSchemaError as error:
                refused.append(f"{named.name.rpartition('.')[2]} ({error.keyword}: {error.reason})")
            except ConstraintError as error:
                refused.append(f"{named.name.rpartition('.')[2]} ({error})")
        rows.append(f"| {corpus} | {count - len(refused)} of {count} | {'; '.join(refused)} |")
    return "\n".join(rows)


def format_list() -> str:
    """Return the formats that are enforced."""
    return fill(", ".join(f"`{name}`" for name in sorted(FORMATS)), 120, break_on_hyphens=False)


def accepted_by_file(draft: str) -> dict[str, tuple[int, int]]:
    """Return, for each file of the suite, how many schemas are accepted, or rightly found to allow nothing; of all."""
    accepted: Counter[str] = Counter()
    number: Counter[str] = Counter()
    documents = load_remotes(draft)
    for case in load_cases(draft):
        number[case.keyword] += 1
        try:
            schema_grammar(case.schema, documents=documents)
            accepted[case.keyword] += 1
        except UnsupportedSchemaError:
            pass
        except ConstraintError:
            accepted[case.keyword] += not case.valid
    return {name: (accepted[name], number[name]) for name in number}


def _sum(counts: dict[str, tuple[int, int]], names: list[str]) -> str:
    files = {"if": "if-then-else", "$ref": "ref", "$dynamicRef": "dynamicRef", "$recursiveRef": "recursiveRef"}
    found = [counts[files.get(name, name)] for name in names if files.get(name, name) in counts]
    return f"{sum(a for a, _ in found)} of {sum(b for _, b in found)}" if found else ""


def replace_section(page: str, name: str, text: str) -> str:
    """Return the page with the text between the marks of this name."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    head, rest = page.split(begin)
    return f"{head}{begin}\n{text}\n{end}{rest.split(end)[1]}"


def updated(page: str) -> str:
    """Return the page with all tables as they are now."""
    return replace_section(replace_section(page, "keywords", keyword_table()), "formats", format_list())


if __name__ == "__main__":
    PAGE.write_text(replace_section(updated(PAGE.read_text()), "corpora", corpora_table()))
