"""What an embedder and a reranker have in common: a model, its thread, and how long its texts may be."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal, Protocol

import mlx.core as mx

from mlx_agent_llm.closing import Closing
from mlx_agent_llm.config import Device, check_range
from mlx_agent_llm.core.forward.step_memory import parameter_bytes
from mlx_agent_llm.embedder.calls import Call
from mlx_agent_llm.embedder.decoder_forward import DecoderForward
from mlx_agent_llm.embedder.encoder_forward import EncoderForward
from mlx_agent_llm.embedder.memory import check_memory, memory_need
from mlx_agent_llm.embedder.texts import TruncationWarning
from mlx_agent_llm.embedder.worker import BatchWorker, Forward
from mlx_agent_llm.errors import CapacityError
from mlx_agent_llm.models import resolve_device
from mlx_agent_llm.models.embedders import Decoder, Preflight, TokenizedTexts, UnreadTextModel
from mlx_agent_llm.models.embedders.loading import EmbeddingModel
from mlx_agent_llm.models.embedders.reranking import CrossEncoder
from mlx_agent_llm.process.memory_ledger import ModelMemory, open_models
from mlx_agent_llm.process.memory_need import MemoryNeed

DEFAULT_KV_CACHE_TOKENS = 8192


class Loaded(Protocol):
    """A model that is ready to run, and what its forward runs on."""

    @property
    def model(self) -> EmbeddingModel | CrossEncoder | Decoder:
        """An encoder with what follows it, or a decoder."""

    @property
    def name(self) -> str:
        """What it was loaded by."""

    @property
    def device(self) -> mx.Device:
        """Where it computes."""


def preflight(name: str, device: Device, kv_cache_tokens: int | None) -> Preflight:
    """What refuses a model before its weights are read where it does not fit beside what this process takes."""
    tokens = DEFAULT_KV_CACHE_TOKENS if kv_cache_tokens is None else kv_cache_tokens
    return partial(check_memory, name, resolve_device(device), tokens)


class ServedModel(Closing):
    """One model whose thread batches the texts of all callers.

    kv_cache_tokens: the size of a causal model's pool of keys and values, which holds the longest text at least; None
    for DEFAULT_KV_CACHE_TOKENS, and for an encoder, which has no pool.
    """

    _KIND: ClassVar[Literal["Embedder", "Reranker"]]

    def __init__(self, loaded: Loaded, max_tokens: int, kv_cache_tokens: int | None) -> None:
        self.max_tokens = max_tokens
        """The length that longer texts are cut to, with the tokens that the model puts around a text."""
        self.model_name = loaded.name
        """What the model was loaded by."""
        self._kv_cache_tokens = _kv_cache_tokens(loaded, kv_cache_tokens)
        self._warning = TruncationWarning()
        self.memory = ModelMemory(self._KIND, loaded.name, *_memory_need(loaded, max_tokens, self._kv_cache_tokens))
        """The bytes of its weights, a causal model's pool, and a full batch's arrays, as memory_ledger() has them."""
        self._worker = BatchWorker(_forward_maker(loaded, self._kv_cache_tokens))
        self._finalizer = weakref.finalize(self, self._worker.close)
        open_models.add(self, self.memory)

    @property
    def num_batches(self) -> int:
        """The batches that were computed so far."""
        return self._worker.num_batches

    def close(self) -> None:
        """End open calls with EngineClosedError and stop the thread, as when nobody has the model any more."""
        self._finalizer()
        open_models.remove(self)

    def _submit(self, texts: TokenizedTexts, width: int) -> Call:
        """Queue texts for vectors (number of texts, width)."""
        longest = max(map(len, texts.token_ids))
        if self._kv_cache_tokens is not None and longest > self._kv_cache_tokens:
            raise CapacityError(f"a text of {longest} tokens is longer than kv_cache_tokens={self._kv_cache_tokens}")
        self._warning.tell(len(texts.truncated), len(texts.token_ids), self.max_tokens)
        call = Call(texts.token_ids, texts.num_first, width)
        self._worker.add(call)
        return call


def _kv_cache_tokens(loaded: Loaded, asked: int | None) -> int | None:
    if not isinstance(loaded.model, Decoder):
        if asked is not None:
            raise ValueError(f"kv_cache_tokens={asked} is for causal models: {loaded.name} is an encoder")
        return None
    if asked is None:
        return DEFAULT_KV_CACHE_TOKENS
    check_range("kv_cache_tokens", asked, 1)
    return asked


def _memory_need(loaded: Loaded, max_tokens: int, kv_cache_tokens: int | None) -> MemoryNeed:
    model = loaded.model.model if isinstance(loaded.model, Decoder) else loaded.model
    vocab_size = loaded.model.vocab_size if isinstance(loaded.model, Decoder) else 0
    unread = UnreadTextModel(model, vocab_size, max_tokens, parameter_bytes(model), None)
    return memory_need(unread, loaded.device, kv_cache_tokens or DEFAULT_KV_CACHE_TOKENS)


def _forward_maker(loaded: Loaded, kv_cache_tokens: int | None) -> Callable[[], Forward]:
    """Holds the model alone: a worker that knew its owner would keep it alive."""
    model, device = loaded.model, loaded.device
    if isinstance(model, Decoder):
        assert kv_cache_tokens is not None
        return lambda: DecoderForward(model, device, kv_cache_tokens)
    return lambda: EncoderForward(model, device)
