"""Instances that another library makes of a schema: the valid ones can be written, those that are not valid cannot."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
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
from tests.support.cpu_limit import ends_within
from tests.support.instances import instances
from tests.support.schema_corpora import CORPORA
from tests.support.search import examples

NUM_SCHEMAS = 40  # of a corpus
SECONDS = 15  # of CPU time for a schema: with some the other library searches without an end
# How many schemas of each corpus have instances, at least: the other library does not take references in circles.
LEAST_TRIED = {"tools": 34, "pydantic": 34, "mcp": 34, "check-jsonschema": 8, "kubernetes": 30}


class Counts:
    """The valid values of a schema that were met, those of them that are written, and what is written and not valid."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.valid = self.written = 0
        self.wrong: list[Any] = []
        rules = schema_rules(schema, closes_objects=False)
        self._schema = schema
        self._reader = Pushdown(ContextFreeGrammar(rules.root, rules.rules))

    def add(self, value: Any) -> None:
        is_written = self._reader.accepts(write_json(value))
        is_valid = violation(self._schema, value) is None
        self.wrong += [value] if is_written and not is_valid else []
        self.valid += is_valid
        self.written += is_written and is_valid


def count(schema: dict[str, Any], max_examples: int) -> Counts:
    """What becomes of instances of a schema, as many as are found in time, and of values that differ in one place."""
    counts = Counts(schema)

    def search() -> None:
        @settings(max_examples=max_examples, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        @given(value=instances(schema))  # which may take longer than all that follows
        def check(value: Any) -> None:
            for one in (value, *islice(mutants(value, random.Random(0)), 20)):
                counts.add(one)

        check()

    if not ends_within(SECONDS, search):
        print(f"broken off after {SECONDS} s")
    return counts


@pytest.mark.parametrize("name", ["create_event", "ship_parcel", "control_light"])
def test_valid_instances_are_written_and_mutants_that_are_not_valid_are_not(name: str) -> None:
    counts = count(TOOL_SCHEMAS[name], examples(5))
    assert not counts.wrong
    assert counts.valid > 10 and counts.written >= 0.98 * counts.valid


def test_a_search_without_an_end_is_broken_off() -> None:
    def search() -> None:
        while True:
            pass

    assert not ends_within(0.05, search) and ends_within(60, lambda: None)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a search broken off in a callback
@pytest.mark.parametrize("corpus", CORPORA)
def test_instances_of_real_schemas_are_written_where_they_are_valid_and_only_there(corpus: str) -> None:
    found, tried = list(CORPORA[corpus]()), []
    for named in random.Random(3).sample(found, min(len(found), NUM_SCHEMAS)):
        try:
            counts = count(bundled(named), max_examples=10)
        except (RequestError, HypothesisRefResolutionError, SchemaError, Unsatisfiable) as error:
            print(f"{named.name}: {type(error).__name__}")  # refused, or what the other library does not take
            continue
        print(f"{named.name}: {counts.written} of {counts.valid}")
        assert not counts.wrong, named.name
        tried += [counts] if counts.valid else []
    valid, written = sum(one.valid for one in tried), sum(one.written for one in tried)
    print(f"| {corpus} | {len(tried)} of {min(len(found), NUM_SCHEMAS)} | {valid:,} | {written:,} |")
    assert len(tried) >= LEAST_TRIED[corpus]
    assert valid >= 20 * len(tried) and written >= 0.98 * valid
