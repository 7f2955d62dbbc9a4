"""The kernels around the attention on the CPU, as test_metal_on_host.py runs those of the attention.

Products of rows are CUDA's alone: on Metal, MLX multiplies.
"""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import pytest

from mlx_agent_kernels import heads, projections, writes
from mlx_agent_kernels.loader import load_kernel
from tests.kernels.test_layer_kernels import HEADS, PRODUCTS
from tests.kernels.test_writes import WRITES
from tests.support.metal_on_host.host import HostKernels, missing_tools

pytestmark = pytest.mark.skipif(missing_tools() is not None, reason=str(missing_tools()))


@pytest.fixture(scope="module", params=["metal", "cuda"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostKernels]:
    """The package as on a GPU of that dialect, its launches on the host, every kernel of the cases compiled."""
    kernels = HostKernels(request.param, tmp_path_factory.mktemp(request.param))
    with pytest.MonkeyPatch.context() as patch:
        for module in (heads, projections, writes):
            patch.setattr(module, "backend", lambda: request.param)
        patch.setattr(mx.fast, f"{request.param}_kernel", kernels.make)
        load_kernel.cache_clear()
        for case in (*HEADS.values(), *PRODUCTS.values(), *WRITES.values()):
            with pytest.MonkeyPatch.context() as unchecked:
                unchecked.setattr("tests.kernels.test_layer_kernels.assert_close", lambda *arrays: None)
                unchecked.setattr("numpy.testing.assert_array_equal", lambda *arrays: None)
                case.check()
        bodies = {"rotate_heads", "write_pools"} | ({"project_rows"} if request.param == "cuda" else set())
        assert {kernel.name.rpartition("_")[0] for kernel in kernels.texts.values()} == bodies
        kernels.build()
        yield kernels
    load_kernel.cache_clear()


@pytest.mark.parametrize("name", HEADS)
def test_heads_on_the_host_are_turned_and_written(host: HostKernels, name: str) -> None:
    HEADS[name].check()


@pytest.mark.parametrize("name", WRITES)
def test_contents_on_the_host_are_written(host: HostKernels, name: str) -> None:
    WRITES[name].check()


@pytest.mark.parametrize("host", ["cuda"], indirect=True)
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_projection_on_the_host_is_the_product(host: HostKernels, name: str) -> None:
    PRODUCTS[name].check()
