"""What comes back of a request: a Delta a step, and the RequestOutput that they add up to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from mlx_agent_llm.errors import MLXAgentError
from mlx_agent_llm.request.constraints import CheckedKeywords

FinishReason = Literal["stop", "length", "tool_calls", "cancelled", "error"]


@dataclass(frozen=True)
class Usage:
    """Token counts of one request; the KV of cached_tokens of the prompt was found, not computed."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Timings:
    """Seconds: waiting in the queue, from submission to the first token (ttft), and to the end."""

    queue: float = 0.0
    ttft: float = 0.0
    total: float = 0.0


class TokenLogprob(NamedTuple):
    """The natural log-probability of an output token, and (token_id, logprob) of the most probable ones, best first.

    Of a token that a forced close wrote nothing was computed: its logprob is NaN, and there are no others beside it.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class Delta(NamedTuple):
    """What one step added to a request. The last one has a finish_reason, usage and timings.

    logprobs: one for each of token_ids when SamplingParams.logprobs asks for them, else None. forced_close: token_ids
    are not sampled, but complete the text in the fewest tokens, because the budget of tokens was about to run out.
    checked: the (pointer, keyword) pairs of JSONSchema(strict=False) that the last delta's text was checked for.
    stop_text: the one of SamplingParams.stop that ended the text.
    """

    text: str = ""
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    error: MLXAgentError | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    forced_close: bool = False
    checked: CheckedKeywords = ()
    stop_text: str | None = None


@dataclass(frozen=True)
class RequestOutput:
    """A whole result: the fold of its deltas.

    With a constraint the text satisfies it, also where finish_reason is "length". forced_close: the last tokens were
    not sampled, because the text would not have been complete within max_tokens otherwise. checked: the (pointer,
    keyword) pairs of a JSONSchema(strict=False) that were checked afterwards, and not enforced; usage is that of the
    attempt which passed.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    logprobs: tuple[TokenLogprob, ...] | None = None
    forced_close: bool = False
    checked: CheckedKeywords = ()
