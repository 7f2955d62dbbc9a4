"""Random schemas: the grammar holds exactly the values that jsonschema finds valid, and every text of it is one."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from mlx_agent_llm.bench.grammar_walks import GrammarWalk
from mlx_agent_llm.constrain.closing.pushdown import Pushdown
from mlx_agent_llm.constrain.schema import SchemaRules, schema_grammar, schema_rules
from mlx_agent_llm.constrain.violation import violation
from mlx_agent_llm.errors import ConstraintError, UnsupportedSchemaError
from mlx_agent_llm.languages.context_free import ContextFreeGrammar
from tests.support.json_schema_suite import texts_of
from tests.support.random_schemas import INSTANCES, rooted_schemas, unenforced_schemas
from tests.support.search import examples

QUICK = settings(max_examples=examples(150), suppress_health_check=list(HealthCheck))
LONG = settings(max_examples=20_000, suppress_health_check=list(HealthCheck))


def open_rules(schema: dict[str, Any], strict: bool) -> SchemaRules:
    """The rules of a schema, with objects left open as JSON Schema has them; a refused one is no example."""
    try:
        return schema_rules(schema, strict=strict, closes_objects=False)
    except UnsupportedSchemaError:
        assume(False)
    except ConstraintError as error:
        validator = Draft202012Validator(schema)
        assert not any(map(validator.is_valid, INSTANCES)), error
        assume(False)
    raise AssertionError("an assumption that does not hold ends the example")


def check_equivalence(schema: dict[str, Any], strict: bool) -> None:
    rules = open_rules(schema, strict)
    reader = Pushdown(ContextFreeGrammar(rules.root, rules.rules))
    validator = Draft202012Validator(schema)
    for instance in INSTANCES:
        can_be_written = any(reader.accepts(text) for text in texts_of(instance))
        if rules.checked:  # a grammar that leaves keywords out holds more, but never less
            assert can_be_written or not validator.is_valid(instance), instance
        else:
            assert can_be_written == validator.is_valid(instance), instance


@QUICK
@given(schema=rooted_schemas())
def test_exactly_the_valid_values_can_be_written(schema: dict[str, Any]) -> None:
    check_equivalence(schema, strict=True)


@QUICK
@given(schema=unenforced_schemas())
def test_a_lenient_grammar_loses_no_valid_value_and_enforces_the_rest(schema: dict[str, Any]) -> None:
    check_equivalence(schema, strict=False)


@QUICK
@given(schema=rooted_schemas(), seed=st.integers(0, 2**32))
@example(schema={"not": {"pattern": "b$"}}, seed=0)  # "b" before a line end is a text, which the `$` of `re` denies
def test_every_text_of_a_grammar_is_valid_and_written_in_one_form(schema: dict[str, Any], seed: int) -> None:
    try:
        walk = GrammarWalk(schema_grammar(schema).grammar)
    except (ConstraintError, UnsupportedSchemaError):
        assume(False)
    rng = random.Random(seed)
    for _ in range(10):
        text = walk.text(rng)
        value = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert violation(schema, value) is None
        json.dumps(value, ensure_ascii=False).encode()


@pytest.mark.long
@pytest.mark.timeout(3600)
@LONG
@given(schema=rooted_schemas())
def test_exactly_the_valid_values_of_very_many_schemas_can_be_written(schema: dict[str, Any]) -> None:
    check_equivalence(schema, strict=True)
