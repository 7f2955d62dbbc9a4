import mlx.core as mx
import pytest


@pytest.fixture
def on_the_cpu() -> None:
    mx.set_default_device(mx.Device(mx.cpu))
