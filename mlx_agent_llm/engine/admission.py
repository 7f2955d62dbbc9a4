"""Admission: what is asked, checked and made into submissions, before anything of it is computed."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Unpack

from mlx_agent_llm.chat import PreparedChat, prepare_chat
from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.constrain.reasoning import ReasoningLimit
from mlx_agent_llm.constrain.service import ConstraintService, Prepared
from mlx_agent_llm.core.schedule.scheduler import Scheduler
from mlx_agent_llm.engine.chat_options import ReplyOptions
from mlx_agent_llm.engine.limits import Limits
from mlx_agent_llm.engine.prompt import EncodedPrompt, Prompt, PromptEncoder
from mlx_agent_llm.engine.submission import ForkOf, New, Origin, SampleOf, Submission
from mlx_agent_llm.errors import RequestError
from mlx_agent_llm.models import Tokenizer
from mlx_agent_llm.request import SamplingDefaults, SamplingParams

_NEW = New()


class Admission:
    """Makes submissions, from any thread; what is wrong with a request is a RequestError or a CapacityError.

    Its grammar begins to be compiled here.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: EngineConfig,
        limits: Limits,
        scheduler: Scheduler,
        constraints: ConstraintService,
        defaults: SamplingDefaults,
        adapter: str | None,
    ) -> None:
        self._tokenizer = tokenizer
        self._tool_format = config.tool_format
        self._prompts = PromptEncoder(
            tokenizer, limits.vocab_size, config.tool_format, finds_message_ends=scheduler.keeps_message_ends
        )
        self._limits = limits
        self._scheduler = scheduler
        self._constraints = constraints
        self._defaults = defaults
        self._adapter = adapter
        self._ids = itertools.count()
        self._seeds = random.Random(config.seed)
        self._lock = threading.Lock()

    def single(self, prompt: Prompt, params: SamplingParams | None) -> Submission:
        """One request."""
        return self._submission(self._check(self._prompts.encode(prompt), _single(params)))

    def batch(
        self, prompts: Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams] | None
    ) -> list[Submission]:
        """The requests of several prompts in order, n for each; all are checked before the first is made."""
        _check_list(prompts)
        each = zip(prompts, _params_for_each(prompts, params), strict=True)
        checked = [self._check(self._prompts.encode(prompt), one) for prompt, one in each]
        return [submission for one in checked for submission in self._samples(one)]

    def pinned(self, prompts: Sequence[Prompt], tools: Sequence[Any] | None) -> list[Submission]:
        """Requests that compute prompts and hardly more; tools: of the chats among them."""
        _check_list(prompts)
        params = SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True)
        checked = [self._check(self._prompts.encode(prompt, tools), params) for prompt in prompts]
        return [self._submission(one) for one in checked]

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        max_reasoning_tokens: int | None = None,
        params: SamplingParams | None = None,
        **options: Unpack[ReplyOptions],
    ) -> tuple[Submission, PreparedChat]:
        """The request for a reply, and what reads the reply; options as ChatOptions has them."""
        params = _single(params)
        check = self._constraints.check
        chat = prepare_chat(self._tokenizer, messages, tool_format=self._tool_format, check=check, **options)
        limit = chat.limit_reasoning(max_reasoning_tokens)
        if chat.constraint is not None:
            if params.constraint is not None:
                raise RequestError("params.constraint cannot be combined with tools or response_format")
            if chat.free_text is None:  # nothing of such a reply may be cut
                params = replace(params, stop=(), stop_token_ids=())
            params = replace(params, constraint=chat.constraint)
        checked = self._check(self._prompts.encode_chat(chat), params)
        return self._submission(checked, chat=chat, reasoning_limit=limit), chat

    def fork(self, parent: Submission, params: SamplingParams | None) -> Submission:
        """A request that goes on from an open one; by default with its parameters and another seed."""
        prompt = EncodedPrompt(parent.token_ids, parent.message_ends)
        checked = self._check(prompt, replace(parent.params, seed=None) if params is None else _single(params))
        if checked.prepared is not None:
            if checked.prepared.checked:
                raise RequestError("a fork cannot have a JSONSchema(strict=False): it may have to begin anew")
            checked.prepared.compiled.result()  # a fork reads the output so far at once
        return self._submission(checked, ForkOf(parent.request_id))

    def _check(self, prompt: EncodedPrompt, params: SamplingParams) -> _Checked:
        params, num_tokens = self._defaults.fill(params), len(prompt.token_ids)
        self._scheduler.check(num_tokens, params.max_tokens)
        prepared = None if params.constraint is None else self._constraints.prepare(params.constraint)
        self._limits.check(num_tokens, params, None if prepared is None else prepared.closing)
        draft_text = () if params.draft_text is None else self._prompts.encode_draft(params.draft_text)
        return _Checked(prompt, params, prepared, draft_text)

    def _samples(self, checked: _Checked) -> Iterator[Submission]:
        """The first one computes the prompt for all of them."""
        num_samples = checked.params.n
        first = self._submission(checked._replace(params=replace(checked.params, n=1)))
        yield first
        for index in range(1, num_samples):
            yield replace(
                first,
                request_id=next(self._ids),
                seed=(first.seed + index) % 2**32,
                origin=SampleOf(first.request_id),
            )

    def _submission(
        self,
        checked: _Checked,
        origin: Origin = _NEW,
        chat: PreparedChat | None = None,
        reasoning_limit: ReasoningLimit | None = None,
    ) -> Submission:
        (token_ids, message_ends), params, prepared, draft_text = checked
        seed = self._draw_seed() if params.seed is None else params.seed
        request_id = next(self._ids)
        return Submission(
            request_id,
            token_ids,
            params,
            seed,
            prepared,
            chat,
            reasoning_limit,
            origin,
            draft_text,
            self._adapter,
            message_ends,
        )

    def _draw_seed(self) -> int:
        with self._lock:
            return self._seeds.randrange(2**32)


class _Checked(NamedTuple):
    """A prompt and parameters that were checked, their constraint and their draft text as tokens."""

    prompt: EncodedPrompt
    params: SamplingParams
    prepared: Prepared | None
    draft_text: Sequence[int]


def _check_list(prompts: Sequence[Prompt]) -> None:
    if isinstance(prompts, str | bytes) or not isinstance(prompts, Sequence):
        raise RequestError(
            f"prompts must be a list of prompts, not {type(prompts).__name__}: put a single one in a list"
        )


def _single(params: SamplingParams | None) -> SamplingParams:
    """The parameters of a single request."""
    [params] = _params_for_each([()], params)
    if params.n != 1:
        raise RequestError(f"n={params.n} must be 1 for a single request: generate returns n outputs a prompt")
    return params


def _params_for_each(
    prompts: Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams] | None
) -> Sequence[SamplingParams]:
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * len(prompts)
    if not isinstance(params, Sequence) or not all(isinstance(one, SamplingParams) for one in params):
        raise RequestError(f"params={params!r} must be SamplingParams, or a list with one for each prompt")
    if len(params) != len(prompts):
        raise RequestError(f"params holds {len(params)} items for {len(prompts)} prompts: give one, or one for each")
    return params
