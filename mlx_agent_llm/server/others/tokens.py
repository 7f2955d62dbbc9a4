"""The routes between text and token ids."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mlx_agent_llm.engine.chat_options import ReplyOptions
from mlx_agent_llm.server.api_error import invalid
from mlx_agent_llm.server.body import Fields, read_fields
from mlx_agent_llm.server.chat_completions.legacy import tools_of
from mlx_agent_llm.server.chat_completions.messages import read_history
from mlx_agent_llm.server.replies import ChatCall, prompt_token_ids
from mlx_agent_llm.server.service import borrow_engine, service_of


class TokenizeRequest(Fields):
    """A text, or the messages of a chat, which become its whole prompt."""

    model: str
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    add_special_tokens: bool = True


class DetokenizeRequest(Fields):
    """Token ids of the model."""

    model: str
    tokens: list[int]


async def tokenize(request: Request) -> Response:
    """The token ids of a text or of a chat's prompt."""
    fields = await read_fields(request, TokenizeRequest, service_of(request).settings)
    _, engine = await borrow_engine(request, fields.model)
    if (fields.prompt is None) == (fields.messages is None):
        raise invalid("exactly one of prompt and messages must be given", "prompt")
    if fields.messages is not None:
        options = ReplyOptions(tools=tools_of(fields.tools, None))
        call = ChatCall(read_history(fields.messages), options, {}, needs_results=False)
        call.check(service_of(request).settings)
        token_ids = await asyncio.to_thread(prompt_token_ids, engine, call)
    else:
        assert fields.prompt is not None
        token_ids = engine.tokenizer.encode(fields.prompt, add_special_tokens=fields.add_special_tokens)
    return JSONResponse({"tokens": token_ids, "count": len(token_ids), "max_model_len": engine.max_model_len})


async def detokenize(request: Request) -> Response:
    """The text of token ids; special tokens have none."""
    fields = await read_fields(request, DetokenizeRequest, service_of(request).settings)
    _, engine = await borrow_engine(request, fields.model)
    num_tokens = len(engine.tokenizer.token_bytes)
    for index, token_id in enumerate(fields.tokens):
        if not 0 <= token_id < num_tokens:
            raise invalid(f"tokens[{index}]={token_id} must be between 0 and {num_tokens - 1}", "tokens")
    return JSONResponse({"prompt": engine.tokenizer.decode(fields.tokens)})
