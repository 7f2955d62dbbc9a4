"""Instances that another library makes of a schema: the valid ones can be written, those that are not valid cannot."""

from __future__ import annotations

import json
import random
from itertools import islice
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis_jsonschema._resolve import HypothesisRefResolutionError
from jsonschema import SchemaError

from mlx_agent_llm.bench.mutants import mutants
from mlx_agent_llm.bench.real_schemas import bundled
from mlx_agent_llm.bench.tool_schemas import TOOL_SCHEMAS
from mlx_agent_llm.constrain.closing.pushdown import Pushdown
from mlx_agent_llm.constrain.schema import schema_rules, write_json
from mlx_agent_llm.constrain.violation import violation
from mlx_agent_llm.errors import RequestError
from mlx_agent_llm.languages.context_free import ContextFreeGrammar
from tests.support.instances import instances
from tests.support.schema_corpora import CORPORA
from tests.support.search import examples

MAX_CHARACTERS = 500_000  # in azure-pipelines' the other library searched for a quarter of an hour without an end


class Counts:
    """The valid values that were met, and those of them that are written."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.valid = self.written = 0
        rules = schema_rules(schema, closes_objects=False)
        self._schema = schema
        self._reader = Pushdown(ContextFreeGrammar(rules.root, rules.rules))

    def add(self, value: Any) -> None:
        is_written = self._reader.accepts(write_json(value))
        is_valid = violation(self._schema, value) is None
        assert is_valid or not is_written, value
        self.valid += is_valid
        self.written += is_written


def count(schema: dict[str, Any], max_examples: int) -> Counts:
    """What becomes of instances of a schema and of values that differ from them in one place."""
    counts = Counts(schema)

    @settings(max_examples=max_examples, suppress_health_check=list(HealthCheck))
    @given(value=instances(schema))
    def check(value: Any) -> None:
        for one in (value, *islice(mutants(value, random.Random(0)), 20)):
            counts.add(one)

    check()
    return counts


@pytest.mark.parametrize("name", ["create_event", "ship_parcel", "control_light"])
def test_valid_instances_are_written_and_mutants_that_are_not_valid_are_not(name: str) -> None:
    counts = count(TOOL_SCHEMAS[name], examples(5))
    assert counts.valid > 10 and counts.written >= 0.98 * counts.valid


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("corpus", CORPORA)
def test_instances_of_real_schemas_are_written_where_they_are_valid_and_only_there(corpus: str) -> None:
    found = [named for named in CORPORA[corpus]() if len(json.dumps(bundled(named))) <= MAX_CHARACTERS]
    counted = []
    for named in random.Random(3).sample(found, min(len(found), 40)):
        try:
            counts = count(bundled(named), max_examples=10)
        except (RequestError, HypothesisRefResolutionError, SchemaError, Unsatisfiable):
            continue  # refused, or what the other library does not take: recursion, or what its search does not find
        counted.append(counts)
        print(named.name, counts.valid, counts.written)
    valid, written = sum(one.valid for one in counted), sum(one.written for one in counted)
    print(f"{corpus}: of {valid} valid instances of {len(counted)} schemas {written} are written")
    assert len(counted) > 5 and written >= 0.98 * valid
