"""One request: what is asked (SamplingParams), what it becomes (Request) and what comes back (Delta, RequestOutput)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mlx_agent_llm.config import check_range
from mlx_agent_llm.constrain.spec import CheckedKeywords, Choice, Constraint, Grammar, JSONSchema, Regex
from mlx_agent_llm.errors import MLXAgentError, RequestError

FinishReason = Literal["stop", "length", "tool_calls", "cancelled", "error"]
_UNCUT = (JSONSchema, Regex, Grammar, Choice)  # constraints of the whole output, which a stop text would cut
MAX_LOGPROBS = 20  # as OpenAI; every row ranks as many, so that its result does not depend on what its neighbours ask


@dataclass(frozen=True)
class SamplingParams:
    """How one request is sampled and when it ends; a bad value is a RequestError that names field, value and bound.

    max_tokens: most new tokens.
    min_tokens: until there are as many, no end token can be sampled: neither the model's own nor stop_token_ids. A stop
        text still ends the output, because it is never shown; with a constraint, which may leave nothing but the end,
        min_tokens is refused.
    temperature: 0 takes the most probable token, otherwise logits are divided by it.
    top_p, top_k, min_p: keep the smallest set of tokens with that probability mass, the k most probable ones, and those
        at least min_p times as probable as the best one; 1.0, 0 and 0.0 keep all. Applied in the order top_k, top_p,
        min_p to the distribution after temperature.
    repetition_penalty: divides the positive logits of all tokens in the prompt or the output and multiplies the
        negative ones, as in CTRL (Keskar et al. 2019); 1.0 is off.
    presence_penalty, frequency_penalty: are subtracted from the logits of the output's tokens, once and as often as the
        token is there, as at OpenAI; -2 to 2.
    logit_bias: is added to the logits of these token ids; -100 to 100. Penalties and bias come before temperature and
        before the grammar, which no bias gets around.
    logprobs: None is off; k >= 0 gives for each output token its log-probability and the k most probable tokens at its
        place. They are of the model's own distribution, before penalties, bias, grammar, temperature and the cuts.
    seed: a request's tokens are a function of prompt, parameters and seed; None draws one from the engine.
    n: samples of each prompt; the i-th uses seed + i.
    stop: texts that end the output and are not part of it. An empty one is an error.
    stop_token_ids: token ids that end the output beside the model's own end tokens.
    ignore_eos: the model's own end tokens do not end the output.
    priority: higher runs first. Waiting raises it by one level every 10 seconds, so that nobody starves: a request goes
        before every one of one level more that came 10 seconds after it.
    timeout: seconds from submission after which the request fails with RequestTimeout.
    constraint: what the output must be; the grammar is applied inside the sampler.
    cache_salt: a non-empty text; the KV of equal prefixes is shared only among requests of the same one (or of none).
    """

    max_tokens: int = 512
    min_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    logprobs: int | None = None
    seed: int | None = None
    n: int = 1
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    priority: int = 0
    timeout: float | None = None
    constraint: Constraint | None = None
    cache_salt: str | None = None

    def __post_init__(self) -> None:
        try:
            stop = (self.stop,) if isinstance(self.stop, str) else _as_tuple("stop", self.stop)
            object.__setattr__(self, "stop", stop)
            object.__setattr__(self, "stop_token_ids", _as_tuple("stop_token_ids", self.stop_token_ids))
            object.__setattr__(self, "logit_bias", _as_dict("logit_bias", self.logit_bias))
            self._check()
        except ValueError as error:
            raise RequestError(str(error)) from None

    def _check(self) -> None:
        check_range("max_tokens", self.max_tokens, 1)
        check_range("min_tokens", self.min_tokens, 0, self.max_tokens)
        check_range("temperature", self.temperature, 0, 1e4, integer=False)
        check_range("top_p", self.top_p, 1e-9, 1, integer=False)
        check_range("top_k", self.top_k, 0)
        check_range("min_p", self.min_p, 0, 1, integer=False)
        check_range("repetition_penalty", self.repetition_penalty, 1e-4, 1e4, integer=False)
        check_range("presence_penalty", self.presence_penalty, -2, 2, integer=False)
        check_range("frequency_penalty", self.frequency_penalty, -2, 2, integer=False)
        for token_id, bias in self.logit_bias.items():
            check_range("logit_bias token id", token_id, 0)
            check_range(f"logit_bias[{token_id}]", bias, -100, 100, integer=False)
        if self.logprobs is not None:
            check_range("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        check_range("n", self.n, 1)
        check_range("priority", self.priority, -(2**31), 2**31)
        if self.seed is not None:
            check_range("seed", self.seed, 0, 2**32 - self.n)
        if self.timeout is not None:
            check_range("timeout", self.timeout, 0, 1e9, integer=False)
        if self.cache_salt is not None and (not isinstance(self.cache_salt, str) or not self.cache_salt):
            raise ValueError(f"cache_salt={self.cache_salt!r} must be a non-empty text or None")
        for text in self.stop:
            if not isinstance(text, str) or not text:
                raise ValueError(f"stop={self.stop!r} must hold non-empty strings")
        for token_id in self.stop_token_ids:
            check_range("stop_token_ids", token_id, 0)
        if self.constraint is not None and not isinstance(self.constraint, Constraint):
            raise ValueError(f"constraint={self.constraint!r} must be a JSONSchema, Regex, Grammar or Choice")
        if isinstance(self.constraint, _UNCUT) and (self.stop or self.stop_token_ids):
            kind = type(self.constraint).__name__
            raise ValueError(f"stop and stop_token_ids contradict a {kind}: they would cut the output")
        if self.constraint is not None and self.ignore_eos:
            raise ValueError("ignore_eos=True contradicts a constraint, which ends by the end token")
        if self.constraint is not None and self.min_tokens:
            raise ValueError(
                f"min_tokens={self.min_tokens} must be 0 with a constraint, which may leave nothing but the end token"
            )


def _as_tuple(name: str, values: object) -> tuple[object, ...]:
    if not isinstance(values, Sequence):
        raise ValueError(f"{name}={values!r} must be a sequence")
    return tuple(values)


def _as_dict(name: str, values: object) -> dict[object, object]:
    if not isinstance(values, Mapping):
        raise ValueError(f"{name}={values!r} must be a mapping of token ids to numbers")
    return dict(values)  # a copy: who changes theirs later changes no parameter that was checked


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


class Matcher(Protocol):
    """Where one request stands in its grammar. Made anew for every request, used by the engine thread alone."""

    def accept(self, token_id: int) -> bool:
        """Advance by one sampled token; False when the grammar does not allow it."""

    def fill_mask(self, mask: npt.NDArray[np.int32], row: int) -> None:
        """Write row `row` of the (rows, ceil(vocab / 32)) bitmask: bit i of the row says whether token i may follow."""

    def rollback(self, num_tokens: int) -> None:
        """Take back the last accepted tokens."""

    def jump_forward(self) -> bytes:
        """What the text has to go on with; empty where it may end or go on in several ways."""

    @property
    def is_finished(self) -> bool:
        """Whether the text is complete and nothing but an end token could follow."""


class ForcedTokens(NamedTuple):
    """A text that has to come next, as tokens; those behind the first num_safe could merge with what follows."""

    token_ids: list[int]
    num_safe: int


class CompiledGrammar(Protocol):
    """A grammar that is ready to be used."""

    def matcher(self) -> Matcher:
        """Return a new matcher at the start of the grammar."""


class Budget(Protocol):
    """Keeps the text of one request within reach of its end."""

    def take(self, token_id: int, num_left: int) -> bool:
        """Read a token, unless num_left tokens behind it could not complete the text."""

    def closing_tokens(self) -> list[int]:
        """The tokens that complete the text."""


@dataclass(eq=False)
class Request:
    """One row of the engine, from submission to its last delta. The engine thread alone changes it."""

    request_id: int
    prompt_token_ids: Sequence[int]
    params: SamplingParams
    seed: int
    sink: Callable[[Delta], None]
    matcher: Matcher | None = None
    grammar: Future[CompiledGrammar] | None = None  # that the matcher is made of when it is ready
    budget: Budget | None = None
    shown_tokens: Mapping[int, bytes] = field(default_factory=dict)  # control tokens that its text shows, as what
    submitted_at: float = field(default_factory=time.perf_counter)
    parent: Request | None = None  # whose KV it waits to share; dropped when it was shared, or when that is impossible

    num_prompt_tokens: int = field(init=False)
    token_ids: list[int] = field(init=False)  # the prompt and every token read so far
    num_in_flight: int = 0  # tokens sampled on the device and not yet read: 0 or 1
    num_jumped_tokens: int = 0  # the last ones that the grammar forced at once, computed or not
    num_computed_tokens: int = 0  # tokens whose KV is written by the forwards dispatched so far
    num_cached_tokens: int = 0  # prompt tokens whose KV was found, not computed
    num_preemptions: int = 0
    block_table: list[int] = field(default_factory=list)
    block_hashes: list[bytes] = field(default_factory=list)  # of the full blocks, as far as they were asked for
    num_published_blocks: int = 0  # leading blocks that other requests can find
    may_publish: bool = True  # not after the prefix cache was reset while it held blocks
    logprobs: list[TokenLogprob] = field(default_factory=list)  # of the tokens read so far, when they are asked for
    started_at: float | None = None
    first_token_at: float | None = None
    finish_reason: FinishReason | None = None

    def __post_init__(self) -> None:
        self.num_prompt_tokens = len(self.prompt_token_ids)
        self.token_ids = list(self.prompt_token_ids)

    @property
    def num_tokens(self) -> int:
        """All tokens of the request, the one in flight too."""
        return len(self.token_ids) + self.num_in_flight

    @property
    def num_ready_tokens(self) -> int:
        """Tokens that can be computed by now: behind the last one something is sampled, which takes the grammar."""
        return self.num_tokens - (self.grammar is not None)

    @property
    def is_decoding(self) -> bool:
        """Whether it has output and only its last token, or those that the grammar forced, are left to compute."""
        num_left = self.num_tokens - self.num_computed_tokens
        return self.num_output_tokens > 0 and num_left <= max(self.num_jumped_tokens, 1)

    @property
    def num_output_tokens(self) -> int:
        """Sampled tokens, the one in flight too."""
        return self.num_tokens - self.num_prompt_tokens

    @property
    def is_finished(self) -> bool:
        """Whether its last delta was made."""
        return self.finish_reason is not None

    @property
    def cache_key(self) -> bytes:
        """What sets its KV apart from that of the same tokens in other requests, at most 64 bytes."""
        salt = self.params.cache_salt
        return b"" if salt is None else hashlib.blake2b(salt.encode(errors="surrogatepass"), digest_size=16).digest()

    @property
    def deadline(self) -> float | None:
        """The time.perf_counter() value at which the request times out."""
        return None if self.params.timeout is None else self.submitted_at + self.params.timeout

    @property
    def usage(self) -> Usage:
        """Token counts so far."""
        return Usage(self.num_prompt_tokens, self.num_cached_tokens, len(self.token_ids) - self.num_prompt_tokens)

    @property
    def timings(self) -> Timings:
        """Seconds so far."""
        now = time.perf_counter()
        return Timings(
            queue=(self.started_at or now) - self.submitted_at,
            ttft=(self.first_token_at or now) - self.submitted_at,
            total=now - self.submitted_at,
        )
