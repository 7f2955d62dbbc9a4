"""Types that pydantic reads: every text of their grammar validates through the type, or the type is refused by name."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import (
    BaseModel,
    ConfigDict,
    RootModel,
    TypeAdapter,
    create_model,
)

from mlx_agent_llm.bench.grammar_walks import GrammarWalk
from mlx_agent_llm.constrain.schema import schema_grammar
from mlx_agent_llm.errors import ConstraintError, UnsupportedSchemaError
from mlx_agent_llm.request.constraints import JSONSchema
from tests.support.pydantic_models import ENFORCED, REFUSED, Cat, Colour, Movie, Point, Tree


@pytest.mark.parametrize("name", ENFORCED)
def test_every_text_validates_through_the_type(name: str) -> None:
    model = create_model("Model", field=(ENFORCED[name], ...))
    constraint = JSONSchema(model)
    walk = GrammarWalk(schema_grammar(constraint.json_schema).grammar)
    validator = Draft202012Validator(constraint.json_schema)
    rng = random.Random(name)
    for _ in range(60):
        text = walk.text(rng)
        model.model_validate_json(text)
        assert validator.is_valid(json.loads(text)), text


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_type_asks_for_and_no_schema_says_is_refused_by_name(name: str) -> None:
    kind, keyword = REFUSED[name]
    model = create_model("Model", field=(kind, ...))
    with pytest.raises(UnsupportedSchemaError) as caught:
        schema_grammar(JSONSchema(model).json_schema)
    assert (caught.value.pointer, caught.value.keyword) == ("/properties/field", keyword)


@pytest.mark.parametrize("kind", [Movie, Point, Tree, Colour, RootModel[list[int]]])
def test_classes_that_pydantic_reads_are_schemas(kind: type[Any]) -> None:
    walk = GrammarWalk(schema_grammar(JSONSchema(kind).json_schema).grammar)
    for seed in range(20):
        TypeAdapter(kind).validate_json(walk.text(random.Random(seed)))


def test_a_plain_model_has_the_schema_that_pydantic_gives_it() -> None:
    assert JSONSchema(Cat).json_schema == Cat.model_json_schema()
    assert JSONSchema(Tree) == JSONSchema(Tree.model_json_schema())


def test_a_class_without_a_schema_is_a_constraint_error() -> None:
    class Odd(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        thread: random.Random

    with pytest.raises(ConstraintError, match="no JSON Schema"):
        JSONSchema(Odd)
