"""What each kind of constraint is as a context-free grammar: all that the backends and the closing know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from mlx_agent_llm.constrain.schema import SchemaGrammar, schema_grammar
from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.languages import context_free
from mlx_agent_llm.languages.context_free import ContextFreeGrammar, PatternNode, TextNode
from mlx_agent_llm.languages.context_free.ebnf_parser import parse_ebnf
from mlx_agent_llm.languages.regex import parse_full_match
from mlx_agent_llm.request.constraints import Choice, Constraint, Grammar, JSONSchema, Regex


class Check(NamedTuple):
    """What a complete text is checked for: that its JSON is valid for a schema which the grammar enforces in part.

    find_json: the JSON in a text; None where it holds none, so that there is nothing to check.
    """

    schema: JSONSchema
    find_json: Callable[[str], str | None]


@dataclass(frozen=True)
class GrammarConstraint(Constraint):
    """The output is a text of the grammar that `build` returns, once; tool formats make it.

    content: the same for equal grammars alone.
    """

    build: Callable[[], ContextFreeGrammar] = field(compare=False)
    content: str = field(repr=False)
    check: Check | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"context_free:{self.content}")


def check_of(constraint: Constraint) -> Check | None:
    """What a complete text of a constraint may have to be checked for; None where the grammar says it all."""
    match constraint:
        case JSONSchema(strict=False):
            return Check(constraint, lambda text: text)
        case GrammarConstraint(check=check):
            return check
    return None


def constraint_grammar(constraint: Constraint) -> ContextFreeGrammar:
    """The grammar; raises ConstraintError or UnsupportedSchemaError for what is wrong with the constraint."""
    return read_constraint(constraint).grammar


def read_constraint(constraint: Constraint) -> SchemaGrammar:
    """The grammar, and the (pointer, keyword) pairs that it leaves out, so that a finished value has to be checked.

    Raises ConstraintError or UnsupportedSchemaError for what is wrong with the constraint.
    """
    match constraint:
        case JSONSchema(json_schema=schema, strict=strict, documents=documents, separators=separators):
            return schema_grammar(schema, strict, documents, separators)
        case Regex(pattern=pattern):
            return SchemaGrammar(ContextFreeGrammar(PatternNode(parse_full_match(pattern))))
        case Choice(texts=texts):
            return SchemaGrammar(ContextFreeGrammar(context_free.ChoiceNode(tuple(map(TextNode, texts)))))
        case Grammar(ebnf=ebnf):
            return SchemaGrammar(parse_ebnf(ebnf))
        case GrammarConstraint(build=build, check=check):
            checked = () if check is None else read_constraint(replace(check.schema, strict=False)).checked
            return SchemaGrammar(build(), checked)
    raise ConstraintError(f"constraint={constraint!r} must be a JSONSchema, Regex, Grammar or Choice")
