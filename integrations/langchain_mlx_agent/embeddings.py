"""MLXAgentEmbeddings: LangChain's embeddings over one Embedder."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Self

from langchain_core.embeddings import Embeddings
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator
from tqdm import tqdm

from langchain_mlx_agent.errors import langchain_errors
from mlx_agent_llm import Embedder
from mlx_agent_llm.closing import Closing
from mlx_agent_llm.embedder.on_first_use import OnFirstUse

_SHOWN_TEXTS = 256  # between two steps of the bar


class MLXAgentEmbeddings(Closing, BaseModel, Embeddings):
    """An embedding model in this process; queries and documents get the prompts that the model has for them.

    Setup:
        `pip install "mlx-agent-llm[langchain]"`

    Key init args:
        model: "demo-embedder", a directory in sentence-transformers' layout or a hub id; loaded on first use.
        dimensions: vectors are cut to so many values, for models that were trained for it.
        show_progress: whether embed_documents shows a bar on standard error.
        embedder: a running Embedder instead; it stays its owner's to close.

    Instantiate:
        ```python
        embeddings = MLXAgentEmbeddings(model="demo-embedder")
        ```

    Embed:
        ```python
        embeddings.embed_documents(["The ferry leaves at nine.", "The library is closed."])
        embeddings.embed_query("When does the ferry leave?")
        ```

    Async:
        ```python
        await embeddings.aembed_query("When does the ferry leave?")  # calls at the same time become one batch
        ```
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    model: str = "demo-embedder"
    """What Embedder.load takes; with an embedder, that embedder's model."""
    dimensions: int | None = Field(default=None, ge=1)
    """The number of values of a vector; None keeps all."""
    show_progress: bool = False
    """Whether embed_documents shows a bar on standard error."""
    embedder: Embedder | None = Field(default=None, exclude=True, repr=False)
    """A running embedder."""

    _own: OnFirstUse[Embedder] = PrivateAttr(default_factory=OnFirstUse)

    @model_validator(mode="after")
    def _check_parameters(self) -> Self:
        if self.embedder is not None and {"model", "dimensions"} & self.model_fields_set:
            raise ValueError("model and dimensions are the embedder's: neither can be combined with embedder")
        return self

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of documents; of no documents none."""
        if not self.show_progress:
            return self._embed(texts, "document") if texts else []
        with tqdm(desc=f"embedding by {self.model}", total=len(texts), unit="text") as bar:
            vectors = list[list[float]]()
            for start in range(0, len(texts), _SHOWN_TEXTS):
                vectors += self._embed(texts[start : start + _SHOWN_TEXTS], "document")
                bar.update(len(vectors) - bar.n)
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        return self._embed([text], "query")[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Like embed_documents."""
        return await self._aembed(texts, "document") if texts else []

    async def aembed_query(self, text: str) -> list[float]:
        """Like embed_query."""
        return (await self._aembed([text], "query"))[0]

    def close(self) -> None:
        """Close the embedder that was loaded here; the next call loads again. Leaves `embedder` alone."""
        self._own.close()

    def _embed(self, texts: list[str], prompt_name: str) -> list[list[float]]:
        with langchain_errors():
            vectors: list[list[float]] = self._open().embed(texts, prompt_name=prompt_name).tolist()
        return vectors

    async def _aembed(self, texts: list[str], prompt_name: str) -> list[list[float]]:
        with langchain_errors():
            embedder = await asyncio.to_thread(self._open)  # which may load it
            vectors: list[list[float]] = (await embedder.aembed(texts, prompt_name=prompt_name)).tolist()
        return vectors

    def _open(self) -> Embedder:
        if self.embedder is not None:
            return self.embedder
        return self._own.open(partial(Embedder.load, self.model, dimensions=self.dimensions))
