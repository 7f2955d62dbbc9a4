"""Whether calls are among those that a BFCL case accepts; rules as its paper and documentation tell them.

A case lists calls, and for each argument the values that are right; "" among them: it may be left out. Texts are alike
whatever their case, spaces and some punctuation; the order of calls does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlx_agent_llm.evaluate.case import Call

Arguments = Mapping[str, Sequence[Any]]
_LEFT_OUT = ""
_PUNCTUATION = re.compile(r"[ ,./\-_*^]")


def are_accepted(calls: Sequence[Call], answers: Sequence[tuple[str, Arguments]]) -> bool:
    """Whether each call is one of the answers, and each answer was given once."""
    left = list(answers)
    for call in calls:
        found = next((one for one in left if call.name == one[0] and _fit(call.arguments, one[1])), None)
        if found is None:
            return False
        left.remove(found)
    return not left


def _fit(arguments: Mapping[str, Any], accepted: Mapping[str, Any]) -> bool:
    given = all(
        name in accepted and any(_is_alike(value, one) for one in _choices(accepted[name]))
        for name, value in arguments.items()
    )
    return given and all(_LEFT_OUT in _choices(values) for name, values in accepted.items() if name not in arguments)


def _choices(values: Any) -> Sequence[Any]:
    """Objects within objects name the one value that is right."""
    return values if isinstance(values, list) else [values]


def _is_alike(value: Any, accepted: Any) -> bool:
    """Objects in an answer name, for each of their members, the values that are right."""
    if isinstance(accepted, Mapping):
        return isinstance(value, Mapping) and _fit(value, accepted)
    if isinstance(accepted, list):
        if not isinstance(value, list) or len(value) != len(accepted):
            return False
        return all(_is_alike(*pair) for pair in zip(value, accepted, strict=True))
    if isinstance(accepted, str):
        return isinstance(value, str) and _plain(value) == _plain(accepted)
    return isinstance(value, bool) == isinstance(accepted, bool) and bool(value == accepted)


def _plain(text: str) -> str:
    return _PUNCTUATION.sub("", text).lower().replace("'", '"')
