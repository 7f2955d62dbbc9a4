import ctypes
import sys
from typing import Any

import pytest

from mlx_agent_llm.process import thermal
from mlx_agent_llm.process.thermal import thermal_state


class Library:
    """The three functions of macOS's notifications."""

    def __init__(self, level: int, failing: str | None = None) -> None:
        self.level, self.failing = level, failing
        self.is_open = False

    def notify_register_check(self, name: bytes, token: Any) -> int:
        assert name == b"com.apple.system.thermalpressurelevel"
        token._obj.value, self.is_open = 7, True
        return int(self.failing == "register")

    def notify_get_state(self, token: ctypes.c_int, level: Any) -> int:
        assert token.value == 7
        level._obj.value = self.level
        return int(self.failing == "state")

    def notify_cancel(self, token: ctypes.c_int) -> None:
        self.is_open = False


@pytest.mark.parametrize(
    ("library", "state"),
    [
        (Library(0), "nominal"),
        (Library(2), "heavy"),
        (Library(17), None),
        (Library(1, "register"), None),
        (Library(1, "state"), None),
    ],
)
def test_a_mac_says_how_hot_it_is(library: Library, state: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(thermal.ctypes, "CDLL", lambda name: library)
    assert thermal_state() == state
    assert library.is_open == (library.failing == "register")


def test_elsewhere_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert thermal_state() is None
