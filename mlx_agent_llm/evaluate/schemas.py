"""Schemas of tools in many shapes: is what the model writes valid for them? What it means is not judged."""

from __future__ import annotations

import json

from mlx_agent_llm.bench.tool_schemas import TOOL_SCHEMAS
from mlx_agent_llm.evaluate.case import Case, Reply, Verdict

CATEGORY = "schemas"


def schema_cases() -> list[Case]:
    """One for each schema."""
    return [
        Case(CATEGORY, name, [{"role": "user", "content": _question(name, schema)}], _judge, schema=schema)
        for name, schema in TOOL_SCHEMAS.items()
    ]


def _question(name: str, schema: object) -> str:
    return f"Make up an example: one JSON object that is valid for the schema of {name!r}: {json.dumps(schema)}"


def _judge(reply: Reply) -> Verdict:
    is_valid = reply.value is not None
    return Verdict(is_valid, int(is_valid), 1)
