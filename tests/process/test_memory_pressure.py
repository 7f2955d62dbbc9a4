"""What macOS and Linux report of memory, and how often they are asked."""

import ctypes
import sys
from pathlib import Path

import pytest

from mlx_agent_llm.process import memory_pressure
from mlx_agent_llm.process.memory_pressure import MemoryPressure, is_high


class FakeLibrary:
    """macOS's C library, with a level of pressure, or without one."""

    def __init__(self, level: int | None) -> None:
        self._level = level

    def sysctlbyname(self, name: bytes, level: object, size: object, new: None, new_size: ctypes.c_size_t) -> int:
        assert name == b"kern.memorystatus_vm_pressure_level" and new is None and new_size.value == 0
        assert size._obj.value == 4  # type: ignore[attr-defined]
        if self._level is None:
            return -1
        level._obj.value = self._level  # type: ignore[attr-defined]
        return 0


@pytest.mark.parametrize(("level", "expected"), [(1, False), (2, True), (4, True), (None, False)])
def test_on_macos_a_warning_is_pressure(level: int | None, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: FakeLibrary(level))
    assert is_high() is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MemTotal: 16000 kB\nMemFree: 10 kB\nMemAvailable: 1000 kB\n", False),
        ("MemTotal: 16000 kB\nMemFree: 10 kB\nMemAvailable: 999 kB\n", True),
        ("MemTotal: 16000 kB\nMemFree: 10 kB\n", False),
        (None, False),
    ],
)
def test_on_linux_less_than_a_sixteenth_available_is_pressure(
    text: str | None, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        (tmp_path / "meminfo").write_text(text)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(memory_pressure, "_MEMINFO", tmp_path / "meminfo")
    assert is_high() is expected


@pytest.mark.skipif(sys.platform != "linux", reason="the file is Linux's")
def test_linux_s_own_report_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_pressure, "_AVAILABLE_PART", 10**9)
    assert not is_high()
    monkeypatch.setattr(memory_pressure, "_AVAILABLE_PART", 1)
    assert is_high()


def test_elsewhere_there_is_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert not is_high()


def test_the_system_is_asked_once_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter((100.0, 100.5, 100.99, 101.0, 101.5))
    monkeypatch.setattr(memory_pressure.time, "monotonic", lambda: next(times))
    monkeypatch.setattr(memory_pressure, "is_high", lambda: True)
    pressure = MemoryPressure()
    assert [pressure.has_come() for _ in range(5)] == [True, False, False, True, False]
