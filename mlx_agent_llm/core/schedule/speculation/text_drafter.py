"""What a request may go on with, by its own text: extraction, edits and tool results copy much of what they have read.

After the longest match of its end in draft text, prompt and output, what follows there is what may follow here (prompt
lookup: Saxena 2023). How often that was right is known of all of a request's tokens, drafted or not: a prediction that
nobody used is compared with what was sampled all the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlx_agent_llm.core.schedule.speculation.drafter import Outlook
from mlx_agent_llm.core.schedule.speculation.ngram_index import NgramIndex
from mlx_agent_llm.request import Request

_WEIGHT = 0.15  # of the last prediction in a chance
# Of a next token after so many equal ones, 1, 2, 4, 8, 16 and more of them, before anything is known.
_CHANCES = (0.3, 0.4, 0.6, 0.75, 0.85, 0.9)
_NUM_NAMED = 8  # equal tokens that a beginning of the draft text counts for
_NOTHING = Outlook(0.0, iter(()))


class TextDrafter:
    """Follows one request's tokens, and finds those that may come next."""

    def __init__(self, request: Request) -> None:
        self._said = request.token_ids  # not the request, which keeps its drafter as long as it lives
        self._token_ids = [*request.draft_text, *request.prompt_token_ids]
        self._index = NgramIndex(self._token_ids)
        self._index.grow()
        self._num_read = request.num_prompt_tokens
        self._next: int | None = 0 if request.draft_text else None  # of its tokens, the one that may follow
        self._num_equal = _NUM_NAMED
        self._chances = list(_CHANCES)

    def follow(self) -> None:
        """Take in the request's new tokens."""
        new = self._said[self._num_read :]
        if not new:
            return
        self._num_read += len(new)
        for token_id in new:
            if self._next is not None:
                self._compare(self._next, token_id)
            self._token_ids.append(token_id)
        self._index.grow()
        if self._next is None and (match := self._index.longest()) is not None:
            self._next, self._num_equal = match.end, match.length

    def outlook(self, *, is_read: bool) -> Outlook:
        """See Drafter: after a token that nobody has read there is a draft if it is the one that is expected."""
        if self._next is None:
            return _NOTHING
        if is_read:
            return Outlook(1.0, self._products(self._num_equal))
        return Outlook(self._chances[_level(self._num_equal)], self._products(self._num_equal + 1))

    def tokens(self, count: int) -> list[int]:
        """What may come next: `count` tokens or none; a match that reaches the text's end goes on with itself."""
        if self._next is None:
            return []
        tokens = self._token_ids[self._next : self._next + count]
        period = len(tokens)
        while len(tokens) < count:
            tokens += tokens[:period][: count - len(tokens)]
        return tokens

    def _products(self, num_equal: int) -> Iterator[float]:
        """Of the chances after so many equal tokens, one more, and so on."""
        chance = 1.0
        while True:
            chance *= self._chances[_level(num_equal)]
            num_equal += 1
            yield chance

    def _compare(self, expected: int, token_id: int) -> None:
        is_right = self._token_ids[expected] == token_id
        level = _level(self._num_equal)
        self._chances[level] += _WEIGHT * (is_right - self._chances[level])
        self._next, self._num_equal = (expected + 1, self._num_equal + 1) if is_right else (None, 0)


def _level(num_equal: int) -> int:
    return min(num_equal.bit_length(), len(_CHANCES)) - 1
