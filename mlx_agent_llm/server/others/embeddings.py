"""The route of embeddings."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mlx_agent_llm.embedder import Embedder
from mlx_agent_llm.server.api_error import APIError, invalid
from mlx_agent_llm.server.body import Fields, check_count, read_fields
from mlx_agent_llm.server.others.text_models import text_model
from mlx_agent_llm.server.service import service_of


class EmbeddingRequest(Fields):
    """OpenAI's parameters; prompt_name is one of the model's prompts, "query" and "document" among them."""

    model: str
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    prompt_name: str | None = None
    user: str | None = None

    def texts(self) -> list[str]:
        """The texts to embed; token ids are those of another tokenizer, as clients of OpenAI's send them."""
        texts = [self.input] if isinstance(self.input, str) else list(self.input)
        if any(not isinstance(text, str) for text in texts):
            raise invalid(
                "input holds token ids, which are not this model's: send texts "
                "(OpenAIEmbeddings(check_embedding_ctx_length=False) does)",
                "input",
                "invalid_value",
            )
        return [text for text in texts if isinstance(text, str)]


async def embeddings(request: Request) -> Response:
    """A vector for each text; a text that the model would not read whole is refused."""
    service = service_of(request)
    fields = await read_fields(request, EmbeddingRequest, service.settings)
    embedder = text_model(service, service.embedder, fields.model, verb="embed", kinds="embedding models")
    texts = fields.texts()
    check_count("input", len(texts), service.settings.max_prompts)
    if fields.dimensions not in (None, embedder.dimensions):
        raise invalid(f"dimensions={fields.dimensions} must be the model's, {embedder.dimensions}", "dimensions")
    tokens = await asyncio.to_thread(embedder.tokenize, texts, prompt_name=fields.prompt_name)
    if tokens.truncated:
        raise await asyncio.to_thread(_too_long, embedder, texts, fields.prompt_name)
    vectors = await embedder.aembed_tokens(tokens)
    data = [_entry(index, vector, fields.encoding_format) for index, vector in enumerate(vectors)]
    num_tokens = sum(map(len, tokens.token_ids))
    usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    return JSONResponse({"object": "list", "model": embedder.model_name, "data": data, "usage": usage})


def _too_long(embedder: Embedder, texts: Sequence[str], prompt_name: str | None) -> APIError:
    """The first text that would be cut; how long it is takes reading it again."""
    counts = embedder.count_tokens(texts, prompt_name=prompt_name)
    index, count = next((index, count) for index, count in enumerate(counts) if count > embedder.max_tokens)
    message = f"input[{index}] of {count} tokens must be at most {embedder.max_tokens}"
    return invalid(message, "input", "input_too_long")


def _entry(index: int, vector: Any, encoding_format: str) -> dict[str, Any]:
    values = vector.astype(np.float32)
    embedding = base64.b64encode(values.tobytes()).decode() if encoding_format == "base64" else values.tolist()
    return {"object": "embedding", "index": index, "embedding": embedding}
