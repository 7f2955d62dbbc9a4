"""What the engine asks of a tokenizer, and the one over Hugging Face's fast tokenizers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mlx_agent_llm.errors import ModelLoadError, RequestError, UnsupportedModelError

_SPACE_MARK = "\u2581"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Tokenizer(Protocol):
    """Text to token ids and back; ids run from 0 to vocab_size - 1."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids, unused ones included; the model's logits may be wider."""

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """The ids that end an output."""

    @property
    def special_token_texts(self) -> Mapping[int, str]:
        """Token id -> its name, of the tokens that are markup and no text: decode skips them."""

    @property
    def token_bytes(self) -> Sequence[bytes]:
        """Token id -> the bytes that it adds to the text, b"" for special and unused tokens."""

    @property
    def strip_leading_space(self) -> bool:
        """Whether decode drops one space at the start of the text (SentencePiece)."""

    @property
    def chat_template(self) -> str | None:
        """The source of the chat template; None when there is none."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The token ids of `text`; special tokens that are written out in it become their ids."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of `token_ids` without special tokens."""

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> str:
        """Render the prompt text, to be encoded without adding special tokens; RequestError if the template fails."""


class HFTokenizer:
    """A byte-level or SentencePiece-like fast tokenizer; one with another decoder is an UnsupportedModelError.

    eos_token_ids: end tokens beside the tokenizer's own one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, eos_token_ids: Iterable[int] = ()) -> None:
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise UnsupportedModelError(f"the tokenizer {type(tokenizer).__name__} has no fast (tokenizers) backend")
        self._tokenizer = tokenizer
        self._backend: Backend = tokenizer.backend_tokenizer
        # A tokenizer.json may ask for truncation or padding, which must not happen to prompts.
        self._backend.no_truncation()
        self._backend.no_padding()
        self._decoder = _read_decoder(self._backend)
        self._special_token_texts: Mapping[int, str] = {
            token_id: token.content
            for token_id, token in self._backend.get_added_tokens_decoder().items()
            if token.special
        }
        self._vocab_size = max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        self._eos_token_ids = frozenset([*own, *eos_token_ids])
        for token_id in self._eos_token_ids:
            if not 0 <= token_id < self._vocab_size:
                raise ModelLoadError(f"eos_token_id={token_id} must be between 0 and {self._vocab_size - 1}")

    @property
    def vocab_size(self) -> int:
        """The largest token id, plus one."""
        return self._vocab_size

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """The ids that end an output."""
        return self._eos_token_ids

    @property
    def special_token_texts(self) -> Mapping[int, str]:
        """Token id -> its name, of the tokens that are markup and no text."""
        return self._special_token_texts

    @cached_property
    def token_bytes(self) -> Sequence[bytes]:
        """Token id -> the bytes that it adds to the text, b"" for special and unused tokens."""
        table = [b""] * self._vocab_size
        for token, token_id in self._backend.get_vocab(with_added_tokens=True).items():
            if token_id not in self._special_token_texts:
                table[token_id] = self._decoder.to_bytes(token)
        return table

    @property
    def strip_leading_space(self) -> bool:
        """Whether decode drops one space at the start of the text."""
        return self._decoder.strip_leading_space

    @property
    def chat_template(self) -> str | None:
        """The source of the chat template, of the one for tools when there are several."""
        return self._template_for(has_tools=True)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The token ids of `text`; special tokens that are written out in it become their ids."""
        token_ids: list[int] = self._backend.encode(text, add_special_tokens=add_special_tokens).ids
        return token_ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of `token_ids` without special tokens."""
        text: str = self._backend.decode(list(token_ids), skip_special_tokens=True)
        return text

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> str:
        """Render the prompt text; what the template raises becomes a RequestError with its message."""
        has_tools = bool(tools) or any(turn.get("tool_calls") for turn in messages)
        template = self._template_for(has_tools=has_tools, has_documents=bool(kwargs.get("documents")))
        if template is None:
            raise RequestError("messages need a chat template, and this model's tokenizer has none")
        try:
            text: str = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tools=None if tools is None else [dict(tool) for tool in tools],
                chat_template=template,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
                **kwargs,
            )
        except Exception as error:  # a template is code of the model: whatever it raises is its refusal
            raise RequestError(f"the model's chat template refuses these messages: {error}") from error
        return text

    def _template_for(self, *, has_tools: bool, has_documents: bool = False) -> str | None:
        """The template, of several the one named "tool_use" for tools, "rag" for documents and "default" for others."""
        template: str | dict[str, str] | None = self._tokenizer.chat_template
        if not isinstance(template, dict):
            return template
        wanted = "tool_use" if has_tools else "rag" if has_documents else "default"
        names = (wanted, "default", "tool_use")
        return next((template[name] for name in names if name in template), None)


class _ByteLevelDecoder:
    """Every character of a token stands for one byte (the table of GPT-2)."""

    strip_leading_space = False

    def __init__(self) -> None:
        self._bytes = byte_level_alphabet()

    def to_bytes(self, token: str) -> bytes:
        try:
            return bytes(self._bytes[character] for character in token)
        except KeyError:
            return token.encode()  # as the backend's decoder does: an added token outside the alphabet is plain text


class _SentencePieceDecoder:
    """A mark stands for a space, and <0xNN> for a byte."""

    def __init__(self, *, has_byte_tokens: bool, strip_leading_space: bool) -> None:
        self._has_byte_tokens = has_byte_tokens
        self.strip_leading_space = strip_leading_space

    def to_bytes(self, token: str) -> bytes:
        match = _BYTE_TOKEN.fullmatch(token) if self._has_byte_tokens else None
        if match:
            return bytes([int(match[1], 16)])
        return token.replace(_SPACE_MARK, " ").encode()


class _WordPieceDecoder:
    """A word begins with a space, which tokens do not write, and ## marks what continues it."""

    strip_leading_space = True

    def to_bytes(self, token: str) -> bytes:
        return (token.removeprefix("##") if token.startswith("##") else f" {token}").encode()


def byte_level_alphabet() -> dict[str, int]:
    """Map character -> byte: printable Latin-1 to itself, U+0100 and following to the other 68 bytes, in order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


def _read_decoder(backend: Backend) -> _ByteLevelDecoder | _SentencePieceDecoder | _WordPieceDecoder:
    if backend.decoder is None:
        raise UnsupportedModelError("the tokenizer has no decoder: byte-level and SentencePiece ones are supported")
    state = json.loads(backend.decoder.__getstate__())
    steps = state["decoders"] if state["type"] == "Sequence" else [state]
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return _ByteLevelDecoder()
    if kinds == ["WordPiece"] and steps[0]["prefix"] == "##" and not steps[0]["cleanup"]:
        return _WordPieceDecoder()
    if kinds == ["Metaspace"] and steps[0]["replacement"] == _SPACE_MARK:
        return _SentencePieceDecoder(has_byte_tokens=False, strip_leading_space=steps[0]["prepend_scheme"] != "never")
    if kinds in (["Replace", "ByteFallback", "Fuse"], ["Replace", "ByteFallback", "Fuse", "Strip"]):
        is_known = steps[0]["pattern"] == {"String": _SPACE_MARK} and steps[0]["content"] == " "
        strip = steps[3] if len(steps) == 4 else None
        if is_known and (strip is None or (strip["content"], strip["start"], strip["stop"]) == (" ", 1, 0)):
            return _SentencePieceDecoder(has_byte_tokens=True, strip_leading_space=strip is not None)
    raise UnsupportedModelError(
        f"the tokenizer's decoder {' + '.join(kinds)} is not supported: byte-level and SentencePiece ones are"
    )
