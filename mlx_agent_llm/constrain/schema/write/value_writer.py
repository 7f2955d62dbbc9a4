"""What those who write a part of a grammar have in hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlx_agent_llm.constrain.schema.read.reader import SchemaReader
from mlx_agent_llm.constrain.schema.values.formula import Formula
from mlx_agent_llm.constrain.schema.write.notation import JSONNotation
from mlx_agent_llm.constrain.schema.write.rule_book import RuleBook
from mlx_agent_llm.languages.context_free import Node


@dataclass(frozen=True)
class ValueWriter:
    """Writes the values that lie inside the value which is being written.

    value: the node of a formula; the rules that it needs are written later. closes_objects: whether objects with
    declared properties hold no others where the schema is silent about them.
    """

    reader: SchemaReader
    notation: JSONNotation
    book: RuleBook
    value: Callable[[Formula], Node]
    closes_objects: bool
