"""System prompts that are computed before the first request, and stay: who begins with one finds it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mlx_agent_llm.engine import Engine
from mlx_agent_llm.server.body import Fields


class WarmPrompt(Fields):
    """A system prompt, and the tools that its requests come with: a template shows both in one prefix."""

    system: str
    tools: list[dict[str, Any]] | None = None


_PROMPTS = TypeAdapter(list[WarmPrompt])


def read_warm_prompts(path: Path) -> list[WarmPrompt]:
    """The prompts of a file, a JSON array of WarmPrompts; a ValueError says what is wrong with it."""
    try:
        return _PROMPTS.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = "".join(f"[{key!r}]" for key in first["loc"])
        raise ValueError(f"warm={path}: {place or 'the file'}: {first['msg']}") from None


def load_warm(source: str, prompts: Sequence[WarmPrompt]) -> Engine:
    """The engine of a source, which has computed and pinned the prompts; closed again where one does not fit."""
    engine = Engine.load(source)
    try:
        for prompt in prompts:
            turns = [{"role": "system", "content": prompt.system}, {"role": "user", "content": "Hello"}]
            engine.warm([turns], tools=prompt.tools)
    except BaseException:
        engine.close()
        raise
    return engine
