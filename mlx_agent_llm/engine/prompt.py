"""A prompt in any of its three forms, text, token ids or chat messages, as token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mlx_agent_llm.chat import PreparedChat, prepare_chat
from mlx_agent_llm.errors import RequestError
from mlx_agent_llm.models import Tokenizer

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]


class EncodedPrompt(NamedTuple):
    """The tokens of a prompt, at least one, and after how many of them the messages of a chat end."""

    token_ids: Sequence[int]
    message_ends: Sequence[int] = ()


class PromptEncoder:
    """Encodes prompts for one model; what is wrong with one is a RequestError.

    vocab_size: of the model, which may have fewer embeddings than its tokenizer has tokens. finds_message_ends: whether
    anything is kept for other chats where messages end.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, tool_format: str, *, finds_message_ends: bool) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._tool_format = tool_format
        self._finds_message_ends = finds_message_ends

    def encode(self, prompt: Prompt, tools: Sequence[Any] | None = None) -> EncodedPrompt:
        """The tokens of a prompt; tools: those that it has if it is a chat."""
        if isinstance(prompt, bytes) or not isinstance(prompt, str | Sequence):
            raise RequestError(f"prompt={prompt!r} must be text, token ids or messages")
        if isinstance(prompt, str):
            token_ids = self._tokenizer.encode(_check_text(prompt))
        elif prompt and all(isinstance(message, Mapping) for message in prompt):
            return self.encode_chat(prepare_chat(self._tokenizer, prompt, tool_format=self._tool_format, tools=tools))
        else:
            token_ids = _check_token_ids(prompt, self._vocab_size)
        return EncodedPrompt(self._checked(token_ids, prompt))

    def encode_chat(self, chat: PreparedChat) -> EncodedPrompt:
        """The tokens of a chat's prompt."""
        token_ids = self._checked(chat.prompt_token_ids, chat.prompt_token_ids)
        return EncodedPrompt(token_ids, chat.message_ends if self._finds_message_ends else ())

    def encode_draft(self, text: str) -> list[int]:
        """The token ids of a text that an output may quote; those that the model does not know it cannot say."""
        token_ids = self._tokenizer.encode(_check_text(text, "draft_text"), add_special_tokens=False)
        return [token_id for token_id in token_ids if token_id < self._vocab_size]

    def _checked(self, token_ids: list[int], prompt: Prompt) -> list[int]:
        if not token_ids:
            raise RequestError(f"prompt={prompt!r} must hold at least one token")
        if max(token_ids) >= self._vocab_size:
            raise RequestError(f"prompt has token {max(token_ids)}: must be below the vocabulary's {self._vocab_size}")
        return token_ids


def _check_text(text: str, name: str = "prompt") -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"{name}={text!r} must be text that UTF-8 can encode: {error}") from None
    return text


def _check_token_ids(prompt: Sequence[Any], vocab_size: int) -> list[int]:
    for index, value in enumerate(prompt):
        if isinstance(value, bool) or not isinstance(value, int):
            raise RequestError(f"prompt[{index}]={value!r} must be a token id; a prompt is text, token ids or messages")
        if not 0 <= value < vocab_size:
            raise RequestError(f"prompt[{index}]={value} must be between 0 and {vocab_size - 1}")
    return list(prompt)
