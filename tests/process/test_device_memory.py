"""What the engine takes of a memory by default, and what it leaves the system."""

import mlx.core as mx
import pytest

from mlx_agent_llm.process import device_memory
from mlx_agent_llm.process.device_memory import GIB, device_bytes, physical_bytes, usable_bytes

CPU, GPU = mx.Device(mx.cpu), mx.Device(mx.gpu)


def usable_gib(monkeypatch: pytest.MonkeyPatch, memory: float, info: dict[str, int]) -> float:
    monkeypatch.setattr(device_memory, "physical_bytes", lambda: int(memory * GIB))
    monkeypatch.setattr(mx, "device_info", lambda device: info)
    return usable_bytes(GPU) / GIB


@pytest.mark.parametrize(
    ("memory", "working_set", "expected"),
    [(8, 5, 5), (8, 7.5, 6), (16, 11, 11), (16, 15.5, 12), (128, 96, 96), (128, 120, 102.4)],
)
def test_of_a_shared_memory_the_system_keeps_a_fifth_or_four_gib_but_no_more_than_a_quarter(
    memory: float, working_set: float, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = {"max_recommended_working_set_size": int(working_set * GIB)}
    assert usable_gib(monkeypatch, memory, info) == pytest.approx(expected)


def test_a_memory_that_is_the_gpu_s_alone_is_usable_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_gib(monkeypatch, 8, {"total_memory": 80 * GIB}) == 80


def test_a_cpu_has_the_memory_of_the_machine() -> None:
    assert device_bytes(CPU) == usable_bytes(CPU) == physical_bytes() > GIB // 4
