"""What each kind of constraint is as a context-free grammar: all that the backends and the closing know of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from mlx_agent_llm.constrain.schema import SchemaGrammar, schema_grammar
from mlx_agent_llm.constrain.violation import violation
from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.languages import context_free
from mlx_agent_llm.languages.context_free import ContextFreeGrammar, PatternNode, TextNode
from mlx_agent_llm.languages.context_free.ebnf_parser import parse_ebnf
from mlx_agent_llm.languages.regex import parse_full_match
from mlx_agent_llm.request.constraints import Choice, Constraint, Grammar, JSONSchema, Regex


class Verdict(NamedTuple):
    """Whether a complete text held something to check, and what is wrong with it."""

    is_checked: bool
    problem: str | None = None


class Check(NamedTuple):
    """What a complete text is checked for: that its JSON is valid for schemas which the grammar enforces in part."""

    schemas: tuple[JSONSchema, ...]
    judge: Callable[[str], Verdict]


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
            return Check((constraint,), partial(judge_json, constraint))
        case GrammarConstraint(check=check):
            return check
    return None


def judge_json(schema: JSONSchema, text: str) -> Verdict:
    """Whether a whole text is JSON that is valid for the schema."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Verdict(True, f"the output is no JSON: {error}")
    problem = violation(schema.json_schema, value, schema.documents)
    return Verdict(True, None if problem is None else f"the output breaks the schema at {problem}")


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
            schemas = () if check is None else check.schemas
            checked = (pair for schema in schemas for pair in read_constraint(replace(schema, strict=False)).checked)
            return SchemaGrammar(build(), tuple(dict.fromkeys(checked)))
    raise ConstraintError(f"constraint={constraint!r} must be a JSONSchema, Regex, Grammar or Choice")
