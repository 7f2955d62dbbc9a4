"""Request: one row of the engine, from submission to its last delta."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal

from mlx_agent_llm.request.draft import NO_DRAFT, Draft
from mlx_agent_llm.request.free_text import FreeText
from mlx_agent_llm.request.grammar import Budget, CompiledGrammar, Matcher
from mlx_agent_llm.request.kv_state import KVState
from mlx_agent_llm.request.output import Delta, FinishReason, Timings, TokenLogprob, Usage
from mlx_agent_llm.request.params import SamplingDefaults, SamplingParams

PRIORITY_AGING_SECONDS = 10.0  # of waiting raise a request by one level of priority


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
    draft_text: Sequence[int] = ()  # the tokens of a text that its output may quote
    shown_tokens: Mapping[int, bytes] = field(default_factory=dict)  # control tokens that its text shows, as what
    free_text: Callable[[], FreeText] | None = (
        None  # makes what finds the text that stop texts may end; None: all of it
    )
    submitted_at: float = field(default_factory=time.perf_counter)
    adapter: str | None = None  # the fingerprint of the adapter that the model runs with
    message_ends: Sequence[int] = ()  # after how many tokens of the prompt the messages of a chat end
    parent: Request | None = None  # whose KV it waits to share; dropped when it was shared, or when that is impossible

    num_prompt_tokens: int = field(init=False)
    rank: tuple[float, int] = field(init=False)  # the lower goes first
    cache_key: bytes = field(init=False)  # sets its KV apart from that of the same tokens elsewhere, at most 64 bytes
    token_ids: list[int] = field(init=False)  # the prompt and every token read so far
    max_num_tokens: int = field(init=False)  # of prompt and output: what max_tokens and, once queued, the context allow
    num_in_flight: int = 0  # tokens sampled on the device and not yet read: 0 or 1
    num_jumped_tokens: int = 0  # that a step computes at once: a grammar forced them, or a draft's states were wrong
    draft: Draft = NO_DRAFT  # that the coming step computes after all tokens, or that it computed, until that is read
    num_cached_tokens: int = 0  # prompt tokens whose KV was found, not computed
    num_preemptions: int = 0
    on_disk: Literal["unasked", "read", "done"] = "unasked"  # whether it waits for what is on the disk of its prompt
    read_from: int = 0  # tokens after which its KV is read from the disk meanwhile: what is computed ends there
    kv: KVState = field(default_factory=KVState)
    logprobs: list[TokenLogprob] = field(default_factory=list)  # of the tokens read so far, when they are asked for
    started_at: float | None = None
    first_token_at: float | None = None
    finish_reason: FinishReason | None = None

    def __post_init__(self) -> None:
        self.params = SamplingDefaults().fill(self.params)  # of a request that nobody admitted, as a warm-up's
        self.num_prompt_tokens = len(self.prompt_token_ids)
        self.token_ids = list(self.prompt_token_ids)
        self.max_num_tokens = self.num_prompt_tokens + self.params.max_tokens
        # Waiting raises every request's priority alike, so the order of two never changes.
        self.rank = (self.submitted_at - PRIORITY_AGING_SECONDS * self.params.priority, self.request_id)
        self.cache_key = _cache_key(self.params.cache_salt, self.adapter)

    @property
    def num_tokens(self) -> int:
        """All tokens of the request, the one in flight too."""
        return len(self.token_ids) + self.num_in_flight

    @property
    def num_ready_tokens(self) -> int:
        """Tokens that can be computed by now, the draft's too: after the last something is sampled by the grammar."""
        return self.num_tokens + len(self.draft.token_ids) - (self.grammar is not None)

    @property
    def is_decoding(self) -> bool:
        """Whether it has output and only its last token, or those that the grammar forced, are left to compute."""
        num_tokens = len(self.token_ids) + self.num_in_flight
        num_left = num_tokens - self.kv.num_computed_tokens
        return num_tokens > self.num_prompt_tokens and num_left <= (self.num_jumped_tokens or 1)

    @property
    def num_output_tokens(self) -> int:
        """Sampled tokens, the one in flight too."""
        return self.num_tokens - self.num_prompt_tokens

    @property
    def is_finished(self) -> bool:
        """Whether its last delta was made."""
        return self.finish_reason is not None

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


def _cache_key(salt: str | None, adapter: str | None) -> bytes:
    """Nothing, or 16 bytes that are the hash of no block, whatever the salt: `person` tells what each is of."""
    if salt is None and adapter is None:
        return b""
    adapter_key = b"" if adapter is None else hashlib.blake2b(adapter.encode(), digest_size=16).digest()
    salt_bytes = b"" if salt is None else salt.encode(errors="surrogatepass")
    return hashlib.blake2b(salt_bytes, digest_size=16, key=adapter_key, person=b"cache_salt").digest()
