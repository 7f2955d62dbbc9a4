"""Where the messages of a chat end in its prompt: there other chats that begin alike may part from it.

The template's own text between messages is not known, so each message's text is looked for in what was rendered. One
that the template changes is passed over, and one that also stands further ahead is found there: an end is never too far
back, which would be the end of another prompt.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from mlx_agent_llm.chat.messages import Message

if TYPE_CHECKING:
    from mlx_agent_llm.models.tokenizer import Tokenizer


def message_ends(tokenizer: Tokenizer, text: str, token_ids: Sequence[int], turns: Sequence[Message]) -> list[int]:
    """After how many tokens of a prompt, and of its text, the texts of its turns end; whole tokens alone count."""
    names, table = tokenizer.special_token_texts, tokenizer.token_bytes
    byte_ends = list(accumulate(_num_bytes(token_id, names, table) for token_id in token_ids))
    return sorted({bisect_right(byte_ends, end) for end in _byte_ends(text, turns)} - {0})


def _num_bytes(token_id: int, names: Mapping[int, str], table: Sequence[bytes]) -> int:
    if token_id in names:
        return len(names[token_id].encode())
    return len(table[token_id]) if token_id < len(table) else 0


def _byte_ends(text: str, turns: Sequence[Message]) -> Iterator[int]:
    """After how many bytes of the text the turns end that it holds as they are."""
    end = num_bytes = 0
    for turn in turns:
        content = turn.content.strip()
        begin = text.find(content, end) if content else -1
        if begin >= 0:
            num_bytes += len(text[end : begin + len(content)].encode())
            end = begin + len(content)
            yield num_bytes
