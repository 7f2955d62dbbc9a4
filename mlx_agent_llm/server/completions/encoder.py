"""Deltas of outputs as OpenAI's completion: chunk by chunk, or whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from mlx_agent_llm.request import Delta, RequestOutput, TokenLogprob, Usage
from mlx_agent_llm.server.logprob_content import LogprobWriter, number


@dataclass
class CompletionEncoder:
    """Writes the outputs of one request, of which every num_samples have one prompt."""

    id: str
    created: int
    model: str
    logprobs: LogprobWriter
    num_samples: int
    _usages: dict[int, Usage] = field(default_factory=dict)  # of choices
    _lengths: dict[int, int] = field(default_factory=dict)  # of their texts so far

    def chunk(self, index: int, delta: Delta) -> dict[str, Any]:
        """What a delta of the index-th output adds to the stream."""
        if delta.usage is not None:
            self._usages[index] = delta.usage
        offset = self._lengths.get(index, 0)
        self._lengths[index] = offset + len(delta.text)
        return {**self._head(), "choices": [self._choice(index, delta, offset)]}

    def usage_chunk(self) -> dict[str, Any]:
        """The chunk after all others of a stream that includes usage."""
        return {**self._head(), "choices": [], "usage": self._usage()}

    def whole(self, outputs: Sequence[RequestOutput]) -> dict[str, Any]:
        """All outputs at once."""
        self._usages = {index: output.usage for index, output in enumerate(outputs)}
        choices = [self._choice(index, output) for index, output in enumerate(outputs)]
        return {**self._head(), "choices": choices, "usage": self._usage()}

    def _head(self) -> dict[str, Any]:
        return {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model}

    def _choice(self, index: int, piece: Delta | RequestOutput, offset: int = 0) -> dict[str, Any]:
        return {
            "index": index,
            "text": piece.text,
            "logprobs": None if piece.logprobs is None else self._logprobs(piece.logprobs, offset),
            "finish_reason": piece.finish_reason,
        }

    def _logprobs(self, tokens: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
        texts = [self.logprobs.text(one.token_id) for one in tokens]
        offsets = list(accumulate(map(len, texts), initial=offset))[:-1]
        top = [{self.logprobs.text(other): number(logprob) for other, logprob in one.top} for one in tokens]
        numbers = [number(one.logprob) for one in tokens]
        return {"tokens": texts, "token_logprobs": numbers, "top_logprobs": top, "text_offset": offsets}

    def _usage(self) -> dict[str, Any]:
        usages = [usage for _, usage in sorted(self._usages.items())]
        firsts = usages[:: self.num_samples]
        prompt = sum(usage.prompt_tokens for usage in firsts)
        completion = sum(usage.completion_tokens for usage in usages)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": sum(usage.cached_tokens for usage in firsts)},
        }
