"""Which function reads which keyword, in the order in which they are applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx_agent_llm.constrain.schema.read import applicators, assertions, containers, unevaluated
from mlx_agent_llm.constrain.schema.read.document import Document
from mlx_agent_llm.constrain.schema.read.reader import ReadKeyword, SchemaReader
from mlx_agent_llm.request.schema_documents import NO_DOCUMENTS, Documents


def read_schema(schema: dict[str, Any] | bool, strict: bool, documents: Documents = NO_DOCUMENTS) -> SchemaReader:
    """The reader of a schema in any of the dialects; ConstraintError for what is no JSON Schema."""
    return SchemaReader(Document(schema, documents), VOCABULARY, strict)


# Keywords that leave little come first. `then`, `else`, `minContains` and `maxContains` are read with others, or mean
# nothing without them.
VOCABULARY: Mapping[str, ReadKeyword] = {
    "type": assertions.read_type,
    **dict.fromkeys(("divisibleBy", "extends", "disallow"), assertions.refuse_draft_3),
    "const": assertions.read_const,
    "enum": assertions.read_enum,
    "minimum": assertions.read_minimum,
    "exclusiveMinimum": assertions.read_exclusive_minimum,
    "maximum": assertions.read_maximum,
    "exclusiveMaximum": assertions.read_exclusive_maximum,
    "multipleOf": assertions.read_multiple_of,
    "minLength": assertions.read_min_length,
    "maxLength": assertions.read_max_length,
    "pattern": assertions.read_pattern,
    "format": assertions.read_format,
    "prefixItems": containers.read_prefix_items,
    "items": containers.read_items,
    "additionalItems": containers.read_additional_items,
    "minItems": containers.read_min_items,
    "maxItems": containers.read_max_items,
    "contains": containers.read_contains,
    "uniqueItems": containers.read_unique_items,
    "properties": containers.read_properties,
    "patternProperties": containers.read_pattern_properties,
    "additionalProperties": containers.read_additional_properties,
    "propertyNames": containers.read_property_names,
    "required": containers.read_required,
    "minProperties": containers.read_min_properties,
    "maxProperties": containers.read_max_properties,
    "$ref": applicators.read_ref,
    "$dynamicRef": applicators.read_dynamic_ref,
    "$recursiveRef": applicators.read_recursive_ref,
    "allOf": applicators.read_all_of,
    "anyOf": applicators.read_any_of,
    "oneOf": applicators.read_one_of,
    "not": applicators.read_not,
    "if": applicators.read_if,
    "dependentRequired": applicators.read_dependent_required,
    "dependentSchemas": applicators.read_dependent_schemas,
    "unevaluatedItems": unevaluated.read_unevaluated,
    "unevaluatedProperties": unevaluated.read_unevaluated,
    "dependencies": applicators.read_dependencies,
}
