"""How much a model is asked to think, from what the APIs call effort."""

from __future__ import annotations

from mlx_agent_llm.server.api_error import invalid

_SWITCHED_OFF = frozenset({"none", "minimal"})
_LEVELS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}  # templates know three


def thinking_of(effort: str | None, param: str) -> bool | str | None:
    """The engine's enable_thinking: its levels, or False for the least; None leaves the model as it is."""
    if effort is None:
        return None
    if effort in _SWITCHED_OFF:
        return False
    if effort not in _LEVELS:
        known = ", ".join(map(repr, [*sorted(_SWITCHED_OFF), *_LEVELS]))
        raise invalid(f"{param}={effort!r} must be one of {known}", param, "invalid_value")
    return _LEVELS[effort]
