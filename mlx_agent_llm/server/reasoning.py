"""How much a model is asked to think, from what the APIs call effort."""

from __future__ import annotations

from mlx_agent_llm.server.api_error import invalid

_SWITCHED_OFF = frozenset({"none", "minimal"})
_LEVELS = frozenset({"low", "medium", "high"})


def thinking_of(effort: str | None, param: str) -> bool | str | None:
    """The engine's enable_thinking: its levels, or False for the least; None leaves the model as it is."""
    if effort is None or effort in _LEVELS:
        return effort
    if effort in _SWITCHED_OFF:
        return False
    raise invalid(f"{param}={effort!r} must be 'none', 'minimal', 'low', 'medium' or 'high'", param, "invalid_value")
