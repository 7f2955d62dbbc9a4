"""JSON Schemas as context-free grammars, exactly or not at all."""

from mlx_agent_llm.constrain.schema.grammar import (
    SchemaGrammar,
    SchemaRules,
    schema_grammar,
    schema_rules,
)
from mlx_agent_llm.constrain.schema.values.json_text import write_json
from mlx_agent_llm.constrain.schema.write.notation import JSON, JSONNotation

__all__ = [
    "JSON",
    "JSONNotation",
    "SchemaGrammar",
    "SchemaRules",
    "schema_grammar",
    "schema_rules",
    "write_json",
]
