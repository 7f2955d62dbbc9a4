"""Types that pydantic reads: every text of their grammar validates through the type, or the type is refused by name."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import ipaddress
import json
import random
import uuid
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NotRequired

import pytest
from jsonschema import Draft202012Validator
from pydantic import (
    UUID4,
    AnyUrl,
    AwareDatetime,
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    FutureDatetime,
    HttpUrl,
    IPvAnyAddress,
    Json,
    NaiveDatetime,
    PastDate,
    RootModel,
    StrictInt,
    StringConstraints,
    TypeAdapter,
    create_model,
)
from typing_extensions import TypedDict

from mlx_agent_llm.constrain.schema import schema_grammar
from mlx_agent_llm.errors import ConstraintError, UnsupportedSchemaError
from mlx_agent_llm.request.constraints import JSONSchema
from tests.support.grammar_walks import GrammarWalk


class Colour(enum.Enum):
    RED = "red"
    TWO = 2


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=1, le=9)]


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str = "Rex"


class Tree(BaseModel):
    value: int
    children: list[Tree] = []


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int | None = None


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int = Field(alias="A")


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Pair(NamedTuple):
    first: int
    second: str


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


ENFORCED: dict[str, Any] = {
    "scalars": tuple[int, float, bool, str, None],
    "optional": int | None,
    "union": int | str | list[float],
    "literals": Literal[1, "a", True, None],
    "enum": Colour,
    "bounds": Annotated[float, Field(gt=0, lt=1)],
    "multiples": Annotated[int, Field(multiple_of=7, ge=-50)],
    "float multiples": Annotated[float, Field(multiple_of=0.5)],
    "strict": StrictInt,
    "lengths": Annotated[str, Field(min_length=3, max_length=300)],
    "pattern": Annotated[str, Field(pattern=r"^[a-z]+\d$", max_length=4)],
    "stripped": Annotated[str, StringConstraints(strip_whitespace=True, min_length=2)],
    "list": Annotated[list[int], Field(min_length=1, max_length=3)],
    "set": set[int],
    "set of one or more": Annotated[frozenset[str], Field(min_length=1)],
    "set of two of a few": Annotated[set[bool], Field(min_length=2)],
    "dict": dict[str, int],
    "dict of some": Annotated[dict[str, int], Field(min_length=1, max_length=2)],
    "dict of literals": dict[Literal["x", "y"], int],
    "dict of integers": dict[int, str],
    "dict of booleans": dict[bool, None],
    "dict of dates": dict[datetime.date, int],
    "dict of patterns": dict[Annotated[str, Field(pattern="^a")], int],
    "named tuple": Pair,
    "typed dict": Movie,
    "dataclass": Point,
    "model": Closed,
    "open model": Open,
    "recursive model": Tree,
    "discriminated union": Annotated[Cat | Dog, Field(discriminator="kind")],
    "plain union of models": Cat | Dog,
    "date": datetime.date,
    "time": datetime.time,
    "datetime": datetime.datetime,
    "aware datetime": AwareDatetime,
    "naive datetime": NaiveDatetime,
    "timedelta": datetime.timedelta,
    "decimal": Decimal,
    "decimal bounds": Annotated[Decimal, Field(gt=0, lt=Decimal("0.3"))],
    "decimal digits": Annotated[Decimal, Field(max_digits=5, decimal_places=2, ge=0)],
    "decimal places": Annotated[Decimal, Field(decimal_places=2)],
    "uuid": uuid.UUID,
    "uuid4": UUID4,
    "url": AnyUrl,
    "http": HttpUrl,
    "ip": IPvAnyAddress,
    "ipv6": ipaddress.IPv6Address,
    "ipv4 network": ipaddress.IPv4Network,
    "bytes": Annotated[bytes, Field(max_length=3)],
    "base64": Base64Bytes,
    "any": Any,
}
REFUSED: dict[str, tuple[Any, str]] = {
    "a date of the past": (PastDate, "PastDate"),
    "a time to come": (FutureDatetime, "FutureDatetime"),
    "a bounded date": (Annotated[datetime.date, Field(ge=datetime.date(2020, 1, 1))], "ge"),
    "a bounded duration": (Annotated[datetime.timedelta, Field(lt=datetime.timedelta(1))], "lt"),
    "digits within bounds": (Annotated[Decimal, Field(decimal_places=2, lt=5)], "lt"),
    "a set of two": (Annotated[set[int], Field(min_length=2)], "uniqueItems"),
    "bounded keys": (dict[Annotated[int, Field(ge=1)], int], "ge"),
    "lower case": (Annotated[str, StringConstraints(to_lower=True, pattern="^[a-z]*$")], "to_lower"),
    "JSON in a string": (Json[int], "format"),
    "complex numbers": (complex, "format"),
}


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
