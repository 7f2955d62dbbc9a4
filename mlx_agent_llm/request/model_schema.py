"""The JSON Schema of a pydantic type, closer to what the type accepts than pydantic's own.

Pydantic's schemas leave out much that its validators ask for: the keys of dict[int, ...] are any names, a PastDate is
any date. Here that is said where JSON Schema can say it. Where it cannot, the constraint itself stands in the schema as
a keyword, so that a strict reader of the schema refuses it by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from enum import Enum
from typing import Any, cast

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema
from typing_extensions import is_typeddict

from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.request.schema_dialect import UNSAYABLE

_BOUNDS = ("gt", "ge", "lt", "le")
_NUMBER = "(0|-?[1-9][0-9]{0,14})"
# The texts of keys that pydantic reads as values of another type.
_KEY_SCHEMAS: dict[str, JsonSchemaValue] = {
    "int": {"pattern": f"^{_NUMBER}$"},
    "float": {"pattern": rf"^{_NUMBER}(\.[0-9]{{1,6}})?$"},
    "decimal": {"pattern": rf"^{_NUMBER}(\.[0-9]{{1,6}})?$"},
    "bool": {"enum": ["true", "false"]},
}
_NAIVE_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"
_EARLY_DATE = "[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"


def schema_of_type(kind: Any) -> dict[str, Any]:
    """The JSON Schema of a pydantic model class, a TypedDict class, a dataclass or an enum."""
    return _read(kind, _SchemaGenerator)


def parameters_of(kind: Any) -> dict[str, Any]:
    """The JSON Schema of a tool's arguments, by their class or the function that takes them, as the model reads it."""
    schema = _read(kind, _ParameterGenerator)
    if "$ref" in schema:  # of a class that holds itself
        schema = {**schema["$defs"][schema["$ref"].rpartition("/")[2]], "$defs": schema["$defs"]}
    return {key: value for key, value in schema.items() if key != "title"}


def is_schema_type(value: Any) -> bool:
    """Whether `schema_of_type` takes a value."""
    if not isinstance(value, type):
        return False
    return issubclass(value, BaseModel | Enum) or is_typeddict(value) or is_dataclass(value)


def _read(kind: Any, generator: type[GenerateJsonSchema]) -> dict[str, Any]:
    try:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind.model_json_schema(schema_generator=generator)
        return TypeAdapter(kind).json_schema(schema_generator=generator)
    except PydanticUserError as error:
        raise ConstraintError(f"schema={kind!r} has no JSON Schema: {error}") from None


class _SchemaGenerator(GenerateJsonSchema):
    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        """Keep blanks from the ends of strings that pydantic strips before it looks at them."""
        result = super().str_schema(schema)
        is_limited = any(keyword in result for keyword in ("minLength", "maxLength", "pattern"))
        if is_limited and schema.get("strip_whitespace"):
            result["allOf"] = [{"pattern": r"^([!-~]([\s\S]*[!-~])?)?$"}]
        if schema.get("ascii_only"):
            result.setdefault("allOf", []).append({"pattern": r"^[\x00-\x7f]*$"})
        return _with(result, schema, "to_lower", "to_upper") if is_limited else result

    def bytes_schema(self, schema: core_schema.BytesSchema) -> JsonSchemaValue:
        """Count bytes, which are characters in ASCII."""
        result = super().bytes_schema(schema)
        return result | {"pattern": r"^[\x00-\x7f]*$"} if "maxLength" in result else result

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        """Write decimals as numbers; those of a number of digits as strings, which keep them."""
        digits, places = schema.get("max_digits"), schema.get("decimal_places")
        if digits is None and places is None:
            given: Mapping[str, Any] = dict(schema)
            numbers = {name: float(given[name]) for name in (*_BOUNDS, "multiple_of") if given.get(name) is not None}
            return self.float_schema(cast("core_schema.FloatSchema", {"type": "float", **numbers}))
        digits = 15 if digits is None else digits
        places = digits if places is None else places
        whole = digits - places
        integer = f"(0|[1-9][0-9]{{0,{whole - 1}}})" if whole > 0 else "0"
        sign = "" if schema.get("ge") == 0 else "-?"
        pattern = rf"^{sign}{integer}(\.[0-9]{{1,{places}}})?$" if places else f"^{sign}{integer}$"
        others = [name for name in (*_BOUNDS, "multiple_of") if name != "ge" or schema.get("ge") != 0]
        return _with({"type": "string", "pattern": pattern}, schema, *others)

    def date_schema(self, schema: core_schema.DateSchema) -> JsonSchemaValue:
        """Say what the format leaves out."""
        return _beside_now(_with(super().date_schema(schema), schema, *_BOUNDS), schema, "Date")

    def time_schema(self, schema: core_schema.TimeSchema) -> JsonSchemaValue:
        """Say what the format leaves out; it has an offset, which a naive time has not."""
        return _temporal(super().time_schema(schema), schema, f"^{_NAIVE_TIME}$")

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        """Say what the format leaves out; it has an offset, which a naive time has not."""
        return _temporal(super().datetime_schema(schema), schema, f"^{_EARLY_DATE}T{_NAIVE_TIME}$")

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonSchemaValue:
        """Say what the format leaves out."""
        return _with(super().timedelta_schema(schema), schema, *_BOUNDS)

    def uuid_schema(self, schema: core_schema.UuidSchema) -> JsonSchemaValue:
        """Say which version."""
        return super().uuid_schema(schema) | {"format": f"uuid{schema.get('version', '')}"}

    def url_schema(self, schema: core_schema.UrlSchema) -> JsonSchemaValue:
        """Say which schemes."""
        schemes = schema.get("allowed_schemes")
        result = super().url_schema(schema)
        return result | {"pattern": f"^({'|'.join(schemes)}):"} if schemes else result

    def json_schema(self, schema: core_schema.JsonSchema) -> JsonSchemaValue:
        """Say that the string has to hold JSON."""
        return super().json_schema(schema) | {f"{UNSAYABLE}json": "a string that holds JSON"}

    def complex_schema(self, schema: core_schema.ComplexSchema) -> JsonSchemaValue:
        """Say that it has to be a complex number."""
        return super().complex_schema(schema) | {f"{UNSAYABLE}complex": "a complex number"}

    def set_schema(self, schema: core_schema.SetSchema) -> JsonSchemaValue:
        """Allow equal items, which a set takes as one, unless they would be missed in the count."""
        return _without_unique(super().set_schema(schema))

    def frozenset_schema(self, schema: core_schema.FrozenSetSchema) -> JsonSchemaValue:
        """Allow equal items, which a set takes as one, unless they would be missed in the count."""
        return _without_unique(super().frozenset_schema(schema))

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """Say which keys can be read as their type."""
        result = super().dict_schema(schema)
        if "patternProperties" in result:
            result.setdefault("additionalProperties", False)
        keys: Mapping[str, Any] = schema.get("keys_schema", {})
        kind = str(keys.get("type"))
        if kind not in _KEY_SCHEMAS:
            return result
        return _with(result | {"propertyNames": _KEY_SCHEMAS[kind]}, keys, *_BOUNDS, "multiple_of")


class _ParameterGenerator(_SchemaGenerator):
    def field_title_should_be_set(self, schema: Any) -> bool:
        """Leave out titles that only repeat the names of fields."""
        return False


def _with(result: JsonSchemaValue, schema: Mapping[str, Any], *names: str) -> JsonSchemaValue:
    """The JSON Schema with those constraints of a core schema that it cannot say otherwise."""
    unsaid = {name: schema[name] for name in names if schema.get(name) is not None}
    return result | {UNSAYABLE + name: f"JSON Schema has no word for {name}={value}" for name, value in unsaid.items()}


def _beside_now(result: JsonSchemaValue, schema: Mapping[str, Any], kind: str) -> JsonSchemaValue:
    """Name PastDate, FutureDatetime and the like as they are written."""
    if (tense := schema.get("now_op")) is None:
        return result
    return result | {f"{UNSAYABLE}{tense.capitalize()}{kind}": "what it accepts depends on the day"}


def _temporal(result: JsonSchemaValue, schema: Mapping[str, Any], naive_pattern: str) -> JsonSchemaValue:
    if schema.get("tz_constraint") == "naive":
        return _beside_now(_with({"type": "string", "pattern": naive_pattern}, schema, *_BOUNDS), schema, "Datetime")
    names = () if schema.get("tz_constraint") == "aware" else ("tz_constraint",)
    return _beside_now(_with(result, schema, *_BOUNDS, *names), schema, "Datetime")


def _without_unique(result: JsonSchemaValue) -> JsonSchemaValue:
    if result.get("minItems", 0) <= 1:
        result.pop("uniqueItems", None)
    return result
