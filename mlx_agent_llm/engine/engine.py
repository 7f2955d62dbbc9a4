"""Engine: the thread-safe face. Every call, sync or async, text or chat, whole or streamed, folds one stream."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self, Unpack

import mlx.nn as nn

from mlx_agent_llm.chat import ChatDelta, ChatOutput, FoundFormat, count_tokens, fold_chat, found_format
from mlx_agent_llm.closing import Closing
from mlx_agent_llm.config import EngineConfig, check_range
from mlx_agent_llm.constrain.backends import GrammarCompiler
from mlx_agent_llm.constrain.closing.forced import ForcedText
from mlx_agent_llm.constrain.closing.spelling import Spelling
from mlx_agent_llm.constrain.service import ConstraintService
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.loop import EngineCore, Vocabulary
from mlx_agent_llm.core.stats import EngineStats
from mlx_agent_llm.engine.admission import Admission
from mlx_agent_llm.engine.batch_call import BatchCall
from mlx_agent_llm.engine.cancelling_iterator import CancellingIterator
from mlx_agent_llm.engine.chat_handle import ChatHandle
from mlx_agent_llm.engine.chat_options import ChatOptions
from mlx_agent_llm.engine.draft_model import inspect_draft_model, load_draft_model
from mlx_agent_llm.engine.handle import Handle
from mlx_agent_llm.engine.in_thread import in_thread
from mlx_agent_llm.engine.limits import Limits, find_max_model_len
from mlx_agent_llm.engine.pinning import PinnedPrompt, Pinning
from mlx_agent_llm.engine.preflight import check_memory
from mlx_agent_llm.engine.prompt import Prompt
from mlx_agent_llm.engine.stats_socket import open_if_asked_for
from mlx_agent_llm.engine.submission import Submission
from mlx_agent_llm.engine.tier import open_tier
from mlx_agent_llm.engine.worker import Worker
from mlx_agent_llm.errors import RequestError
from mlx_agent_llm.models import (
    LoadedModel,
    Tokenizer,
    UnreadModel,
    from_parts,
    load_model,
    materialize,
    resolve_device,
)
from mlx_agent_llm.process.default_device import default_device
from mlx_agent_llm.process.fork import check_mlx_survived
from mlx_agent_llm.process.memory_ledger import ModelMemory, open_models
from mlx_agent_llm.request import Delta, RequestOutput, SamplingDefaults, SamplingParams
from mlx_agent_llm.view.snapshot import Snapshot, snapshot_of

if TYPE_CHECKING:
    from mlx_agent_llm.view.live import LiveView

_log = logging.getLogger(__name__)


class Engine(Closing):
    """Serves many requests at once from one model in this process.

    Made by Engine.load or Engine.from_parts; close it, or use it in a `with` block. Every method may be called from any
    thread and any event loop. A prompt is text, token ids or chat messages; what is wrong with a request is raised
    before anything is computed, as a RequestError or a CapacityError, and concerns no other request.
    sampling_defaults: what the model's makers recommend, where a request says nothing.
    max_request_tokens: the most that a request can have, prompt and output together: the context, or what the KV pool
    holds where that is less.
    """

    def __init__(self, loaded: LoadedModel, config: EngineConfig | None = None) -> None:
        check_mlx_survived()
        self.config = config or EngineConfig()
        self.model_name = loaded.name
        self.tokenizer: Tokenizer = loaded.tokenizer
        self.sampling_defaults: SamplingDefaults = loaded.sampling_defaults
        if self.tool_format.warning:
            _log.warning("%s: %s", self.model_name, self.tool_format.warning)
        self.max_model_len = find_max_model_len(loaded.name, loaded.max_model_len, self.config)
        self._spelling = Spelling(
            self.tokenizer.token_bytes, self.tokenizer.special_token_texts, self.tokenizer.eos_token_ids
        )
        self._constraints = ConstraintService(_make_compiler(loaded), self._spelling)
        materialize(loaded.model)
        draft_model = load_draft_model(loaded, self.config)
        make_core = partial(_make_core, loaded, draft_model, self.config, self.max_model_len, self._spelling)
        self._worker = Worker(make_core, self.config.max_queue)
        limits = Limits(loaded.vocab_size, self.tokenizer.eos_token_ids, self.max_model_len)
        scheduler = self._worker.core.scheduler
        self.max_request_tokens = scheduler.max_request_tokens
        self._admission = Admission(
            self.tokenizer, self.config, limits, scheduler, self._constraints, self.sampling_defaults, loaded.adapter
        )
        self._pinning = Pinning(self._worker, self._admission)
        # Also for an engine that is dropped unclosed: a thread inside MLX must not outlive the interpreter.
        closers = ExitStack()
        self._finalizer = weakref.finalize(self, closers.close)
        closers.callback(self._worker.close)
        closers.enter_context(open_if_asked_for(partial(_snapshot, self.model_name, self._worker)))
        open_models.add(self, ModelMemory("Engine", self.model_name, *self._worker.core.memory_need))

    @classmethod
    def load(cls, model: str, config: EngineConfig | None = None) -> Self:
        """Serve "demo", a local mlx-lm directory, a .gguf file or a hub id.

        Raises ModelLoadError, UnsupportedModelError for a model that can be read but not served, CapacityError before
        any weight is read where the device has too little memory, and ForkedProcessError in a process that was forked
        from one which had used MLX.
        """
        check_mlx_survived()
        config = config or EngineConfig()
        with open_models.loading:
            loaded = load_model(
                model,
                device=config.device,
                dtype=config.dtype,
                adapter_path=config.adapter_path,
                preflight=partial(_preflight, model, config),
            )
            return cls(loaded, config)

    @classmethod
    def from_parts(cls, model: nn.Module, tokenizer: Any, config: EngineConfig | None = None) -> Self:
        """Serve a model of mlx-lm or mlx_agent_llm.testing that is in memory, with its tokenizer."""
        check_mlx_survived()
        return cls(from_parts(model, tokenizer), config)

    def generate(
        self, prompts: Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams] | None = None
    ) -> list[RequestOutput]:
        """Run the prompts as one batch and return their outputs in order, n for each prompt.

        params: one for all prompts or one for each. There may be more prompts than max_queue: they start as there is
        room. The first request that fails cancels the others, and its error is raised; submit gives each its own fate.
        """
        call = self._batch_call(prompts, params)
        try:
            call.start()
            return call.result()
        finally:
            call.cancel()

    async def agenerate(
        self, prompts: Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams] | None = None
    ) -> list[RequestOutput]:
        """Like generate, without blocking the event loop; cancelling the task cancels the requests."""
        call = await asyncio.to_thread(self._batch_call, prompts, params)
        try:
            await asyncio.to_thread(call.start)
            return await call.aresult()
        finally:
            call.cancel()

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> Iterator[Delta]:
        """Yield the output step by step; closing the iterator early cancels the request."""
        handle = self.submit(prompt, params)
        return CancellingIterator(handle, handle)

    async def astream(self, prompt: Prompt, params: SamplingParams | None = None) -> AsyncIterator[Delta]:
        """Like stream, for an event loop; closing it or cancelling the task cancels the request."""
        handle = await in_thread(partial(self.submit, prompt, params), Handle.cancel)
        try:
            async for delta in handle:
                yield delta
        finally:
            handle.cancel()

    def chat(self, messages: Sequence[Mapping[str, Any]], **options: Unpack[ChatOptions]) -> ChatOutput:
        """Answer chat messages, OpenAI-style dicts."""
        return fold_chat(self.stream_chat(messages, **options))

    async def achat(self, messages: Sequence[Mapping[str, Any]], **options: Unpack[ChatOptions]) -> ChatOutput:
        """Like chat, without blocking the event loop."""
        return fold_chat([delta async for delta in self.astream_chat(messages, **options)])

    def stream_chat(self, messages: Sequence[Mapping[str, Any]], **options: Unpack[ChatOptions]) -> Iterator[ChatDelta]:
        """Yield an answer's text and tool calls as they are decoded; closing the iterator early cancels the request."""
        handle = self.submit_chat(messages, **options)
        return CancellingIterator(handle, handle)

    async def astream_chat(
        self, messages: Sequence[Mapping[str, Any]], **options: Unpack[ChatOptions]
    ) -> AsyncIterator[ChatDelta]:
        """Like stream_chat, for an event loop."""
        handle = await in_thread(partial(self.submit_chat, messages, **options), ChatHandle.cancel)
        try:
            async for delta in handle:
                yield delta
        finally:
            handle.cancel()

    def submit(self, prompt: Prompt, params: SamplingParams | None = None) -> Handle:
        """Start one request and return at once; the handle yields its deltas, its result or its error."""
        self._worker.owner.check()
        return self._start(self._admission.single(prompt, params))

    def submit_chat(self, messages: Sequence[Mapping[str, Any]], **options: Unpack[ChatOptions]) -> ChatHandle:
        """Start one chat request and return at once; the handle yields its deltas or its error."""
        self._worker.owner.check()
        submission, chat = self._admission.chat(messages, **options)
        return ChatHandle(self._start(submission), chat.parser, len(submission.token_ids))

    def warm(self, prompts: Sequence[Prompt], *, tools: Sequence[Any] | None = None) -> list[PinnedPrompt]:
        """Compute system prompts ahead of the requests that begin with them, and pin their KV: it is not evicted.

        Pinned prompts stay until unpin or close, on the disk, too, where there is one (kv_tier). tools: those of the
        chats among the prompts, as in chat. Pins take at most half of each pool, and leave the room that open requests
        need: CapacityError, and nothing is pinned, where they would take more, or where prefix_cache is off.
        """
        self._worker.owner.check()
        if not self.config.prefix_cache:
            raise RequestError("warm needs EngineConfig(prefix_cache=True): nothing is kept without it")
        return self._pinning.pin(prompts, tools)

    async def awarm(self, prompts: Sequence[Prompt], *, tools: Sequence[Any] | None = None) -> list[PinnedPrompt]:
        """Like warm, without blocking the event loop; what a task that is cancelled began is unpinned at its end."""
        return await in_thread(partial(self.warm, prompts, tools=tools), self.unpin)

    def unpin(self, prompts: Sequence[PinnedPrompt] | None = None) -> None:
        """Let pinned prompts be evicted like others again, or all of them; returns when it is done."""
        self._pinning.unpin(None if prompts is None else [prompt.pin_id for prompt in prompts])

    def reset_prefix_cache(self) -> None:
        """Forget the KV of everything that was computed so far, pinned or not; returns when it is done.

        Running requests go on, and nothing of what they compute is found by others either.
        """
        self._worker.call(EngineCore.reset_prefix_cache)

    @property
    def tool_format(self) -> FoundFormat:
        """How the model calls tools, from where that is known, what its chat template can do, and what is wrong."""
        return found_format(self.tokenizer, self.config.tool_format)

    @property
    def can_reason(self) -> bool:
        """Whether the model may think before it answers."""
        return self.tool_format.tool_format.reasoning is not None

    def count_tokens(self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Any] | None = None) -> int:
        """How many tokens a prompt of any part of a conversation has, with the tools that it shows."""
        return count_tokens(self.tokenizer, messages, tools=tools, tool_format=self.config.tool_format)

    def stats(self) -> EngineStats:
        """Queue, blocks, prefix hits, batch sizes and times so far, and how the model calls tools."""
        self._worker.owner.check()
        found = self.tool_format
        return replace(
            self._worker.core.stats(),
            tool_format=found.tool_format.name,
            tool_format_source=found.source,
            tool_format_warning=found.warning,
        )

    def live(self, seconds: float = 0.5) -> LiveView:
        """Show the stats while they change, in a notebook or on a terminal, until stop(); `with engine.live(): ...`."""
        from mlx_agent_llm.view.live import LiveView  # rich takes a tenth of a second

        check_range("seconds", seconds, 0.05, integer=False)
        self._worker.owner.check()
        model_name, worker = self.model_name, self._worker  # a view does not keep the engine open
        return LiveView(lambda: [_snapshot(model_name, worker)], seconds)

    def close(self) -> None:
        """Stop, and give back the memory of the weights, unless somebody else holds them too, and of the KV pools.

        Requests in flight end with EngineClosedError. Harmless when called again.
        """
        self._finalizer()  # first: what waits for a grammar ends with EngineClosedError, and not with its compilation
        open_models.remove(self)
        self._constraints.close()

    def _batch_call(
        self, prompts: Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams] | None
    ) -> BatchCall:
        self._worker.owner.check()
        return BatchCall(self._worker, self._admission.batch(prompts, params))

    def _start(self, submission: Submission) -> Handle:
        abort = partial(self._worker.abort, submission.request_id)
        handle = Handle(cancel=abort, fork=partial(self._fork, submission))
        self._worker.add(submission, handle)
        return handle

    def _fork(self, parent: Submission, params: SamplingParams | None) -> Handle:
        self._worker.owner.check()
        return self._start(self._admission.fork(parent, params))


def _snapshot(model_name: str, worker: Worker) -> Snapshot:
    return snapshot_of(model_name, worker.core.stats())


def _make_compiler(loaded: LoadedModel) -> GrammarCompiler:
    tokenizer = loaded.tokenizer
    return GrammarCompiler(
        tokenizer.token_bytes, loaded.vocab_size, tokenizer.eos_token_ids, tokenizer.special_token_texts
    )


def _make_core(
    loaded: LoadedModel,
    draft_model: nn.Module | None,
    config: EngineConfig,
    max_model_len: int,
    spelling: Spelling,
) -> EngineCore:
    """Runs on the worker's thread, as everything that touches MLX does."""
    device = resolve_device(config.device)
    with default_device.set_to(device):
        shape = probe_model(loaded.model)
    tokenizer = loaded.tokenizer
    forced = ForcedText(partial(tokenizer.encode, add_special_tokens=False), spelling)
    vocabulary = Vocabulary(tokenizer.token_bytes, tokenizer.eos_token_ids, tokenizer.strip_leading_space, forced.spell)
    tier = open_tier(loaded, shape, config, device)
    try:
        return EngineCore(loaded.model, shape, vocabulary, config, max_model_len, device, tier, draft_model)
    except BaseException:
        if tier is not None:
            tier.store.close()
        raise


def _preflight(name: str, config: EngineConfig, unread: UnreadModel) -> None:
    max_model_len = find_max_model_len(name, unread.max_model_len, config)
    draft = inspect_draft_model(config)
    check_memory(name, config, max_model_len, resolve_device(config.device), unread, draft)
