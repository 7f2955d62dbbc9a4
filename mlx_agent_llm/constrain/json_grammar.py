"""A JSON Schema that passed the preflight, as an EBNF grammar in xgrammar's dialect.

xgrammar's own converter is not used: its strings hold lone surrogates and its numbers any number of digits, it rounds
constants to doubles, and it drops keywords in silence. Here every text of the grammar is one JSON value that is valid
for the schema, is written as json.dumps writes it, and has no place where blanks or digits could go on for ever.
Strings and open lists are right-recursive: xgrammar fills their masks in 5 us, against 20 ms for `character*`.
"""

from __future__ import annotations

from typing import Any

from mlx_agent_llm.constrain.leaves import allowed_values, bounds_of, kinds_of, write_json
from mlx_agent_llm.constrain.number_ranges import (
    UNBOUNDED_INTEGER,
    UNBOUNDED_NUMBER,
    Bounds,
    decimal_grid,
    integer_grid,
    range_expression,
)
from mlx_agent_llm.constrain.references import resolve_reference

SHARED_RULES = rf"""
string ::= "\"" characters
characters ::= "\"" | character characters
character ::= [ !#-\[\]-\x7f\u0080-\ud7ff\ue000-\U0010ffff] | "\\" escape
escape ::= ["\\/bfnrt] | "u" ([0-9A-Ca-cE-Fe-f] hex hex hex | [Dd] [0-7] hex hex)
hex ::= [0-9A-Fa-f]
integer ::= {UNBOUNDED_INTEGER}
number ::= {UNBOUNDED_NUMBER}
boolean ::= "true" | "false"
null ::= "null"
any ::= string | number | boolean | null | any_array | any_object
any_array ::= "[" ("]" | any any_items)
any_items ::= "]" | ", " any any_items
any_object ::= "{{" ("}}" | any_member any_members)
any_members ::= "}}" | ", " any_member any_members
any_member ::= string ": " any
"""


def json_grammar(schema: dict[str, Any]) -> str:
    """Return the grammar, with root rule `root`, of a schema that `check_schema` lets pass."""
    writer = _GrammarWriter(schema)
    root = writer.value(schema)
    return "\n".join(f"{name} ::= {body}" for name, body in [("root", root), *writer.rules.items()]) + SHARED_RULES


def literal(text: str) -> str:
    """Return a grammar expression that matches exactly this text, which has no control characters (JSON has none)."""
    return '"' + text.replace("\\", r"\\").replace('"', r"\"") + '"'


class _GrammarWriter:
    """Turns subschemas into expressions; whatever is used twice or refers to itself becomes a rule."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.rules: dict[str, str] = {}
        self._schema = schema
        self._names: dict[str, str] = {}  # of rules, by reference or by body

    def value(self, schema: Any) -> str:
        if schema is True:
            return "any"
        if "$ref" in schema:
            return self._reference(schema["$ref"])
        if "const" in schema or "enum" in schema:
            return _choice([literal(write_json(value)) for value in allowed_values(schema)])
        if "anyOf" in schema:
            return _choice([self.value(branch) for branch in schema["anyOf"]])
        if "allOf" in schema:
            return self.value(schema["allOf"][0])
        return _choice([self._typed(kind, schema) for kind in kinds_of(schema)])

    def _typed(self, kind: str, schema: dict[str, Any]) -> str:
        match kind:
            case "object":
                return self._object(schema)
            case "array":
                return self._array(schema)
            case "string":
                return self._string(int(schema.get("minLength", 0)), schema.get("maxLength"))
            case "integer" | "number":
                return self._number(kind, bounds_of(schema))
        return kind

    def _reference(self, reference: str) -> str:
        if reference not in self._names:
            name = self._names[reference] = self._new_rule()
            self.rules[name] = self.value(resolve_reference(self._schema, reference))
        return self._names[reference]

    def _object(self, schema: dict[str, Any]) -> str:
        properties = schema.get("properties")
        additional = schema.get("additionalProperties", properties is None)
        if not properties and additional is not False:
            return self._map(additional)
        # Two rules a property, from the last to the first: what follows a written property, and what begins the object.
        after, first = '""', '""'
        for name, value in reversed((properties or {}).items()):
            member = self._rule(f"{literal(write_json(name) + ': ')} {self.value(value)}")
            required = name in schema.get("required", [])
            first = self._rule(f"{member} {after}" + ("" if required else f" | {first}"))
            after = self._rule(f'", " {member} {after}' + ("" if required else f" | {after}"))
        return self._rule(f'"{{" {first} "}}"')

    def _map(self, values: Any) -> str:
        if values is True:
            return "any_object"
        member = self._rule(f'string ": " {self.value(values)}')
        members = self._new_rule()
        self.rules[members] = f'"}}" | ", " {member} {members}'
        return self._rule(f'"{{" ("}}" | {member} {members})')

    def _array(self, schema: dict[str, Any]) -> str:
        prefix, item = schema.get("prefixItems", []), schema.get("items", True)
        least, most = int(schema.get("minItems", 0)), schema.get("maxItems")
        if item is False:
            most = len(prefix) if most is None else min(int(most), len(prefix))
        if most is not None:
            prefix = prefix[: int(most)]
        rest = '""' if most == len(prefix) else self._items(item, len(prefix), least, most)
        for index, element in reversed(list(enumerate(prefix))):
            separator = '", " ' if index else ""
            rest = self._rule(f"{separator}{self.value(element)} {rest}" + (' | ""' if index >= least else ""))
        return self._rule(f'"[" {rest} "]"')

    def _items(self, schema: Any, index: int, least: int, most: int | float | None) -> str:
        """Return the items from `index` on, all of one schema, in a list of `least` to `most` items."""
        item = self._rule(self.value(schema))
        if index == 0:
            rest = '""' if most == 1 else self._items(schema, 1, least, most)
            return self._rule(f"{item} {rest}" + ("" if least > 0 else ' | ""'))
        needed = max(0, least - index)
        if most is not None:
            return self._rule(f'(", " {item}){{{needed},{int(most) - index}}}')
        more = self._new_rule()
        self.rules[more] = f'"" | ", " {item} {more}'
        return self._rule(f'(", " {item}){{{needed},{needed}}} {more}') if needed else more

    def _string(self, least: int, most: int | float | None) -> str:
        if most is None and least == 0:
            return "string"
        rest = "characters" if most is None else r'"\""'
        for length in reversed(range(least if most is None else int(most))):
            rest = self._rule(f"character {rest}" + (r' | "\""' if length >= least else ""))
        return self._rule(rf'"\"" {rest}')

    def _number(self, kind: str, bounds: Bounds) -> str:
        if bounds == Bounds():
            return kind
        grid = integer_grid(bounds) if kind == "integer" else decimal_grid(bounds)
        assert grid is not None, "the preflight refuses bounds that a double cannot tell apart"
        return self._rule(range_expression(grid))

    def _rule(self, body: str) -> str:
        """Return the name of a rule with this body; equal bodies share one."""
        if body not in self._names:
            name = self._names[body] = self._new_rule()
            self.rules[name] = body
        return self._names[body]

    def _new_rule(self) -> str:
        name = f"r{len(self.rules)}"
        self.rules[name] = ""
        return name


def _choice(expressions: list[str]) -> str:
    assert expressions, "the preflight refuses a choice of nothing"
    return expressions[0] if len(expressions) == 1 else f"({' | '.join(dict.fromkeys(expressions))})"
