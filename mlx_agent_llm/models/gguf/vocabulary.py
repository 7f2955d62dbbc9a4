"""The tokens of a GGUF file with their kinds, read from its metadata and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from mlx_agent_llm.errors import ModelLoadError
from mlx_agent_llm.models.gguf.file import GGUFFile

PREFIX = "tokenizer.ggml"
# What the metadata calls a token -> the key of its id; one of them is misspelt in the format.
_SPECIAL_KEYS: Mapping[str, str] = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "eot": "eot_token_id",
    "eom": "eom_token_id",
    "cls": "cls_token_id",
    "sep": "seperator_token_id",
    "unknown": "unknown_token_id",
}
_CONTROL = ("bos", "eos", "eot", "eom", "cls", "sep")


class TokenType(IntEnum):
    """The kinds of tokens in tokenizer.ggml.token_type."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """tokens and types by id; special: the tokens that the metadata names, by what it calls them, as ids."""

    tokens: list[str]
    types: list[TokenType]
    special: Mapping[str, int]
    ids: dict[str, int]
    """Token -> id; unused tokens are left out, so that no text becomes one of them."""

    def named(self, name: str) -> str | None:
        """The token that the metadata calls so; None when it names none."""
        token_id = self.special.get(name)
        return None if token_id is None else self.tokens[token_id]

    @cached_property
    def markup(self) -> list[str]:
        """The tokens that are no text."""
        return [token for token, kind in self._typed() if kind in (TokenType.CONTROL, TokenType.UNKNOWN)]

    @cached_property
    def user_defined(self) -> list[str]:
        """The tokens that are found in a text before all others."""
        return [token for token, kind in self._typed() if kind is TokenType.USER_DEFINED]

    @cached_property
    def words(self) -> list[str]:
        """The tokens that are text and nothing else."""
        return [token for token, kind in self._typed() if kind is TokenType.NORMAL]

    def _typed(self) -> list[tuple[str, TokenType]]:
        return list(zip(self.tokens, self.types, strict=True))


def read_vocabulary(gguf: GGUFFile) -> Vocabulary:
    """Read tokens, types and special tokens; what contradicts itself is a ModelLoadError."""
    tokens = gguf.require_texts(f"{PREFIX}.tokens")
    types = _read_types(gguf, len(tokens))
    special = dict[str, int]()
    for name, key in _SPECIAL_KEYS.items():
        token_id = gguf.get(f"{PREFIX}.{key}", int)
        if token_id is None:
            continue
        if not 0 <= token_id < len(tokens):
            raise ModelLoadError(f"{gguf.path}: {PREFIX}.{key}={token_id} must be between 0 and {len(tokens) - 1}")
        special[name] = token_id
        if name in _CONTROL:
            types[token_id] = TokenType.CONTROL
    return Vocabulary(tokens, types, special, _ids(gguf, tokens, types))


def _read_types(gguf: GGUFFile, num_tokens: int) -> list[TokenType]:
    numbers = gguf.require(f"{PREFIX}.token_type", list)
    if len(numbers) != num_tokens:
        raise ModelLoadError(f"{gguf.path}: {PREFIX}.token_type has {len(numbers)} entries for {num_tokens} tokens")
    try:
        return [TokenType(number) for number in numbers]
    except ValueError as error:
        raise ModelLoadError(f"{gguf.path}: {PREFIX}.token_type: {error}") from error


def _ids(gguf: GGUFFile, tokens: list[str], types: list[TokenType]) -> dict[str, int]:
    ids = dict[str, int]()
    for token_id, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if token in ids:
            raise ModelLoadError(f"{gguf.path}: {PREFIX}.tokens: {token!r} has the ids {ids[token]} and {token_id}")
        if kind is not TokenType.UNUSED:
            ids[token] = token_id
    return ids
