"""A small model that drafts for a large one (Leviathan et al. 2023): greedily, in caches of mlx-lm's.

It knows nothing of batches and blocks: each request that it drafts for has a cache of its own, which is cut back to
what the request and its last draft have in common. Where a request's own text says how it may go on, that is cheaper
and comes first.
"""

from __future__ import annotations

from itertools import accumulate, repeat
from operator import mul
from typing import Any
from weakref import WeakSet, proxy

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import KVCache, make_prompt_cache, trim_prompt_cache

from mlx_agent_llm.core.schedule.speculation.drafter import Outlook
from mlx_agent_llm.core.schedule.speculation.text_drafter import TextDrafter
from mlx_agent_llm.errors import UnsupportedModelError
from mlx_agent_llm.process.default_device import default_device
from mlx_agent_llm.request import Request

CHUNK = 512  # tokens of a prompt that are computed at once
_CHANCE = 0.6  # that its next token is right, before anything is known
_WEIGHT = 0.05  # of the last token in the chance
_FORGOTTEN = 0.01  # of what is known, with each token that it did not draft: a source that lost is tried again


class DraftModel:
    """Makes a drafter for each request; its caches hold max_tokens in all, and beyond that it drafts nothing.

    vocab_size: of the model that it drafts for, whose logits may be fewer. Raises UnsupportedModelError for a model
    whose caches cannot be cut back.
    """

    def __init__(self, model: nn.Module, vocab_size: int, max_tokens: int, device: mx.Device) -> None:
        self._model: Any = model
        self._vocab_size = vocab_size
        self._max_tokens = max_tokens
        self._device = device
        self._drafters = WeakSet[ModelDrafter]()
        self.chance = _CHANCE
        kinds = {type(leaf) for leaf in make_prompt_cache(model)}
        if others := sorted(kind.__name__ for kind in kinds - {KVCache}):
            raise UnsupportedModelError(
                f"draft_model of {type(model).__module__}: {', '.join(others)} cannot go back to before a token that "
                "was wrong; it must keep all keys and values of all its layers"
            )

    def drafter(self, request: Request) -> ModelDrafter:
        """A drafter for a request."""
        made = ModelDrafter(request, self)
        self._drafters.add(made)
        return made

    def has_room(self, drafter: ModelDrafter, num_tokens: int) -> bool:
        """Whether the cache of a drafter may have so many tokens."""
        return num_tokens + sum(len(one.token_ids) for one in self._drafters if one is not drafter) <= self._max_tokens

    def learn(self, *, is_right: bool) -> None:
        """Take in whether a token was what it had drafted there after right ones."""
        self.chance += _WEIGHT * (is_right - self.chance)

    def forget(self) -> None:
        """Take in that nobody knows whether it would have been right."""
        self.chance += _FORGOTTEN * (_CHANCE - self.chance)

    def make_cache(self) -> list[Any]:
        """An empty cache."""
        cache: list[Any] = make_prompt_cache(self._model)
        return cache

    def go_on(self, cache: list[Any], token_ids: list[int], count: int) -> list[int]:
        """The `count` tokens that it says after these, which follow what is in the cache; the last stays out."""
        with default_device.set_to(self._device):
            *begin, last = [token_ids[i : i + CHUNK] for i in range(0, len(token_ids), CHUNK)]
            for chunk in begin:
                self._model(mx.array([chunk]), cache=cache)
                mx.eval([leaf.state for leaf in cache])
            said = [self._next(mx.array([last]), cache)]
            while len(said) < count:
                said.append(self._next(said[-1][None], cache))
            found: Any = mx.concatenate(said).tolist()
            return list(found)

    def _next(self, tokens: mx.array, cache: list[Any]) -> mx.array:
        return mx.argmax(self._model(tokens, cache=cache)[:, -1, : self._vocab_size], axis=-1)


class ModelDrafter:
    """Follows one request: by its text where that says something, by the model elsewhere."""

    def __init__(self, request: Request, model: DraftModel) -> None:
        self._request: Request = proxy(request)  # who keeps its drafter as long as it lives must not be kept by it
        self._model = model
        self._text = TextDrafter(request)
        self._cache: list[Any] | None = None
        self.token_ids: list[int] = []  # in the cache
        self._num_read = request.num_prompt_tokens
        self._expected: list[int] = []  # what the model said comes next

    def follow(self) -> None:
        """See Drafter."""
        self._text.follow()
        for token_id in self._request.token_ids[self._num_read :]:
            if not self._expected:
                self._model.forget()
                continue
            is_right = self._expected.pop(0) == token_id
            self._model.learn(is_right=is_right)
            if not is_right:
                self._expected = []
        self._num_read = len(self._request.token_ids)

    def outlook(self, *, is_read: bool) -> Outlook:
        """See Drafter."""
        if self._text.tokens(1):
            return self._text.outlook(is_read=is_read)
        return Outlook(1.0, accumulate(repeat(self._model.chance), mul))

    def tokens(self, count: int) -> list[int]:
        """See Drafter."""
        if count == 0:
            return []
        self._expected = []
        if found := self._text.tokens(count):
            return found
        if not self._model.has_room(self, len(self._request.token_ids) + count - 1):
            self._cache, self.token_ids = None, []
            return []
        cache = self._cut_back()
        found = self._model.go_on(cache, self._request.token_ids[len(self.token_ids) :], count)
        self.token_ids = [*self._request.token_ids, *found[:-1]]
        self._expected = list(found)
        return found

    def _cut_back(self) -> list[Any]:
        """The cache with nothing in it but what the request says, and not the request's last token."""
        known = self._request.token_ids
        most = min(len(self.token_ids), len(known) - 1)
        num_equal = next((n for n in range(most) if self.token_ids[n] != known[n]), most)
        if self._cache is None:
            self._cache = self._model.make_cache()
        trim_prompt_cache(self._cache, len(self.token_ids) - num_equal)
        self.token_ids = self.token_ids[:num_equal]
        return self._cache
