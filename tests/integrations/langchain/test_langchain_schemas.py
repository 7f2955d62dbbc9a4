"""Schemas of tools and formats as they were written: recursion, pydantic's types, enums, TypedDicts, strict."""

from __future__ import annotations

import enum
import json
import typing
from typing import Annotated, Any, Literal

import pytest
import typing_extensions
from langchain_core.messages import AIMessage
from langchain_core.tools import StructuredTool, tool
from pydantic import BaseModel, PastDate

from langchain_mlx_agent import ChatMLXAgent
from langchain_mlx_agent.structured import json_schema_of
from langchain_mlx_agent.tools import openai_tool
from mlx_agent_llm import ConstraintError, Engine, ToolChoiceError, UnsupportedSchemaError
from tests.support.langchain_chats import add, scripted
from tests.support.pydantic_models import MODELS, assert_is_valid_or_refused


class Node(BaseModel):
    """A node."""

    value: int
    kids: list[Node] = []


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Inner(typing.TypedDict):
    n: Annotated[int, ..., "A number."]


class Outer(typing.TypedDict):
    """An outer thing."""

    inner: Annotated[Inner, ..., "What is within."]
    note: Annotated[str | None, None, "A note."]
    others: list[Inner]


class Chain(typing.TypedDict):
    next: typing_extensions.NotRequired[Chain]
    n: int


class Loose(typing_extensions.TypedDict):
    tags: set[int]
    name: typing_extensions.NotRequired[str]


@tool
def plant(node: Node) -> str:
    """Plant a tree."""
    return f"{node.value}"


def sow(node: Node, depth: int = 1) -> str:
    """Sow it.

    Args:
        node: What is sown.
        depth: How deep.
    """
    return f"{node.value} {depth}"


@pytest.mark.parametrize(
    "given", [plant, sow, StructuredTool.from_function(sow)], ids=["tool", "function", "structured"]
)
def test_a_tool_takes_the_calls_of_a_recursive_schema(random_engine: Engine, given: Any) -> None:
    run = given if isinstance(given, StructuredTool) else StructuredTool.from_function(given)
    chat = ChatMLXAgent(engine=random_engine, temperature=1, max_tokens=400)
    bound = chat.bind_tools([given], tool_choice="any", parallel_tool_calls=False)
    for seed in range(4):
        [call] = bound.invoke("Hi", seed=seed).tool_calls
        assert run.invoke(call["args"])


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_a_recursive_class_is_read_whole(
    random_engine: Engine, method: Literal["json_schema", "function_calling"]
) -> None:
    chat = ChatMLXAgent(engine=random_engine, temperature=1, max_tokens=300)
    for seed in range(4):
        assert isinstance(chat.with_structured_output(Node, method=method).invoke("Hi", seed=seed), Node)


def test_a_function_describes_its_arguments_and_repeats_no_titles() -> None:
    function = openai_tool(sow)["function"]
    assert (function["name"], function["description"]) == ("sow", "Sow it.")
    assert function["parameters"]["properties"]["depth"] == {
        "default": 1,
        "description": "How deep.",
        "type": "integer",
    }


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_an_enum_is_its_values(method: Literal["json_schema", "function_calling"]) -> None:
    call = '<tool_call>{"name": "Mood", "arguments": {"value": "bad"}}</tool_call>'
    with scripted(['"bad"' if method == "json_schema" else call]) as chat:
        assert chat.with_structured_output(Mood, method=method).invoke("How?") is Mood.BAD


def test_typed_dicts_of_every_kind_require_their_keys_and_keep_descriptions() -> None:
    outer = json_schema_of(Outer)
    assert outer["required"] == ["inner", "others"] and outer["description"] == "An outer thing."
    assert outer["properties"]["note"]["description"] == "A note."
    assert outer["$defs"]["Inner"]["properties"]["n"] == {"description": "A number.", "title": "N", "type": "integer"}
    assert json_schema_of(Loose)["required"] == ["tags"]
    assert json_schema_of(Chain)["$defs"]["Chain"]["required"] == ["n"]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("kind", [Outer, Loose, Chain])
def test_typed_dicts_of_every_kind_are_answered(
    random_engine: Engine, kind: Any, method: Literal["json_schema", "function_calling"]
) -> None:
    chat = ChatMLXAgent(engine=random_engine, temperature=1, max_tokens=300)
    answer = chat.with_structured_output(kind, method=method).invoke("Hi", seed=1)
    assert set(json_schema_of(kind).get("required", ["n"])) <= set(answer)


@pytest.mark.parametrize("name", list(MODELS)[::6])
def test_what_pydantic_reads_is_answered_validly_or_refused_at_once(random_engine: Engine, name: str) -> None:
    check_model(random_engine, name, range(1))


@pytest.mark.long
@pytest.mark.parametrize("name", list(MODELS))
def test_every_kind_of_model_is_answered_validly_or_refused_at_once(random_engine: Engine, name: str) -> None:
    check_model(random_engine, name, range(6))


def check_model(engine: Engine, name: str, seeds: range) -> None:
    chat, model = ChatMLXAgent(engine=engine, temperature=1, max_tokens=600), MODELS[name]

    def formatted(seed: int) -> BaseModel:
        answer: BaseModel = chat.with_structured_output(model).invoke("Hi", seed=seed)
        return answer

    def called(seed: int) -> BaseModel:
        bound = chat.bind_tools([model], tool_choice="any", parallel_tool_calls=False)
        return model.model_validate_json(json.dumps(bound.invoke("Hi", seed=seed).tool_calls[0]["args"]))

    for sample in (formatted, called):
        assert_is_valid_or_refused(name, sample, seeds, (UnsupportedSchemaError, ConstraintError))


PATTERNS = [r"^\p{Lu}$", r"^(?<year>\d{4})$", r"^\u{1F600}$", r"^[\w-.]$", r"^\cA$"]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_that_python_does_not_know_are_written_and_checked_as_what_they_mean(
    random_engine: Engine, pattern: str, method: Literal["json_schema", "function_calling"]
) -> None:
    schema = {
        "title": "Answer",
        "type": "object",
        "properties": {"text": {"type": "string", "pattern": pattern}},
        "required": ["text"],
        "additionalProperties": False,
    }
    chat = ChatMLXAgent(engine=random_engine, temperature=1, max_tokens=120, seed=1)
    said = chat.with_structured_output(schema, method=method).invoke("Hi")["text"]
    assert len(said) == (4 if "year" in pattern else 1)
    tool = {"type": "function", "function": {"name": "say", "parameters": schema}}
    [call] = chat.bind_tools([tool], tool_choice="any", parallel_tool_calls=False).invoke("Hi").tool_calls
    assert len(call["args"]["text"]) == len(said)


def past(day: PastDate) -> str:
    """Note a day."""
    return str(day)


def test_a_tool_that_no_grammar_enforces_is_refused_when_it_is_bound_by_name() -> None:
    with scripted(["Hi."]) as chat:
        with pytest.raises(UnsupportedSchemaError, match=r"'PastDate' cannot be .* depends on the day .*'past'"):
            chat.bind_tools([add, past])
        with pytest.raises(UnsupportedSchemaError, match="/properties/day"):
            chat.bind_tools([past])


@pytest.mark.parametrize("where", ["model", "bind_tools", "dict", "extras"])
def test_a_tool_that_is_not_strict_is_checked_afterwards(where: str) -> None:
    call = '<tool_call>{"name": "past", "arguments": {"day": "2020-02-02"}}</tool_call>'
    given: Any = past
    if where == "dict":
        given = {"type": "function", "function": {**openai_tool(past)["function"], "strict": False, "x-mine": 1}}
    if where == "extras":
        given = StructuredTool.from_function(past, extras={"strict": False})
    with scripted([call], strict=False if where == "model" else None) as chat:
        bound = chat.bind_tools([given], strict=False if where == "bind_tools" else None)
        message = bound.invoke("When?")
    assert isinstance(message, AIMessage) and message.tool_calls[0]["args"] == {"day": "2020-02-02"}


def test_a_tool_that_runs_at_another_provider_is_refused_by_its_type() -> None:
    with scripted(["Hi."]) as chat, pytest.raises(ToolChoiceError, match="'web_search' runs at its provider"):
        chat.bind_tools([{"type": "web_search"}])


def test_the_output_schema_is_the_class_that_was_given() -> None:
    with scripted(["Hi."]) as chat:
        assert chat.with_structured_output(Node).get_output_schema() is Node
