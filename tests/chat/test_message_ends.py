"""Where a prompt's messages end: never behind where they do, whatever a template makes of them."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_agent_llm.chat import prepare_chat
from mlx_agent_llm.models import LoadedModel
from mlx_agent_llm.testing import ByteTokenizer
from tests.support.search import examples

TOKENIZER = ByteTokenizer()


def ends(messages: list[dict[str, Any]]) -> list[bytes]:
    """What of the prompt comes before each end."""
    chat = prepare_chat(TOKENIZER, messages)
    table = [*TOKENIZER.token_bytes[:256], *(text.encode() for text in TOKENIZER.special_token_texts.values())]
    return [b"".join(table[token_id] for token_id in chat.prompt_token_ids[:end]) for end in chat.message_ends]


def test_each_message_ends_with_its_text() -> None:
    found = ends(
        [
            {"role": "system", "content": " Be brief.\n"},
            {"role": "user", "content": "Überall?"},
            {"role": "assistant", "content": "Nowhere."},
            {"role": "user", "content": "<|im_end|> is a word"},
        ]
    )
    lasts = [text[-9:].decode(errors="ignore").lstrip("\n") for text in found]
    assert lasts == ["Be brief.", "Überall?", "Nowhere.", "is a word"]


def test_a_message_without_text_has_no_end_of_its_own() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [{"role": "user", "content": "Go"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    assert len(ends([*messages, {"role": "tool", "tool_call_id": "1", "content": "done"}])) == 2


@settings(max_examples=examples(20))
@given(st.lists(st.text(alphabet="as \né", max_size=6), min_size=1, max_size=5))
def test_an_end_is_never_behind_its_message(contents: list[str]) -> None:
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": content} for index, content in enumerate(contents)]
    true_ends: list[int] = []
    text = ""
    for message in messages:
        text += f"<|im_start|>{message['role']}\n{message['content']}"
        if message["content"].strip():
            true_ends.append(len(text.encode()))
        text += "<|im_end|>\n"
    found = [len(before) for before in ends(messages)]
    assert found == sorted(set(found)) and len(found) <= len(true_ends)
    assert not found or found[-1] <= true_ends[-1]


def test_ends_are_counted_in_tokens_of_a_real_tokenizer(demo: LoadedModel) -> None:
    tokenizer = demo.tokenizer
    messages = [{"role": "system", "content": "You help people."}, {"role": "user", "content": "Où est-ce ? 東京"}]
    chat = prepare_chat(tokenizer, messages)
    texts = [tokenizer.decode(chat.prompt_token_ids[:end]) for end in chat.message_ends]
    assert [text.rpartition("\n")[2] for text in texts] == [message["content"] for message in messages]
