"""Types of all kinds that pydantic reads: those that a grammar enforces, and those that are refused by name."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import ipaddress
import pathlib
import uuid
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NotRequired

import pytest
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
    SecretStr,
    StrictInt,
    StringConstraints,
    create_model,
)
from typing_extensions import TypedDict


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
    "ipv4": ipaddress.IPv4Address,
    "path": pathlib.Path,
    "secret": SecretStr,
    "sequence": Sequence[int],
    "list of pairs": Annotated[list[tuple[int, str]], Field(max_length=2)],
    "a set of two": Annotated[set[int], Field(min_length=2)],
}
REFUSED: dict[str, tuple[Any, str]] = {
    "a date of the past": (PastDate, "PastDate"),
    "a time to come": (FutureDatetime, "FutureDatetime"),
    "a bounded date": (Annotated[datetime.date, Field(ge=datetime.date(2020, 1, 1))], "ge"),
    "a bounded duration": (Annotated[datetime.timedelta, Field(lt=datetime.timedelta(1))], "lt"),
    "digits within bounds": (Annotated[Decimal, Field(decimal_places=2, lt=5)], "lt"),
    "bounded keys": (dict[Annotated[int, Field(ge=1)], int], "ge"),
    "lower case": (Annotated[str, StringConstraints(to_lower=True, pattern="^[a-z]*$")], "to_lower"),
    "JSON in a string": (Json[int], "json"),
    "complex numbers": (complex, "complex"),
}

MODELS: dict[str, type[BaseModel]] = {
    name: create_model("Model", field=(kind, ...))
    for name, kind in {**ENFORCED, **{name: kind for name, (kind, _) in REFUSED.items()}}.items()
}


def assert_is_valid_or_refused(
    model_name: str, sample: Callable[[int], BaseModel], seeds: Sequence[int], refusals: tuple[type[Exception], ...]
) -> None:
    """Sample answers of a model class, which reads each itself; one that no grammar enforces is refused by name."""
    if model_name in REFUSED:
        with pytest.raises(refusals, match=f"'{REFUSED[model_name][1]}'"):
            sample(0)
        return
    for seed in seeds:
        assert isinstance(sample(seed), MODELS[model_name])
