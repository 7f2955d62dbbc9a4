"""The cases on an engine, each with the grammar and without it, from the same prompt."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mlx_agent_llm.chat import PreparedChat, parse_reply, prepare_chat
from mlx_agent_llm.constrain.violation import violation
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.errors import EngineClosedError, MLXAgentError
from mlx_agent_llm.evaluate.case import Call, Case, Reply, Verdict
from mlx_agent_llm.request import SamplingParams
from mlx_agent_llm.request.constraints import JSONSchema

_FENCE = re.compile(r"```(?:json)?\n(.*?)```", re.S)  # what models write around JSON is no mistake of theirs


class Outcome(NamedTuple):
    """A case in one of the two ways; error: why it could not be run, which counts as not valid."""

    case: Case
    has_grammar: bool
    verdict: Verdict
    error: str | None = None


async def run_cases(
    engine: Engine, cases: Sequence[Case], max_tokens: int, concurrency: int, done: Callable[[], None]
) -> list[Outcome]:
    """Both outcomes of each case, greedy; `done` is called after each."""
    slots, params = asyncio.Semaphore(concurrency), SamplingParams(max_tokens, temperature=0.0)

    async def one(case: Case, has_grammar: bool) -> Outcome:
        async with slots:
            outcome = await _run(engine, case, params, has_grammar)
        done()
        return outcome

    return await asyncio.gather(*(one(case, has_grammar) for case in cases for has_grammar in (False, True)))


async def _run(engine: Engine, case: Case, params: SamplingParams, has_grammar: bool) -> Outcome:
    ask = _ask_with_grammar if has_grammar else _ask_without
    try:
        return Outcome(case, has_grammar, case.judge(await ask(engine, case, params)))
    except EngineClosedError:
        raise
    except MLXAgentError as error:
        return Outcome(case, has_grammar, case.judge(Reply()), f"{type(error).__name__}: {error}")


async def _ask_with_grammar(engine: Engine, case: Case, params: SamplingParams) -> Reply:
    choice = "required" if case.tools else None
    reply = await engine.achat(
        case.messages, tools=case.tools or None, tool_choice=choice, response_format=case.schema, params=params
    )
    calls = [Call(call.name, call.arguments) for call in reply.tool_calls]
    return Reply(calls, len(reply.invalid_tool_calls), reply.parsed)


async def _ask_without(engine: Engine, case: Case, params: SamplingParams) -> Reply:
    prepared = await asyncio.to_thread(_prepare, engine, case)
    [output] = await engine.agenerate([prepared.prompt_token_ids], params)
    text = _text(engine, prepared, output.token_ids)
    if case.schema is not None:
        return Reply(value=_value(text, case.schema))
    parsed = parse_reply(engine.tool_format.tool_format, text, case.tools)
    return Reply([Call(call.name, call.arguments) for call in parsed.tool_calls], len(parsed.invalid_tool_calls))


def _prepare(engine: Engine, case: Case) -> PreparedChat:
    return prepare_chat(
        engine.tokenizer,
        case.messages,
        tools=case.tools or None,
        response_format=case.schema,
        tool_format=engine.config.tool_format,
    )


def _text(engine: Engine, prepared: PreparedChat, token_ids: Sequence[int]) -> str:
    """With the control tokens that calls are written in, which a text of generate leaves out."""
    token_bytes, shown = engine.tokenizer.token_bytes, prepared.shown_tokens
    return b"".join(shown.get(token) or token_bytes[token] for token in token_ids).decode(errors="replace")


def _value(text: str, schema: Any) -> Any:
    fenced = _FENCE.search(text)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return None
    constraint = JSONSchema(schema)
    return value if violation(constraint.json_schema, value, constraint.documents) is None else None
