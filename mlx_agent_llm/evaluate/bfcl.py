"""The cases of the Berkeley Function Calling Leaderboard that are judged by the calls themselves, not by running them.

Its package, bfcl-eval, carries the cases and is not imported; what it depends on is not needed.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mlx_agent_llm.chat import Tool
from mlx_agent_llm.errors import MLXAgentError
from mlx_agent_llm.evaluate.answers import Arguments, are_accepted
from mlx_agent_llm.evaluate.case import Case, Reply, Verdict

CATEGORIES = (
    *("simple_python", "multiple", "parallel", "parallel_multiple"),
    *("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple"),
)
INSTALL = "pip install --no-deps bfcl-eval"
_TYPES = {"dict": "object", "float": "number", "tuple": "array"}


def find_data() -> Path:
    """The folder of the installed package's cases; an MLXAgentError names the command that installs it."""
    spec = importlib.util.find_spec("bfcl_eval")
    if spec is None or spec.origin is None:
        raise MLXAgentError(f"BFCL's cases are not installed: {INSTALL}; or leave them out with --suite")
    return Path(spec.origin).parent / "data"


def read_cases(folder: Path, category: str) -> list[Case]:
    """All cases of a category, in their order."""
    right = {line["id"]: line["ground_truth"] for line in _lines(folder / "possible_answer", category)}
    return [_case(category, line, right[line["id"]]) for line in _lines(folder, category)]


def _lines(folder: Path, category: str) -> Iterator[dict[str, Any]]:
    found = sorted(folder.glob(f"BFCL_v[0-9]_{category}.json"))
    if not found:
        raise MLXAgentError(f"{folder} holds no BFCL_v*_{category}.json: it must be the folder data of bfcl-eval")
    with found[-1].open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _case(category: str, line: Mapping[str, Any], truth: Sequence[Mapping[str, Arguments]]) -> Case:
    answers = [call for one in truth for call in one.items()]
    tools = [Tool(one["name"], one["description"], _schema(one["parameters"])) for one in line["function"]]
    return Case(f"bfcl {category}", line["id"], line["question"][0], partial(_judge, answers), tools)


def _judge(answers: Sequence[tuple[str, Arguments]], reply: Reply) -> Verdict:
    is_valid = bool(reply.calls) and not reply.num_broken
    return Verdict(is_valid, int(is_valid and are_accepted(reply.calls, answers)), 1)


def _schema(described: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON Schema of what the cases write in Python's words: "any" is no type, an enum of an array is its items'."""
    schema = {name: value for name, value in described.items() if name not in ("optional", "default")}
    kind = schema.pop("type", "any")
    if kind != "any":
        schema["type"] = _TYPES.get(kind, kind)
    if "properties" in schema:
        schema["properties"] = {name: _schema(one) for name, one in schema["properties"].items()}
    if schema.get("type") == "array" and "enum" in schema:
        schema["items"] = {**schema.get("items", {}), "enum": schema.pop("enum")}
    if isinstance(schema.get("items"), Mapping):
        schema["items"] = _schema(schema["items"])
    return schema
