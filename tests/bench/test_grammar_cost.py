"""Ours beside other converters of JSON schemas: what is counted is what each side does."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from mlx_agent_llm.bench import grammar_cost, real_schemas, schema_trial
from mlx_agent_llm.bench.grammar_cost import sample_schemas, side_costs, time_table, try_schemas, verdict_table
from mlx_agent_llm.bench.json_compilers import SIDES, Side, compiler_of, vocabulary_of
from mlx_agent_llm.bench.real_schemas import Named, bundled
from mlx_agent_llm.bench.schema_trial import Outcome, SideProcess, Task, try_schema
from mlx_agent_llm.testing import ByteTokenizer

TOKENIZER = ByteTokenizer()
VOCABULARY = vocabulary_of("bytes", TOKENIZER, TOKENIZER.vocab_size)


def task(schema: dict[str, Any], valid: str, invalid: str) -> Task:
    return Task(schema, [TOKENIZER.encode(valid)], [TOKENIZER.encode(invalid)])


def verdicts(side: Side, asked: Task) -> tuple[bool, int, int]:
    outcome = try_schema(compiler_of(side, VOCABULARY), VOCABULARY.vocab_size, asked)
    return not outcome.refusal, outcome.num_lost, outcome.num_wrong


def test_each_side_is_judged_by_the_texts_that_it_lets_through() -> None:
    bounded = task({"type": "array", "items": {"type": "integer"}, "maxItems": 2}, "[1, 2]", "[1, 2, 3]")
    assert [verdicts(side, bounded) for side in SIDES] == [(True, 0, 0)] * 3
    unlike = task({"not": {"type": "integer"}}, '"a"', "5")
    assert [verdicts(side, unlike) for side in SIDES] == [(True, 0, 0), (False, 0, 0), (True, 0, 1)]


def test_a_mask_is_timed_for_every_token_of_a_valid_text() -> None:
    asked = task({"enum": ["abc"]}, '"abc"', '"abd"')
    outcome = try_schema(compiler_of("ours", VOCABULARY), VOCABULARY.vocab_size, asked)
    assert outcome.first_mask > 0 and len(outcome.masks) == 5 and min(outcome.masks) > 0


def test_a_schema_that_refers_to_documents_is_bundled_with_what_it_needs() -> None:
    documents = {"d.json": {"$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"type": "null"}, "c": {}}}}
    named = Named("kubernetes", "x", {"properties": {"p": {"$ref": "/api/d.json#/$defs/a"}}}, documents)
    assert bundled(named) == {
        "properties": {"p": {"$ref": "#/$defs/a"}},
        "$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"type": "null"}},
    }


def test_a_corpus_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(real_schemas, "FOLDER", tmp_path)
    sample = sample_schemas(2)
    assert sample.missing == ["mcp", "check-jsonschema", "kubernetes"]
    assert [one.corpus for one in sample.schemas] == ["tools", "tools"]
    assert all(one.valid and one.invalid for one in sample.schemas)


def test_costs_are_the_trials_of_a_group_added_up() -> None:
    trials = [
        grammar_cost.Trial("tools", "v", "ours", Outcome("", 1.0, [0.1, 0.3], 0, 0)),
        grammar_cost.Trial("tools", "v", "ours", Outcome("", 3.0, [0.2], 1, 2)),
        grammar_cost.Trial("tools", "v", "ours", Outcome("refused")),
        grammar_cost.Trial("mcp", "v", "xgrammar", Outcome("refused")),
    ]
    first, second = side_costs(trials, lambda trial: trial.corpus)
    assert (first.group, first.side, first.num_schemas, first.num_compiled, first.num_right) == (
        "tools",
        "ours",
        3,
        2,
        1,
    )
    assert (first.num_lost, first.num_wrong, first.num_masks) == (1, 2, 3)
    assert (first.first_mask_p50, first.mask_p50) == (2.0, 0.2)
    assert (second.num_schemas, second.num_compiled, second.mask_p99) == (1, 0, None)
    for table in (verdict_table([first, second]), time_table([first, second])):
        assert all(len(row) == len(table.columns) for row in table.rows)


def test_what_a_side_gave_up_is_not_tried_with_another_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Side] = []

    class Late(nullcontext[Any]):
        def __init__(self, side: Side, vocabulary: object) -> None:
            super().__init__(self)
            self.side = side

        def run(self, task: Task) -> Outcome:
            asked.append(self.side)
            return Outcome("not within 10 s", gave_up=True) if self.side == "xgrammar" else Outcome("refused")

    monkeypatch.setattr(grammar_cost, "SideProcess", Late)
    schemas, given_up = [grammar_cost.WrittenSchema("tools", {}, [], [])], dict[tuple[Side, int], Outcome]()
    trials = [*try_schemas(schemas, "a", TOKENIZER, given_up), *try_schemas(schemas, "b", TOKENIZER, given_up)]
    assert asked == ["ours", "llguidance", "xgrammar", "ours", "llguidance"]
    assert [trial.outcome.refusal for trial in trials if trial.side == "xgrammar"] == ["not within 10 s"] * 2


@pytest.mark.long
def test_a_side_that_takes_too_long_is_ended_and_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Task({"type": "string"}, [TOKENIZER.encode(f'"{"a" * 200}"')] * 2000, [])  # 400,000 tokens to read
    with SideProcess("xgrammar", VOCABULARY) as process:
        monkeypatch.setattr(schema_trial, "SCHEMA_TIMEOUT", 0.0)
        assert process.run(slow) == Outcome("not within 0 s", gave_up=True)
        monkeypatch.setattr(schema_trial, "SCHEMA_TIMEOUT", 60.0)
        after = process.run(task({"type": "null"}, "null", "5"))
    assert (after.refusal, after.num_lost, after.num_wrong) == ("", 0, 0)


@pytest.mark.long
def test_every_side_runs_in_a_process_of_its_own() -> None:
    sample = sample_schemas(2)
    trials = list(try_schemas(sample.schemas, "bytes", TOKENIZER, {}))
    assert [cost.side for cost in side_costs(trials, lambda trial: trial.vocabulary)] == list(SIDES)
    ours = [trial.outcome for trial in trials if trial.side == "ours" and trial.corpus == "tools"]
    assert len(ours) == 2 and all(not one.refusal and not one.num_wrong for one in ours)
