"""Embedder, the face: texts in, vectors of length 1 out, from any number of threads and tasks at a time."""

from __future__ import annotations

import asyncio
import threading
import warnings
import weakref
from collections.abc import Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Self

import numpy as np

from mlx_agent_llm.config import Device, DType, check_range
from mlx_agent_llm.embedder.calls import Call, Vectors
from mlx_agent_llm.embedder.worker import EmbedderWorker
from mlx_agent_llm.errors import GenerationError, RequestError
from mlx_agent_llm.models.embedders import LoadedEmbedder, load_embedder


class Embedder:
    """An embedding model in this process, whose one thread batches the texts of all callers.

    dimensions: vectors are cut to so many values, for models that were trained for it (Matryoshka); None keeps all.
    """

    def __init__(self, loaded: LoadedEmbedder, *, dimensions: int | None = None) -> None:
        if dimensions is not None:
            check_range("dimensions", dimensions, 1, loaded.dimensions)
        self._loaded = loaded
        self._dimensions = loaded.dimensions if dimensions is None else dimensions
        self._warning = threading.Lock()  # taken once
        self._worker = EmbedderWorker(loaded)
        self._finalizer = weakref.finalize(self, self._worker.close)

    @classmethod
    def load(cls, model: str, *, dimensions: int | None = None, device: Device = "auto", dtype: DType = "auto") -> Self:
        """Load "demo-embedder", a directory in sentence-transformers' layout or a hub id.

        A name that leads nowhere is a ModelLoadError, a model of another kind an UnsupportedModelError, dimensions that
        it lacks a ValueError.
        """
        return cls(load_embedder(model, device=device, dtype=dtype), dimensions=dimensions)

    @property
    def model_name(self) -> str:
        """What the model was loaded by."""
        return self._loaded.name

    @property
    def dimensions(self) -> int:
        """The number of values of a vector."""
        return self._dimensions

    @property
    def max_tokens(self) -> int:
        """The length that longer texts are cut to, with the tokens that the model puts around a text."""
        return self._loaded.tokenizer.max_tokens

    @property
    def prompts(self) -> Mapping[str, str]:
        """What is written before a text, by the names that embed takes; "query" and "document" are always there."""
        return MappingProxyType(dict(self._loaded.prompts))

    @property
    def num_batches(self) -> int:
        """The forwards so far."""
        return self._worker.num_batches

    def embed(self, texts: Sequence[str], *, prompt_name: str | None = None) -> Vectors:
        """Vectors (number of texts, dimensions) of length 1 in float32.

        prompt_name: a key of prompts; None takes the model's default, if it has one. A text of more than max_tokens
        tokens loses its end, of which the first time is told in a UserWarning. Texts that are none are a RequestError.
        """
        return self._finish(self._start(texts, prompt_name).future.result())

    async def aembed(self, texts: Sequence[str], *, prompt_name: str | None = None) -> Vectors:
        """Like embed; tokens are made on another thread, too, so that the event loop goes on."""
        call = await asyncio.to_thread(self._start, texts, prompt_name)
        return self._finish(await asyncio.wrap_future(call.future))

    def count_tokens(self, texts: Sequence[str], *, prompt_name: str | None = None) -> list[int]:
        """How many tokens each text has, with its prompt: more than max_tokens where embed would cut it."""
        _check_texts(texts)
        prompt = self._prompt(prompt_name)
        return self._loaded.tokenizer.count([prompt + text for text in texts])

    def close(self) -> None:
        """End open calls with EngineClosedError and stop the thread, as when nobody has the embedder any more."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, texts: Sequence[str], prompt_name: str | None) -> Call:
        _check_texts(texts)
        prompt = self._prompt(prompt_name)
        token_ids, num_truncated = self._loaded.tokenizer.tokenize([prompt + text for text in texts])
        if num_truncated and self._warning.acquire(blocking=False):
            message = f"{num_truncated} of {len(texts)} texts are cut to the {self.max_tokens} tokens of the model"
            warnings.warn(f"{message}; later ones are without a warning", stacklevel=3)
        call = Call(token_ids, self._loaded.dimensions)
        self._worker.add(call)
        return call

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


def _check_texts(texts: Sequence[str]) -> None:
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise RequestError(f"texts must be a list of texts, not {type(texts).__name__}")
    if not texts:
        raise RequestError("texts=[] must hold at least one text")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise RequestError(f"texts[{index}]={text!r:.60} must be a text, not {type(text).__name__}")
        if not text.isascii():
            _check_encodable(index, text)


def _check_encodable(index: int, text: str) -> None:
    """A lone surrogate is no character, and no tokenizer takes it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"texts[{index}] holds a lone surrogate at {error.start}") from None
