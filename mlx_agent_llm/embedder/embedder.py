"""Embedder, the face: texts in, vectors of length 1 out, from any number of threads and tasks at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Self

import numpy as np

from mlx_agent_llm.config import Device, DType, check_range
from mlx_agent_llm.embedder.calls import Vectors
from mlx_agent_llm.embedder.served_model import ServedModel, preflight
from mlx_agent_llm.embedder.texts import check_texts
from mlx_agent_llm.errors import GenerationError, RequestError
from mlx_agent_llm.models.embedders import LoadedEmbedder, TokenizedTexts, load_embedder
from mlx_agent_llm.process.memory_ledger import open_models


class Embedder(ServedModel):
    """An embedding model in this process, whose one thread batches the texts of all callers.

    dimensions: vectors are cut to so many values, for models that were trained for it (Matryoshka); None keeps all.
    kv_cache_tokens: of a causal model, the size of its pool of keys and values, which holds the longest text at least.
    """

    _KIND = "Embedder"

    def __init__(
        self, loaded: LoadedEmbedder, *, dimensions: int | None = None, kv_cache_tokens: int | None = None
    ) -> None:
        if dimensions is not None:
            check_range("dimensions", dimensions, 1, loaded.dimensions)
        self._loaded = loaded
        self._dimensions = loaded.dimensions if dimensions is None else dimensions
        super().__init__(loaded, loaded.tokenizer.max_tokens, kv_cache_tokens)

    @classmethod
    def load(
        cls,
        model: str,
        *,
        dimensions: int | None = None,
        kv_cache_tokens: int | None = None,
        device: Device = "auto",
        dtype: DType = "auto",
    ) -> Self:
        """Load "demo-embedder", a directory in sentence-transformers' layout or a hub id.

        A name that leads nowhere is a ModelLoadError, a model of another kind an UnsupportedModelError, dimensions that
        it lacks a ValueError; one that does not fit beside what this process takes already is a CapacityError before
        any weight is read.
        """
        check = preflight(model, device, kv_cache_tokens)
        with open_models.loading:
            loaded = load_embedder(model, device=device, dtype=dtype, preflight=check)
            return cls(loaded, dimensions=dimensions, kv_cache_tokens=kv_cache_tokens)

    @property
    def dimensions(self) -> int:
        """The number of values of a vector."""
        return self._dimensions

    @property
    def prompts(self) -> Mapping[str, str]:
        """What is written before a text, by the names that embed takes; "query" and "document" are always there."""
        return MappingProxyType(dict(self._loaded.prompts))

    def embed(self, texts: Sequence[str], *, prompt_name: str | None = None) -> Vectors:
        """Vectors (number of texts, dimensions) of length 1 in float32.

        prompt_name: a key of prompts; None takes the model's default, if it has one. A text of more than max_tokens
        tokens loses its end, of which the first time is told in a UserWarning. Texts that are none are a RequestError.
        """
        tokens = self.tokenize(texts, prompt_name=prompt_name)
        return self._finish(self._submit(tokens, self._loaded.dimensions).future.result())

    async def aembed(self, texts: Sequence[str], *, prompt_name: str | None = None) -> Vectors:
        """Like embed; tokens are made on another thread, too, so that the event loop goes on."""
        return await self.aembed_tokens(await asyncio.to_thread(self.tokenize, texts, prompt_name=prompt_name))

    def tokenize(self, texts: Sequence[str], *, prompt_name: str | None = None) -> TokenizedTexts:
        """The tokens that embed would read of texts, and which of the texts it would cut."""
        check_texts("texts", texts)
        prompt = self._prompt(prompt_name)
        return self._loaded.tokenizer.tokenize([prompt + text for text in texts])

    async def aembed_tokens(self, tokens: TokenizedTexts) -> Vectors:
        """The vectors of what tokenize gave."""
        return self._finish(await asyncio.wrap_future(self._submit(tokens, self._loaded.dimensions).future))

    def count_tokens(self, texts: Sequence[str], *, prompt_name: str | None = None) -> list[int]:
        """How many tokens each text has, with its prompt: more than max_tokens where embed would cut it."""
        check_texts("texts", texts)
        prompt = self._prompt(prompt_name)
        return self._loaded.tokenizer.count([prompt + text for text in texts])

    def _prompt(self, name: str | None) -> str:
        name = self._loaded.default_prompt_name if name is None else name
        if name is None:
            return ""
        if name not in self._loaded.prompts:
            names = ", ".join(map(repr, self._loaded.prompts))
            raise RequestError(f"prompt_name={name!r} must be one of {names}")
        return self._loaded.prompts[name]

    def _finish(self, vectors: Vectors) -> Vectors:
        if not np.isfinite(vectors).all():
            raise GenerationError("the model computed values that are not finite")
        vectors = vectors[:, : self._dimensions]
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: Vectors = vectors / np.maximum(lengths, np.float32(1e-12))
        return unit
