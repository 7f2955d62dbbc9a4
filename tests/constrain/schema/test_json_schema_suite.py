"""The JSON-Schema-Test-Suite: no accepted schema lets an invalid instance be written, and valid ones can be."""

from __future__ import annotations

from functools import cache

import pytest

from mlx_agent_llm.constrain.closing.pushdown import Pushdown
from mlx_agent_llm.constrain.schema import schema_rules
from mlx_agent_llm.errors import ConstraintError, RequestError, UnsupportedSchemaError
from mlx_agent_llm.languages.context_free import ContextFreeGrammar
from tests.support.json_schema_suite import DRAFTS, Case, load_cases, load_remotes, texts_of

CASES = [case for draft in DRAFTS for case in load_cases(draft)]
NAMES = [f"{case.draft}-{case.keyword}-{case.description}" for case in CASES]
MOST_REFUSED = {"draft2020-12": 23, "draft2019-09": 14, "draft7": 8, "draft6": 8, "draft4": 8}
REMOTES = {draft: load_remotes(draft) for draft in DRAFTS}


def reader_of(case: Case, closes_objects: bool) -> Pushdown:
    rules = schema_rules(case.schema, closes_objects=closes_objects, documents=REMOTES[case.draft])
    return Pushdown(ContextFreeGrammar(rules.root, rules.rules))


@cache
def readers(index: int) -> tuple[Pushdown, Pushdown] | RequestError:
    """The grammar as it is used and the one that leaves objects open, or why there is none."""
    try:
        return reader_of(CASES[index], True), reader_of(CASES[index], False)
    except (ConstraintError, UnsupportedSchemaError) as error:
        return error


def is_refused(index: int) -> bool:
    """Whether the schema is refused, other than rightly because nothing is valid."""
    found = readers(index)
    return isinstance(found, UnsupportedSchemaError) or (
        isinstance(found, ConstraintError) and bool(CASES[index].valid)
    )


@pytest.mark.parametrize("index", range(len(CASES)), ids=NAMES)
def test_the_grammar_of_an_accepted_schema_holds_the_valid_instances_alone(index: int) -> None:
    case, found = CASES[index], readers(index)
    if isinstance(found, RequestError):
        return
    closed, open_ = found
    for instance in case.invalid:
        for text in texts_of(instance):
            assert not closed.accepts(text) and not open_.accepts(text), text
    # Our languages of formats are smaller than what may be valid, and a dialect of one's own is read as 2020-12.
    if case.keyword not in ("format", "vocabulary"):
        for instance in case.valid:
            assert any(open_.accepts(text) for text in texts_of(instance)), instance


@pytest.mark.parametrize("draft", DRAFTS)
def test_few_schemas_of_the_suite_are_refused(draft: str) -> None:
    refused = [case.description for index, case in enumerate(CASES) if case.draft == draft and is_refused(index)]
    assert len(refused) <= MOST_REFUSED[draft], refused


def test_the_only_valid_instances_lost_by_closing_objects_have_properties_that_the_schema_is_silent_about() -> None:
    lost = []
    for index, case in enumerate(CASES):
        found = readers(index)
        if case.keyword not in ("format", "vocabulary") and not isinstance(found, RequestError):
            lost += [one for one in case.valid if not any(found[0].accepts(text) for text in texts_of(one))]
    assert 0 < len(lost) < 40
    assert all(isinstance(instance, dict) for instance in lost)
