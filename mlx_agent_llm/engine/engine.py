"""Engine: the thread-safe face. Every call, sync or async, text or chat, whole or streamed, folds one stream."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import mlx.nn as nn

from mlx_agent_llm.chat import ChatDelta, ChatOutput, PreparedChat, fold_chat, prepare_chat
from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.constrain.backends import GrammarCompiler
from mlx_agent_llm.constrain.closing.close_in_time import CloseInTime
from mlx_agent_llm.constrain.closing.closing import Closing
from mlx_agent_llm.constrain.closing.forced import ForcedText
from mlx_agent_llm.constrain.closing.spelling import Spelling
from mlx_agent_llm.constrain.reasoning import ReasoningLimit
from mlx_agent_llm.constrain.service import ConstraintService
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.loop import EngineCore, Vocabulary
from mlx_agent_llm.core.stats import EngineStats
from mlx_agent_llm.engine.handle import Handle
from mlx_agent_llm.engine.resampling import CheckedDelivery
from mlx_agent_llm.engine.worker import Worker
from mlx_agent_llm.errors import ContextLengthError, QueueFullError, RequestError
from mlx_agent_llm.models import LoadedModel, Tokenizer, from_parts, load_model, materialize, resolve_device
from mlx_agent_llm.process.default_device import default_device
from mlx_agent_llm.request import Delta, Request, RequestOutput, SamplingParams

T = TypeVar("T")
Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]


class Engine:
    """Serves many requests at once from one model in this process.

    Made by Engine.load or Engine.from_parts; close it, or use it in a `with` block. Every method may be called from any
    thread and any event loop. A prompt is text, token ids or chat messages; what is wrong with a request is raised
    before anything is computed, as a RequestError or a CapacityError, and concerns no other request.
    """

    def __init__(self, loaded: LoadedModel, config: EngineConfig | None = None) -> None:
        self.config = config or EngineConfig()
        self.model_name = loaded.name
        self.tokenizer: Tokenizer = loaded.tokenizer
        self.max_model_len = _max_model_len(loaded.max_model_len, self.config)
        self._spelling = Spelling(
            self.tokenizer.token_bytes, self.tokenizer.special_token_texts, self.tokenizer.eos_token_ids
        )
        self._constraints = ConstraintService(_make_compiler(loaded), self._spelling)
        self._vocab_size = loaded.vocab_size
        self._ids = itertools.count()
        self._seeds = random.Random(self.config.seed)
        self._lock = threading.Lock()
        self._num_open = 0
        materialize(loaded.model)
        self._worker = Worker(partial(_make_core, loaded, self.config, self.max_model_len, self._spelling))
        # Also for an engine that is dropped unclosed: a thread inside MLX must not outlive the interpreter.
        self._finalizer = weakref.finalize(self, self._worker.close)

    @classmethod
    def load(cls, model: str, config: EngineConfig | None = None) -> Self:
        """Serve "demo", a local mlx-lm directory, a .gguf file or a hub id.

        Raises ModelLoadError, and UnsupportedModelError for a model that can be read but not served.
        """
        config = config or EngineConfig()
        return cls(load_model(model, device=config.device, dtype=config.dtype), config)

    @classmethod
    def from_parts(cls, model: nn.Module, tokenizer: Any, config: EngineConfig | None = None) -> Self:
        """Serve a model of mlx-lm or mlx_agent_llm.testing that is in memory, with its tokenizer."""
        return cls(from_parts(model, tokenizer), config)

    def generate(
        self, prompts: Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams] | None = None
    ) -> list[RequestOutput]:
        """Run the prompts as one batch and return their outputs in order, n for each prompt.

        params: one for all prompts or one for each. A request that fails while it runs cancels the others, and its
        error is raised; submit gives each its own fate.
        """
        handles = self._submit_all(prompts, params)
        try:
            return [handle.result() for handle in handles]
        finally:
            _cancel_all(handles)

    async def agenerate(
        self, prompts: Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams] | None = None
    ) -> list[RequestOutput]:
        """Like generate, without blocking the event loop; cancelling the task cancels the requests."""
        handles = await _in_thread(self._submit_all, _cancel_all, prompts, params)
        try:
            return [await handle.aresult() for handle in handles]
        finally:
            _cancel_all(handles)

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> Iterator[Delta]:
        """Yield the output step by step; closing the iterator early cancels the request."""
        handle = self.submit(prompt, params)
        return _CancellingIterator(handle, handle)

    async def astream(self, prompt: Prompt, params: SamplingParams | None = None) -> AsyncIterator[Delta]:
        """Like stream, for an event loop; closing it or cancelling the task cancels the request."""
        handle = await _in_thread(self.submit, Handle.cancel, prompt, params)
        try:
            async for delta in handle:
                yield delta
        finally:
            handle.cancel()

    def chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> ChatOutput:
        """Answer chat messages; options as for stream_chat."""
        return fold_chat(self.stream_chat(messages, **options))

    async def achat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> ChatOutput:
        """Like chat, without blocking the event loop."""
        return fold_chat([delta async for delta in self.astream_chat(messages, **options)])

    def stream_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Any] | None = None,
        tool_choice: Any = None,
        parallel_tool_calls: bool = True,
        response_format: Any = None,
        enable_thinking: bool | None = None,
        max_reasoning_tokens: int | None = None,
        params: SamplingParams | None = None,
    ) -> Iterator[ChatDelta]:
        """Yield an answer's text and tool calls as they are decoded; closing the iterator early cancels the request.

        messages: OpenAI-style dicts. tools: Tool, OpenAI dicts, pydantic models or functions. tool_choice: "auto",
        "none", "required" (or "any", True), a tool's name or the OpenAI dict. response_format: a JSON Schema or a
        pydantic model; beside tools it means tool calls or this JSON. enable_thinking: the switch of the model's chat
        template; None leaves it as it is. max_reasoning_tokens: after so many tokens of reasoning its end is written.
        """
        handle, chat = self._start_chat(
            messages,
            params,
            max_reasoning_tokens,
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls,
            response_format=response_format,
            enable_thinking=enable_thinking,
        )
        return _CancellingIterator(handle, (item for delta in handle for item in chat.parser.feed(delta)))

    async def astream_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Any] | None = None,
        tool_choice: Any = None,
        parallel_tool_calls: bool = True,
        response_format: Any = None,
        enable_thinking: bool | None = None,
        max_reasoning_tokens: int | None = None,
        params: SamplingParams | None = None,
    ) -> AsyncIterator[ChatDelta]:
        """Like stream_chat, for an event loop."""
        start = partial(
            self._start_chat,
            messages,
            params,
            max_reasoning_tokens,
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls,
            response_format=response_format,
            enable_thinking=enable_thinking,
        )
        handle, chat = await _in_thread(start, lambda started: started[0].cancel())
        try:
            async for delta in handle:
                for chat_delta in chat.parser.feed(delta):
                    yield chat_delta
        finally:
            handle.cancel()

    def submit(self, prompt: Prompt, params: SamplingParams | None = None) -> Handle:
        """Start one request and return at once; the handle yields its deltas, its result or its error."""
        self._worker.owner.check()
        [params] = _params_for_each([prompt], params)
        return self._submit_one(self._encode(prompt), params, self._worker.add)

    def reset_prefix_cache(self) -> None:
        """Forget the KV of everything that was computed so far; returns when it is done.

        Running requests go on, and nothing of what they compute is found by others either.
        """
        self._worker.call(EngineCore.reset_prefix_cache)

    def stats(self) -> EngineStats:
        """Queue, blocks, prefix hits, batch sizes and times so far."""
        self._worker.owner.check()
        return self._worker.core.stats()

    def close(self) -> None:
        """Stop; requests in flight end with EngineClosedError. Harmless when called again."""
        self._finalizer()  # first: what waits for a grammar ends with EngineClosedError, and not with its compilation
        self._constraints.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        params: SamplingParams | None,
        max_reasoning_tokens: int | None,
        **options: Any,
    ) -> tuple[Handle, PreparedChat]:
        self._worker.owner.check()
        params = params or SamplingParams()
        check = self._constraints.check
        chat = prepare_chat(self.tokenizer, messages, tool_format=self.config.tool_format, check=check, **options)
        limit = chat.limit_reasoning(max_reasoning_tokens)
        if chat.constraint is not None:
            if params.constraint is not None:
                raise RequestError("params.constraint cannot be combined with tools or response_format")
            params = replace(params, constraint=chat.constraint)
        adapt = partial(_adapt_to_chat, chat, limit)
        return self._submit_one(self._encode(chat.prompt_token_ids), params, self._worker.add, adapt), chat

    def _submit_all(
        self, prompts: Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams] | None
    ) -> list[Handle]:
        """Check and encode every prompt before the first one starts; a refusal cancels those that did."""
        self._worker.owner.check()
        if isinstance(prompts, str | bytes) or not isinstance(prompts, Sequence):
            raise RequestError(
                f"prompts must be a list of prompts, not {type(prompts).__name__}: put a single one in a list"
            )
        each = _params_for_each(prompts, params)
        encoded = [self._encode(prompt) for prompt in prompts]
        for token_ids, request_params in zip(encoded, each, strict=True):
            self._check(token_ids, request_params)
        handles: list[Handle] = []
        try:
            for token_ids, request_params in zip(encoded, each, strict=True):
                for handle in self._submit_samples(token_ids, request_params):
                    handles.append(handle)  # one by one, so that all that started are cancelled when the next one fails
        except Exception:
            _cancel_all(handles)
            raise
        return handles

    def _submit_samples(self, token_ids: list[int], params: SamplingParams) -> Iterator[Handle]:
        """Start n samples of a prompt that was checked; the first one computes the prompt for all of them."""
        seed = self._draw_seed() if params.seed is None else params.seed
        leader_id = next(self._ids)
        yield self._submit(leader_id, token_ids, replace(params, n=1, seed=seed), self._worker.add)
        for sample in range(1, params.n):
            sample_params = replace(params, n=1, seed=(seed + sample) % 2**32)
            start = partial(self._worker.add, leader_id=leader_id)
            yield self._submit(next(self._ids), token_ids, sample_params, start)

    def _submit_one(
        self,
        token_ids: list[int],
        params: SamplingParams,
        start: Callable[[Request], None],
        adapt: Callable[[Request], None] | None = None,
    ) -> Handle:
        """Check and start a single request."""
        if params.n != 1:
            raise RequestError(f"n={params.n} must be 1 for a single request: generate returns n outputs a prompt")
        self._check(token_ids, params)
        return self._submit(next(self._ids), token_ids, params, start, adapt)

    def _fork(
        self, parent_id: int, token_ids: list[int], parent_params: SamplingParams, params: SamplingParams | None
    ) -> Handle:
        """Start a request that goes on from an open one; by default with its parameters and another seed."""
        self._worker.owner.check()
        [params] = _params_for_each([token_ids], replace(parent_params, seed=None) if params is None else params)
        if params.constraint is not None:
            prepared = self._constraints.prepare(params.constraint)
            if prepared.checked:
                raise RequestError("a fork cannot have a JSONSchema(strict=False): it may have to begin anew")
            prepared.compiled.result()  # a fork reads the output so far at once
        return self._submit_one(token_ids, params, partial(self._worker.fork, parent_id=parent_id))

    def _check(self, token_ids: list[int], params: SamplingParams) -> None:
        """Raise what is wrong with a request; its grammar begins to be compiled here, and is kept."""
        self._worker.core.scheduler.check(len(token_ids), params.max_tokens)
        if params.constraint is not None:
            closing = self._constraints.prepare(params.constraint).closing
            _check_budget(closing, len(token_ids), params.max_tokens, self.max_model_len)
        _check_vocabulary(params, self._vocab_size, self.tokenizer.eos_token_ids)
        if len(token_ids) + params.min_tokens > self.max_model_len:
            raise ContextLengthError(
                f"prompt of {len(token_ids)} tokens + min_tokens={params.min_tokens} must be at most "
                f"max_model_len={self.max_model_len}"
            )

    def _submit(
        self,
        request_id: int,
        token_ids: list[int],
        params: SamplingParams,
        start: Callable[[Request], None],
        adapt: Callable[[Request], None] | None = None,
    ) -> Handle:
        """Start a request that was checked; `adapt` changes it, and every further attempt."""
        prepared = None if params.constraint is None else self._constraints.prepare(params.constraint)
        seed = self._draw_seed() if params.seed is None else params.seed
        self._open_one()
        handle = Handle(
            cancel=partial(self._worker.abort, request_id), fork=partial(self._fork, request_id, token_ids, params)
        )

        sink: Callable[[Delta], None]

        def deliver(delta: Delta) -> None:
            if delta.finish_reason is not None:
                self._close_one()
            handle.deliver(delta)

        def make_request(seed: int) -> Request:
            request = Request(request_id, token_ids, params, seed, sink, submitted_at=submitted_at)
            if prepared is not None:
                request.grammar, request.budget = prepared.compiled, CloseInTime(prepared.closing)
            if adapt is not None:
                adapt(request)
            return request

        sink, submitted_at = deliver, time.perf_counter()
        if prepared is not None and prepared.checked:
            # On the engine's thread, so that no cancellation slips in between two attempts.
            sink = CheckedDelivery(
                params, seed, prepared.checked, deliver, lambda seed: self._worker.core.add(make_request(seed))
            )
        try:
            start(make_request(seed))
        except Exception:
            self._close_one()
            raise
        return handle

    def _encode(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt in any of its three forms, checked."""
        if isinstance(prompt, bytes) or not isinstance(prompt, str | Sequence):
            raise RequestError(f"prompt={prompt!r} must be text, token ids or messages")
        if isinstance(prompt, str):
            token_ids = self.tokenizer.encode(_check_text(prompt))
        elif prompt and all(isinstance(message, Mapping) for message in prompt):
            token_ids = prepare_chat(self.tokenizer, prompt, tool_format=self.config.tool_format).prompt_token_ids
        else:
            token_ids = _check_token_ids(prompt, self._vocab_size)
        if not token_ids:
            raise RequestError(f"prompt={prompt!r} must hold at least one token")
        if max(token_ids) >= self._vocab_size:  # a tokenizer may know tokens that the model has no embedding of
            raise RequestError(f"prompt has token {max(token_ids)}: must be below the vocabulary's {self._vocab_size}")
        return token_ids

    def _draw_seed(self) -> int:
        with self._lock:
            return self._seeds.randrange(2**32)

    def _open_one(self) -> None:
        with self._lock:
            if self._num_open - len(self._worker.core.scheduler.running) >= self.config.max_queue:
                raise QueueFullError(f"max_queue={self.config.max_queue} requests are waiting already")
            self._num_open += 1

    def _close_one(self) -> None:
        with self._lock:
            self._num_open -= 1


class _CancellingIterator(Iterator[T]):
    """Cancels the request when it is closed or dropped, also before its first item: a generator could not do that."""

    def __init__(self, handle: Handle, items: Iterable[T]) -> None:
        self._handle = handle
        self._items = iter(items)

    def __next__(self) -> T:
        return next(self._items)

    def close(self) -> None:
        self._handle.cancel()
        self._items = iter(())

    def __del__(self) -> None:
        self._handle.cancel()


async def _in_thread(start: Callable[..., T], undo: Callable[[T], None], *arguments: Any) -> T:
    """Run `start` off the event loop; when the task is cancelled meanwhile, what it started is undone."""
    started: Future[T] = Future()  # the thread's own, because it may go on for longer than the event loop

    def run() -> T:
        result = start(*arguments)
        started.set_result(result)
        return result

    try:
        return await asyncio.to_thread(run)
    except asyncio.CancelledError:
        started.add_done_callback(lambda done: undo(done.result()))
        raise


def _make_compiler(loaded: LoadedModel) -> GrammarCompiler:
    tokenizer = loaded.tokenizer
    return GrammarCompiler(
        tokenizer.token_bytes, loaded.vocab_size, tokenizer.eos_token_ids, tokenizer.special_token_texts
    )


def _make_core(loaded: LoadedModel, config: EngineConfig, max_model_len: int, spelling: Spelling) -> EngineCore:
    """Runs on the worker's thread, as everything that touches MLX does."""
    device = resolve_device(config.device)
    with default_device.set_to(device):
        shape = probe_model(loaded.model)
    tokenizer = loaded.tokenizer
    forced = ForcedText(partial(tokenizer.encode, add_special_tokens=False), spelling)
    vocabulary = Vocabulary(tokenizer.token_bytes, tokenizer.eos_token_ids, tokenizer.strip_leading_space, forced.spell)
    return EngineCore(loaded.model, shape, vocabulary, config, max_model_len, device)


def _adapt_to_chat(chat: PreparedChat, limit: ReasoningLimit | None, request: Request) -> None:
    """Let the request's text show what the chat's parser reads, and keep its reasoning within the limit."""
    request.shown_tokens = chat.shown_tokens
    if limit is not None:
        request.matcher, request.grammar = limit.applied_to(request.grammar)


def _cancel_all(handles: Sequence[Handle]) -> None:
    for handle in handles:
        handle.cancel()


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


def _check_text(prompt: str) -> str:
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"prompt={prompt!r} must be text that UTF-8 can encode: {error}") from None
    return prompt


def _check_budget(closing: Closing, num_prompt_tokens: int, max_tokens: int, max_model_len: int) -> None:
    """Raise unless the shortest text of a constraint fits."""
    if not closing.fits_into(max_tokens):
        raise RequestError(
            f"max_tokens={max_tokens} must be at least {closing.minimum}: "
            "so many tokens has the shortest text that satisfies the constraint"
        )
    if not closing.fits_into(max_model_len - num_prompt_tokens):
        raise ContextLengthError(
            f"prompt of {num_prompt_tokens} tokens leaves {max_model_len - num_prompt_tokens} of "
            f"max_model_len={max_model_len}, but the constraint needs at least {closing.minimum}"
        )


def _check_vocabulary(params: SamplingParams, vocab_size: int, eos_token_ids: Collection[int]) -> None:
    for name, token_ids in (("stop_token_ids", params.stop_token_ids), ("logit_bias token id", params.logit_bias)):
        for token_id in token_ids:
            if token_id >= vocab_size:
                raise RequestError(f"{name}={token_id} must be below the vocabulary's size, {vocab_size}")
    if params.logprobs is not None and params.logprobs > vocab_size:
        raise RequestError(f"logprobs={params.logprobs} must be at most the vocabulary's size, {vocab_size}")
    ends = {*params.stop_token_ids, *(() if params.ignore_eos else eos_token_ids)}
    if params.min_tokens and all(token_id in ends for token_id in range(vocab_size)):
        raise RequestError(
            f"min_tokens={params.min_tokens} must be 0 where every token of the vocabulary is an end token"
        )


def _check_token_ids(prompt: Sequence[Any], vocab_size: int) -> list[int]:
    for index, value in enumerate(prompt):
        if isinstance(value, bool) or not isinstance(value, int):
            raise RequestError(f"prompt[{index}]={value!r} must be a token id; a prompt is text, token ids or messages")
        if not 0 <= value < vocab_size:
            raise RequestError(f"prompt[{index}]={value} must be between 0 and {vocab_size - 1}")
    return list(prompt)


def _max_model_len(model_context: int, config: EngineConfig) -> int:
    if config.max_model_len is not None and config.max_model_len > model_context:
        raise ValueError(f"max_model_len={config.max_model_len} must be at most the model's context, {model_context}")
    return config.max_model_len or model_context
