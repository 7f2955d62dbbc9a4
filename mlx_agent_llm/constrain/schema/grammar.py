"""A JSON Schema as a grammar, or the reason why it cannot be one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_agent_llm.constrain.schema.read.vocabulary import read_schema
from mlx_agent_llm.constrain.schema.write.notation import JSON, JSONNotation
from mlx_agent_llm.constrain.schema.write.shared_rules import shared_rules
from mlx_agent_llm.constrain.schema.write.writer import GrammarWriter, WriteRoot, write_value
from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.languages.context_free import ContextFreeGrammar, Node, productive_rules, reachable_rules
from mlx_agent_llm.request.constraints import SEPARATORS, CheckedKeywords
from mlx_agent_llm.request.schema_documents import NO_DOCUMENTS, Documents


@dataclass(frozen=True)
class SchemaGrammar:
    """The grammar of a schema; `checked` are the (pointer, keyword) pairs that it does not enforce."""

    grammar: ContextFreeGrammar
    checked: CheckedKeywords = ()


@dataclass(frozen=True)
class SchemaRules:
    """The rules of a schema as a part of a larger grammar, which starts at `root`."""

    root: Node
    rules: Mapping[str, Node]
    checked: CheckedKeywords = ()


def schema_grammar(
    schema: dict[str, Any] | bool,
    strict: bool = True,
    documents: Documents = NO_DOCUMENTS,
    separators: tuple[str, str] = SEPARATORS,
) -> SchemaGrammar:
    """The grammar of the values that are valid for a schema; it is exact, and there is such a value.

    With strict=False what cannot be enforced is left out and listed: the values must be checked afterwards. Otherwise
    UnsupportedSchemaError names the pointer and the keyword. ConstraintError is raised for what is no JSON Schema,
    contradicts itself, refers to nothing, or has no end.
    """
    rules = schema_rules(schema, strict=strict, documents=documents, notation=JSONNotation(separators))
    return SchemaGrammar(ContextFreeGrammar(rules.root, rules.rules), rules.checked)


def schema_rules(
    schema: dict[str, Any] | bool,
    prefix: str = "",
    strict: bool = True,
    notation: JSONNotation = JSON,
    closes_objects: bool = True,
    write_root: WriteRoot = write_value,
    documents: Documents = NO_DOCUMENTS,
) -> SchemaRules:
    """The rules of a schema for a larger grammar; the names of its own rules begin with `prefix`.

    Rules that many schemas share (string, integer, number, boolean, null, any...) are the same in all. write_root:
    writes the outermost value, where that is not written like any other. documents: further schemas by their URIs.
    """
    try:
        reader = read_schema(schema, strict, documents)
        writer = GrammarWriter(reader, notation, prefix, closes_objects)
        root = writer.write(reader.root, write_root)
    except RecursionError:
        raise ConstraintError("schema is nested too deeply") from None
    name = f"{prefix}root"
    rules = productive_rules({name: root, **writer.rules, **shared_rules(notation)})
    if name not in rules:
        pointer = reader.contradiction()
        if pointer is None:
            raise ConstraintError("schema requires itself: no value of it ever ends")
        raise ConstraintError(f"schema{pointer}: no value satisfies it")
    root = rules.pop(name)
    return SchemaRules(root, reachable_rules(root, rules), tuple(reader.checked))
