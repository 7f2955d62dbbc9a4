"""bench embed, with few and short texts."""

from __future__ import annotations

import json

import pytest

from mlx_agent_llm.bench import WORKLOADS, Options, embed
from tests.support.embedders import demo_embedder_folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_both_sides_embed_in_one_call_and_from_many_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(demo_embedder_folder().parents[1])
    monkeypatch.setattr(embed, "LENGTHS", {"short": (4, 1, 3), "mixed": (4, 1, 9)})
    result = WORKLOADS["embed"].run(Options(rows=6, repeats=2))
    numbers = json.loads(json.dumps(result.numbers, allow_nan=False))
    assert [case["case"] for case in numbers["cases"]] == ["short", "mixed", "6 callers"]
    assert all(case["ratio"] == case["ours"] / case["theirs"] > 0 for case in numbers["cases"])
    assert 1 <= numbers["cases"][-1]["batches"] <= 6
    assert all(len(row) == len(result.columns) for row in result.rows)
