"""Text that a grammar forces, as the tokens that the model would write it with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlx_agent_llm.constrain.closing.spelling import Spelling
from mlx_agent_llm.request import ForcedTokens

_CONTEXT_SIZES = (4, 2, 1, 0)  # tokens before the text that are spelled anew with it; they have to stay what they are


class ForcedText:
    """Spells forced texts with a model's own tokenizer; `encode` adds no special tokens."""

    def __init__(self, encode: Callable[[str], list[int]], spelling: Spelling) -> None:
        self._encode = encode
        self._spelling = spelling

    def spell(self, before: Sequence[int], data: bytes) -> ForcedTokens:
        """The tokens of whole characters after other tokens; none where that is impossible without changing those."""
        text = _whole_characters(data)
        if self._spelling.has_longer(text.encode()):
            return ForcedTokens([], 0)  # one token may be this and more
        for size in _CONTEXT_SIZES:
            token_ids = self._spell_after(list(before[len(before) - size :]), text)
            if token_ids is not None:
                return ForcedTokens(token_ids, self._num_safe(token_ids))
        return ForcedTokens([], 0)

    def _spell_after(self, before: list[int], text: str) -> list[int] | None:
        if not all(map(self._spelling.is_ordinary, before)):
            return None
        try:
            context = self._join(before).decode()
        except UnicodeDecodeError:
            return None  # it begins or ends within a character
        token_ids = self._encode(context + text)
        after = token_ids[len(before) :]
        is_same = token_ids[: len(before)] == before and self._join(after) == text.encode()
        return after if is_same else None

    def _num_safe(self, token_ids: list[int]) -> int:
        """Of the last tokens leave out those whose text a longer token could begin with."""
        for index in range(len(token_ids)):
            if self._spelling.has_longer(self._join(token_ids[index:])):
                return index
        return len(token_ids)

    def _join(self, token_ids: list[int]) -> bytes:
        return b"".join(map(self._spelling.text_of, token_ids))


def _whole_characters(data: bytes) -> str:
    """The text up to the last character that is whole; empty when the data begins within one."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        return data[: error.start].decode()
