"""Chat requests: what may come in, what the model is shown, and what comes out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from mlx_agent_llm.chat import ChatDelta, ChatOutput, PreparedChat, Tool, ToolCall, as_tool, fold_chat, prepare_chat
from mlx_agent_llm.chat.messages import read_messages
from mlx_agent_llm.chat.tools import as_tools, plan_tools
from mlx_agent_llm.errors import ConstraintError, RequestError, ToolChoiceError, UnsupportedSchemaError
from mlx_agent_llm.request import Delta, FinishReason, Timings, Usage
from mlx_agent_llm.request.constraints import JSONSchema

ASK = [{"role": "user", "content": "Hi"}]
BROKEN = {"id": "b1", "text": "<tool_call>{", "error": "the token budget ended inside the call"}
CALL = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
NOW = Tool("now", "The time.")
ADD_SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}


class LetterTokenizer:
    """A token a byte; a template that writes every message as [role]content."""

    vocab_size = 257
    eos_token_ids = frozenset({256})
    special_token_texts: Mapping[int, str] = {256: "<eos>"}
    token_bytes = (*(bytes([value]) for value in range(256)), b"")
    strip_leading_space = False

    def __init__(self, chat_template: str | None = "[role]content", roles: str = "system user assistant") -> None:
        self.chat_template = chat_template
        self._roles = roles.split()

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return ([256] if add_special_tokens else []) + list(text.encode())

    def decode(self, token_ids: Sequence[int]) -> str:
        return bytes(token_id for token_id in token_ids if token_id < 256).decode()

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> str:
        if tools or kwargs:
            raise RequestError("this template knows no tools and no options")
        for message in messages:
            if message["role"] not in self._roles:
                raise RequestError(f"the model's chat template refuses these messages: no role {message['role']}")
        return "".join(f"[{message['role']}]{message['content']}" for message in messages) + "[assistant]"


def prompt_of(messages: Any, **options: Any) -> str:
    tokenizer = LetterTokenizer()
    return tokenizer.decode(prepare_chat(tokenizer, messages, **options).prompt_token_ids)


def prepare(**options: Any) -> PreparedChat:
    return prepare_chat(LetterTokenizer(), ASK, **options)


def run(chat: PreparedChat, *texts: str, reason: FinishReason = "stop") -> list[ChatDelta]:
    deltas = [Delta(text) for text in texts[:-1]]
    deltas.append(Delta(texts[-1], finish_reason=reason, usage=Usage(5, 2, len(texts)), timings=Timings(0.1, 0.2, 0.3)))
    return [chat_delta for delta in deltas for chat_delta in chat.parser.feed(delta)]


# ---- messages


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "messages=.* must be a non-empty list"),
        ("Hi", "messages='Hi' must be a non-empty list"),
        ({"role": "user", "content": "Hi"}, "must be a non-empty list"),
        (["Hi"], r"messages\[0\]='Hi' must be a dict"),
        (
            [{"role": "robot", "content": ""}],
            r"messages\[0\].role='robot' must be one of 'system', 'developer', 'user'",
        ),
        ([{"content": "Hi"}], r"messages\[0\].role=None must be one of"),
        ([*ASK, {"role": "user"}], r"messages\[1\].content=None must be a string"),
        ([{"role": "assistant", "content": None}], r"messages\[0\].content=None"),
        ([{"role": "user", "content": []}], r"messages\[0\].content=\[\] must be"),
        ([{"role": "user", "content": 3}], r"messages\[0\].content=3 must be"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], r"content\[0\]=.*only text"),
        ([{"role": "user", "content": [{"type": "text", "text": None}]}], r"content\[0\]="),
        ([{"role": "user", "content": "Hi", "audio": "x"}], r"messages\[0\].audio='x' is not supported"),
        ([{"role": "user", "content": "", "tool_calls": [CALL]}], r"messages\[0\].tool_calls=.*role 'assistant'"),
        ([{"role": "assistant", "tool_calls": [3]}], r"messages\[0\].tool_calls\[0\]=3 must be"),
        ([{"role": "assistant", "tool_calls": [{**CALL, "id": 7}]}], r"tool_calls\[0\].id=7 must be"),
        ([{"role": "assistant", "tool_calls": [{**CALL, "function": {"name": ""}}]}], r"function.name=''"),
        ([{"role": "user", "content": "", "invalid_tool_calls": [BROKEN]}], r"invalid_tool_calls=.*role 'assistant'"),
        ([{"role": "assistant", "invalid_tool_calls": [{"id": "b1"}]}], r"invalid_tool_calls\[0\]=.*'text'"),
        ([{"role": "assistant", "tool_calls": [{**CALL, "function": {"name": 1}}]}], r"function.name=1"),
        (
            [{"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "{"}}]}],
            r"messages\[0\].tool_calls\[0\].function.arguments='{' is not JSON",
        ),
        (
            [{"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "[]"}}]}],
            r"arguments='\[\]' must be a JSON object",
        ),
        ([{"role": "tool", "content": "1", "tool_call_id": "c1"}], r"tool_call_id='c1' must be .* known ids: none"),
        (
            [{"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": "1"}],
            r"messages\[1\].tool_call_id=None must be .* known ids: 'c1'",
        ),
        (
            [
                {"role": "assistant", "tool_calls": [CALL]},
                *[{"role": "tool", "content": "1", "tool_call_id": "c1"}] * 2,
            ],
            r"messages\[2\].tool_call_id='c1' is answered a second time: put all of a result into one message",
        ),
        ([{"role": "user", "content": "1", "tool_call_id": "c1"}], r"tool_call_id='c1' is allowed in .* 'tool' only"),
    ],
)
def test_bad_messages_are_refused_with_place_and_value(messages: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        prepare_chat(LetterTokenizer(), messages)


def test_messages_come_in_one_form() -> None:
    messages = read_messages(
        [
            {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "user", "content": "", "name": "Ann"},
            {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None},
            {"role": "tool", "content": "noon", "tool_call_id": "c1"},
        ]
    )
    assert [message.role for message in messages] == ["system", "user", "assistant", "tool"]
    assert messages[0].content == "a\nb" and messages[2].content == ""
    assert messages[2].tool_calls == (ToolCall("c1", "now", {}, "{}"),)
    assert messages[3].tool_call_id == "c1"


def test_parts_stand_on_lines_of_their_own_but_for_the_pieces_of_an_answer() -> None:
    parts = [{"type": "text", "text": text} for text in ("12", "34", "5")]
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": parts, "tool_calls": [CALL]}]
    read = read_messages([*turns, {"role": "tool", "content": parts, "tool_call_id": "c1"}])
    assert [message.content for message in read] == ["12\n34\n5", "12345", "12\n34\n5"]


def test_an_invalid_call_stays_as_its_text_and_its_answer_is_a_users_turn() -> None:
    turn = {"role": "assistant", "content": "Hm. ", "tool_calls": [CALL], "invalid_tool_calls": [BROKEN]}
    answers = [
        {"role": "tool", "content": text, "tool_call_id": call_id} for call_id, text in (("b1", "No."), ("c1", "1"))
    ]
    read = read_messages([*ASK, turn, *answers])
    assert [(message.role, message.content) for message in read[1:]] == [
        ("assistant", "Hm. <tool_call>{"),
        ("tool", "1"),
        ("user", "<tool_response>No.</tool_response>"),
    ]
    assert "<tool_call>{" in prompt_of([*ASK, turn, *answers])


def test_answers_without_an_id_are_those_of_the_calls_without_one_in_order() -> None:
    calls = [{**CALL, "id": ""}, {**CALL, "id": None}, CALL]
    answers = [{"role": "tool", "content": str(n)} for n in (1, 2)]
    named = {"role": "tool", "content": "3", "tool_call_id": "c1"}
    read = read_messages([*ASK, {"role": "assistant", "tool_calls": calls}, *ASK, answers[0], named, answers[1]])
    ids = [call.id for call in read[1].tool_calls]
    assert len(set(ids)) == 3 and [message.tool_call_id for message in read[3:]] == [ids[0], "c1", ids[1]]


def test_a_call_may_have_the_id_of_an_earlier_one_that_was_answered() -> None:
    turns = [{"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": "1", "tool_call_id": "c1"}]
    assert len(read_messages([*ASK, *turns, *turns])) == 5


# ---- the prompt


def test_any_json_object_is_asked_for_in_words() -> None:
    prompt = prompt_of(ASK, response_format={"type": "json_object"})
    assert prompt == "[system]Answer with a JSON object.[user]Hi[assistant]"


def test_without_tools_the_messages_are_shown_as_they_are() -> None:
    messages = [{"role": "system", "content": "Be brief."}, *ASK]
    assert prompt_of(messages) == "[system]Be brief.[user]Hi[assistant]"
    assert prompt_of(ASK) == "[user]Hi[assistant]"
    assert prepare().constraint is None


def test_the_templates_own_special_tokens_are_not_doubled() -> None:
    assert 256 not in prepare().prompt_token_ids


def test_agents_with_the_same_tools_share_the_prompt_up_to_their_own_system_text() -> None:
    one, two = (prompt_of([{"role": "system", "content": text}, *ASK], tools=[NOW]) for text in ("You one.", "Me two."))
    shared = one.index("You one.")
    assert one[:shared] == two[:shared]
    assert '"name": "now"' in one[:shared] and one[shared:] == "You one.[user]Hi[assistant]"


def test_the_prompt_is_the_same_for_every_choice_of_the_same_tools() -> None:
    prompts = {prompt_of(ASK, tools=[NOW], tool_choice=choice) for choice in (None, "auto", "none", "required", "now")}
    assert len(prompts) == 1


def test_calls_and_results_of_the_history_are_shown_in_the_wire_form() -> None:
    again = {**CALL, "id": "c2"}
    history = [
        *ASK,
        {"role": "assistant", "content": "", "tool_calls": [CALL, again]},
        {"role": "tool", "content": "noon", "tool_call_id": "c1"},
        {"role": "tool", "content": "one", "tool_call_id": "c2"},
    ]
    call = '<tool_call>{"name": "now", "arguments": {}}</tool_call>'
    assert prompt_of(history) == (
        f"[user]Hi[assistant]{call}\n{call}"
        "[user]<tool_response>noon</tool_response>\n<tool_response>one</tool_response>[assistant]"
    )


def test_a_response_format_is_shown_at_the_end_of_the_system_turn() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    prompt = prompt_of([{"role": "system", "content": "S"}, *ASK], response_format=schema)
    assert prompt == f"[system]S\n\nAnswer with JSON that fits this schema:\n{json.dumps(schema)}[user]Hi[assistant]"


def test_a_model_without_a_template_cannot_chat() -> None:
    with pytest.raises(RequestError, match="no chat template"):
        prepare_chat(LetterTokenizer(chat_template=None), ASK)


def test_a_template_without_a_system_role_gets_its_text_in_the_first_turn_of_the_user() -> None:
    tokenizer = LetterTokenizer(roles="user assistant")
    prompt = tokenizer.decode(prepare_chat(tokenizer, ASK, tools=[NOW]).prompt_token_ids)
    assert '"name": "now"' in prompt and prompt.index('"name": "now"') < prompt.index(ASK[0]["content"])
    with pytest.raises(RequestError, match="messages need one of the user"):
        prepare_chat(tokenizer, [{"role": "system", "content": "alone"}])


# ---- tools


class Search(BaseModel):
    """Searches the web."""

    query: str = Field(description="what to look for")
    limit: int = Field(default=5, ge=1, le=10)


def convert(value: float, unit: Literal["m", "ft"] = "m") -> float:
    """Convert a length."""
    return value if unit == "m" else value * 3.28


def test_tools_come_in_every_form() -> None:
    function = {"name": "add", "description": "Adds.", "parameters": ADD_SCHEMA}
    add = Tool("add", "Adds.", ADD_SCHEMA)
    assert as_tool(add) is add
    assert as_tool({"type": "function", "function": {**function, "strict": True}}) == add
    assert as_tool(function) == add
    assert as_tool({"name": "now"}) == Tool("now", "", {"type": "object", "properties": {}})
    search = as_tool(Search)
    assert (search.name, search.description) == ("Search", "Searches the web.")
    assert search.parameters["properties"]["limit"]["maximum"] == 10 and search.parameters["required"] == ["query"]
    converter = as_tool(convert)
    assert (converter.name, converter.description) == ("convert", "Convert a length.")
    assert converter.parameters["required"] == ["value"]
    assert converter.parameters["properties"]["unit"]["enum"] == ["m", "ft"]
    assert list(as_tool(shadow).parameters["properties"]) == ["json", "_hidden"]
    assert [tool.name for tool in as_tools([Search, convert, function])] == ["Search", "convert", "add"]


class FrameworkTool:
    """Has the attributes of LangChain's tools, and can be called as they can."""

    name, description, tool_call_schema = "search", "Searches.", Search

    def __call__(self, *arguments: Any) -> None:
        raise AssertionError("nobody calls it")


class Metadata:
    """What LlamaIndex's tools tell of themselves."""

    name, description = "add", None

    def get_parameters_dict(self) -> dict[str, Any]:
        return ADD_SCHEMA


class IndexTool:
    """Has the attribute of LlamaIndex's tools."""

    metadata = Metadata()


def test_tools_of_frameworks_are_known_by_their_attributes() -> None:
    search = as_tool(FrameworkTool())
    assert (search.name, search.description, search.parameters["required"]) == ("search", "Searches.", ["query"])
    assert as_tool(IndexTool()) == Tool("add", "", ADD_SCHEMA)


def test_real_tools_of_frameworks_are_taken() -> None:
    langchain_tools = pytest.importorskip("langchain_core.tools")
    found = as_tool(langchain_tools.StructuredTool.from_function(convert))
    assert (found.name, found.description) == ("convert", "Convert a length.")
    assert found.parameters["required"] == ["value"]


async def shadow(json: str, _hidden: bool = False) -> None:
    """Has parameters with names that pydantic uses itself."""


def no_annotation(value):  # type: ignore[no-untyped-def]
    """Has none."""


def many(*values: int) -> None:
    """Takes many."""


def unknown(value: NoSuchType) -> None:  # type: ignore[name-defined]  # noqa: F821
    """Names a type that does not exist."""


def opaque(value: LetterTokenizer) -> None:
    """Takes what JSON cannot hold."""


@pytest.mark.parametrize(
    ("tools", "error", "message"),
    [
        ([{"name": "a b"}], ToolChoiceError, "tool name='a b' must be"),
        ([{"name": ""}], ToolChoiceError, "tool name='' must be"),
        ([{"name": "x" * 65}], ToolChoiceError, "must be 1 to 64"),
        ([{"name": None}], ToolChoiceError, "tool name=None"),
        ([{}], ToolChoiceError, "must have a name"),
        ([{"type": "function", "function": "add"}], ToolChoiceError, "must have a name"),
        ([3], ToolChoiceError, "tool=3 must be a Tool"),
        ([{"name": "f", "strict": "no"}], ToolChoiceError, "tool 'f': strict='no' must be True or False"),
        ([{"name": "f", "description": 3}], ToolChoiceError, "tool 'f': description=3"),
        ([{"name": "f", "parameters": []}], ToolChoiceError, r"tool 'f': parameters=\[\] must be"),
        ([{"name": "f", "parameters": {"type": "array"}}], ToolChoiceError, "tool 'f': parameters=.*'object'"),
        ([NOW, {"name": "now"}], ToolChoiceError, r"tools\[1\].name='now' is declared twice"),
        ([no_annotation], ToolChoiceError, "tool 'no_annotation': parameter 'value' needs an annotation"),
        ([many], ToolChoiceError, "tool 'many': parameter 'values' must be one that is passed by name"),
        ([unknown], ToolChoiceError, "tool 'unknown': its annotations are no JSON Schema"),
        ([opaque], ToolChoiceError, "tool 'opaque': its annotations are no JSON Schema"),
        (
            [
                {
                    "name": "f",
                    "parameters": {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}},
                }
            ],
            UnsupportedSchemaError,
            "/properties/a: 'uniqueItems' .*tool 'f'",
        ),
        ([{"name": "f", "parameters": {"type": "object", "properties": 1}}], ConstraintError, "tool 'f': .*properties"),
    ],
)
def test_bad_tools_are_refused_by_name(tools: Any, error: type[RequestError], message: str) -> None:
    with pytest.raises(error, match=message):
        prepare(tools=tools)


ADD = {"type": "function", "function": {"name": "add"}}


@pytest.mark.parametrize(
    ("choice", "mode", "names"),
    [
        (None, "auto", {"now", "add"}),
        (False, "auto", {"now", "add"}),
        ("auto", "auto", {"now", "add"}),
        ("none", "none", set()),
        ("required", "required", {"now", "add"}),
        ("any", "required", {"now", "add"}),
        (True, "required", {"now", "add"}),
        ("add", "required", {"add"}),
        ({"type": "function", "function": {"name": "add"}}, "required", {"add"}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": ["add"]}}, "auto", {"add"}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [ADD]}}, "required", {"add"}),
    ],
)
def test_every_form_of_tool_choice(choice: Any, mode: str, names: set[str]) -> None:
    plan = plan_tools((NOW, Tool("add", "", ADD_SCHEMA)), choice)
    assert plan.mode == mode and {tool.name for tool in plan.callable} == names
    assert len(plan.shown) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tools": [NOW], "tool_choice": "later"}, "tool_choice='later' must be .*known tools: 'now'"),
        ({"tool_choice": "later"}, "tool_choice='later' .*known tools: none"),
        ({"tool_choice": "required"}, "tool_choice='required' needs tools"),
        ({"tool_choice": True}, "tool_choice=True needs tools"),
        ({"tools": [], "tool_choice": "any"}, "needs tools"),
        ({"tools": [NOW], "tool_choice": 3}, "tool_choice=3 must be"),
        ({"tools": [NOW], "tool_choice": {"type": "function"}}, "tool_choice=.* must be"),
        ({"tools": [NOW], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice='x'"),
        ({"tools": [NOW], "tool_choice": {"type": "allowed_tools"}}, "allowed_tools=None must have a mode"),
        (
            {
                "tools": [NOW],
                "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [ADD]}},
            },
            "tool_choice='add' .*known tools: 'now'",
        ),
        ({"tools": [NOW], "parallel_tool_calls": "no"}, "parallel_tool_calls='no' must be True or False"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolChoiceError, match=message):
        prepare(**options)


def test_choices_that_need_no_tools_are_fine_without_them() -> None:
    for choice in (None, False, "auto", "none"):
        assert prepare(tool_choice=choice).constraint is None


# ---- the reply


def test_a_plain_reply_streams_through() -> None:
    deltas = run(prepare(), "He", "llo <tool_call>", "")
    assert [delta.text for delta in deltas] == ["He", "llo <tool_call>", ""]
    output = fold_chat(deltas)
    assert output == ChatOutput(
        "Hello <tool_call>", "", (), (), "stop", Usage(5, 2, 3), Timings(0.1, 0.2, 0.3), parsed=None, parse_error=None
    )


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("stop", "tool_calls"), ("length", "length"), ("cancelled", "cancelled"), ("error", "error")],
)
def test_a_reply_with_calls_ends_with_tool_calls_unless_it_was_stopped(
    reason: FinishReason, expected: FinishReason
) -> None:
    deltas = run(prepare(tools=[NOW]), '<tool_call>{"name": "now", ', '"arguments": {}}</tool_call>', reason=reason)
    output = fold_chat(deltas)
    assert output.finish_reason == expected
    assert [(call.name, call.arguments) for call in output.tool_calls] == [("now", {})]
    assert output.text == ""


def test_a_reply_with_nothing_but_a_broken_call_is_no_tool_call() -> None:
    output = fold_chat(run(prepare(tools=[NOW]), "<tool_call>{", reason="length"))
    assert output.finish_reason == "length" and not output.tool_calls
    assert output.invalid_tool_calls[0].text == "<tool_call>{"


class Answer(BaseModel):
    """An answer."""

    value: int


RAW_SCHEMA = {"type": "object", "properties": {"value": {"type": "integer"}}, "required": ["value"]}


@pytest.mark.parametrize(
    ("response_format", "expected"),
    [
        (Answer, Answer(value=3)),
        (JSONSchema(Answer), Answer(value=3)),
        (RAW_SCHEMA, {"value": 3}),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": RAW_SCHEMA, "strict": True}}, {"value": 3}),
        ({"type": "json_object"}, {"value": 3}),
    ],
)
def test_a_response_format_constrains_and_parses(response_format: Any, expected: Any) -> None:
    chat = prepare(response_format=response_format)
    assert isinstance(chat.constraint, JSONSchema)
    output = fold_chat(run(chat, '{"value":', " 3}"))
    assert output.parsed == expected and output.parse_error is None
    assert output.text == '{"value": 3}' and output.finish_reason == "stop"


def test_a_cut_off_answer_is_not_parsed_and_a_wrong_one_says_why() -> None:
    cut = fold_chat(run(prepare(response_format=Answer), '{"value": 3', reason="length"))
    assert (cut.parsed, cut.finish_reason) == (None, "length") and cut.parse_error is not None
    exact = fold_chat(run(prepare(response_format=Answer), '{"value": 3}', reason="length"))
    assert exact.parsed == Answer(value=3), "a text that ends just where the budget does"
    stopped = fold_chat(run(prepare(response_format=RAW_SCHEMA), '{"val'))
    assert stopped.parsed is None and stopped.parse_error
    wrong = fold_chat(run(prepare(response_format=RAW_SCHEMA), '{"value": "x"}'))
    assert wrong.parse_error == "$.value: 'x' is not of type 'integer'"
    dated = {**RAW_SCHEMA, "properties": {"value": {"type": "string", "format": "date-time"}}}
    wrong = fold_chat(run(prepare(response_format=dated), '{"value": "noon"}'))
    assert wrong.parse_error == "$.value: 'noon' is not a 'date-time'"
    wrong = fold_chat(run(prepare(response_format=Answer), '{"value": "x"}'))
    assert wrong.parse_error is not None and wrong.parse_error.startswith("value: ")


def test_tools_beside_a_response_format_give_calls_or_the_answer() -> None:
    call = '<tool_call>{"name": "now", "arguments": {}}</tool_call>'
    called = fold_chat(run(prepare(tools=[NOW], response_format=Answer), call))
    assert called.finish_reason == "tool_calls" and called.parsed is None and called.parse_error is None
    answered = fold_chat(run(prepare(tools=[NOW], response_format=Answer), '{"value": 4}'))
    assert answered.parsed == Answer(value=4) and not answered.tool_calls


@pytest.mark.parametrize(
    ("response_format", "error"),
    [
        ("json", ConstraintError),
        (3, ConstraintError),
        ({"type": "json_schema"}, RequestError),
        ({"type": "json_schema", "json_schema": {"name": "a"}}, RequestError),
        ({"type": "array", "uniqueItems": True}, UnsupportedSchemaError),
        ({"type": "yaml"}, ConstraintError),
    ],
)
def test_bad_response_formats_are_refused(response_format: Any, error: type[RequestError]) -> None:
    with pytest.raises(error):
        prepare(response_format=response_format)


def test_text_is_no_response_format() -> None:
    assert prepare(response_format={"type": "text"}).constraint is None
