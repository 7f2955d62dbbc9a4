"""MLX's default device is changed for as long as somebody builds on another one, and for nobody else's work.

Another device is here a second CPU that MLX lets one name: nothing could be built on it.
"""

import threading
import time
from collections.abc import Iterator

import mlx.core as mx
import pytest

from mlx_agent_llm.process.default_device import DefaultDevice

CPU, OTHER, THIRD = (mx.Device(mx.cpu, index) for index in range(3))


@pytest.fixture(autouse=True)
def device_of_before() -> Iterator[None]:
    before = mx.default_device()
    mx.set_default_device(CPU)
    yield
    mx.set_default_device(before)


def test_the_default_is_another_one_inside_and_as_it_was_afterwards() -> None:
    default = DefaultDevice()
    with default.set_to(OTHER):
        assert mx.default_device() == OTHER
        assert default.own == CPU
    assert mx.default_device() == default.own == CPU
    with pytest.raises(RuntimeError, match="a fault"), default.set_to(OTHER):
        raise RuntimeError("a fault")
    assert mx.default_device() == CPU


@pytest.mark.parametrize("inside", [CPU, OTHER])
def test_what_somebody_sets_meanwhile_stays(inside: mx.Device) -> None:
    default = DefaultDevice()
    with default.set_to(inside):
        mx.set_default_device(THIRD)
    assert mx.default_device() == default.own == THIRD


def test_who_needs_the_same_device_does_not_wait() -> None:
    default, met = DefaultDevice(), threading.Barrier(3)
    seen: list[mx.Device] = []

    def build() -> None:
        with default.set_to(OTHER):
            met.wait(timeout=20)
            seen.append(mx.default_device())

    run_all([threading.Thread(target=build) for _ in range(3)])
    assert seen == [OTHER] * 3
    assert mx.default_device() == CPU


def test_who_needs_another_device_waits_and_is_not_overtaken() -> None:
    default, order = DefaultDevice(), list[str]()

    def build(name: str, device: mx.Device) -> None:
        with default.set_to(device):
            assert mx.default_device() == device
            order.append(name)

    threads = [
        threading.Thread(target=build, args=("other", OTHER)),
        threading.Thread(target=build, args=("same", CPU)),
    ]
    with default.set_to(CPU):
        for thread in threads:
            thread.start()
            time.sleep(0.05)
        assert order == [] and mx.default_device() == CPU
    for thread in threads:
        thread.join(timeout=20)
    assert order == ["other", "same"]
    assert mx.default_device() == CPU


def test_many_threads_on_two_devices_each_build_on_their_own() -> None:
    default, wrong = DefaultDevice(), list[mx.Device]()

    def build(device: mx.Device) -> None:
        for _ in range(200):
            with default.set_to(device):
                if mx.default_device() != device:
                    wrong.append(device)

    run_all([threading.Thread(target=build, args=(device,)) for device in (CPU, OTHER) * 2])
    assert wrong == []
    assert mx.default_device() == CPU


@pytest.mark.skipif(mx.is_available(mx.Device(mx.gpu)), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused_and_keeps_nobody_waiting() -> None:
    default = DefaultDevice()
    with pytest.raises(ValueError, match="gpu"), default.set_to(mx.Device(mx.gpu)):
        pass
    with default.set_to(OTHER):
        assert mx.default_device() == OTHER
    assert mx.default_device() == CPU


def run_all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
        assert not thread.is_alive()
