"""The kernels' Metal and CUDA texts, compiled by clang++ against a shim and run on the CPU beside the reference.

What is compiled is what MLX hands to Metal's compiler, and what is launched is what the package launches on a GPU.
Every buffer is an allocation of its own under the address sanitizer; every launch runs with its lanes in two orders.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_agent_kernels import (
    SharedLevel,
    attention,
    chunk_attention,
    gpu,
    paged_attention,
    reference,
    shared_prefix_attention,
)
from mlx_agent_kernels.loader import load_kernel
from tests.support.metal_on_host.host import HostFault, HostKernels, missing_tools
from tests.support.metal_on_host.wrapper import Description, cuda_text, metal_text


def is_body(name: str) -> bool:
    return name.endswith(".h") and not name.startswith(("dialect_", "indices_", "matrix_", "packed_"))


pytestmark = pytest.mark.skipif(missing_tools() is not None, reason=str(missing_tools()))

TOLERANCE = {mx.float32: 1e-3, mx.float16: 1e-2, mx.bfloat16: 1e-2}
MLX_UTILITIES = Path(mx.__file__).parent / "include" / "mlx" / "backend" / "metal" / "kernels"
SOURCES = [file.name for file in (files("mlx_agent_kernels") / "src").iterdir()]
LAYER_BODIES = {"project_rows", "rotate_heads", "write_pools"}  # which test_layer_kernels_on_host.py runs
CUDA_BODIES = {"shared_attention"}  # on Metal, MLX multiplies
BODIES = {name.removesuffix(".h") for name in SOURCES if is_body(name)} - LAYER_BODIES
RAGGED = (1, 15, 16, 17, 300)


@dataclass(frozen=True)
class Case:
    """Rows of random tokens in scattered blocks."""

    lengths: tuple[int, ...] = RAGGED
    dtype: mx.Dtype = mx.float32
    dim: int = 64
    kv_heads: int = 2
    group: int = 2
    block_size: int = 16
    window: int | None = None
    softcap: float | None = None
    sinks: mx.Dtype | None = None
    prefix_blocks: tuple[int, ...] = ()  # of groups of rows, each of them a few of the rows, one after the other
    num_levels: int = 1


CASES = {
    "in one split": Case((1, 15, 16, 17, 33)),
    "float16, in one split": Case((15, 40), mx.float16, dim=128, kv_heads=1),
    "of float32": Case(),
    "of float16": Case(dtype=mx.float16),
    "of bfloat16": Case(dtype=mx.bfloat16),
    "80 wide": Case(dtype=mx.bfloat16, dim=80, group=3),
    "96 wide": Case(dtype=mx.float16, dim=96, group=1),
    "112 wide": Case(dim=112, kv_heads=3, group=1),
    "128 wide, window, sinks": Case(dtype=mx.float16, dim=128, group=4, window=40, sinks=mx.float32),
    "192 wide": Case((1, 300), mx.float16, dim=192, group=5, kv_heads=1),
    "256 wide, 16 heads a KV head": Case((17, 260), mx.bfloat16, dim=256, group=16, kv_heads=1),
    "7 heads a KV head": Case((1, 17, 129), group=7, softcap=3.0),
    "8 heads a KV head, softcap, sinks": Case(dtype=mx.bfloat16, group=8, kv_heads=1, softcap=5.0, sinks=mx.bfloat16),
    "window of one token": Case((1, 2, 16, 17, 270), window=1),
    "window over several splits": Case((300, 700), mx.float16, window=290, sinks=mx.float16, kv_heads=1),
    "blocks of 8": Case((1, 7, 8, 9, 300), mx.float16, block_size=8),
    "blocks of 64": Case((1, 63, 64, 65, 300), block_size=64),
    "many rows": Case((3, 40, 1, 16, 5, 31, 32, 33, 100), kv_heads=1, group=4),
    "thousands of tokens": Case((4097, 5), mx.float16, kv_heads=1),
}
PREFIX_CASES = {
    "of float32": Case((1, 15, 17), prefix_blocks=(3,)),
    "of float16, own parts in splits": Case((1, 300), mx.float16, dim=128, group=4, prefix_blocks=(20,)),
    "of bfloat16": Case((5, 16), mx.bfloat16, dim=80, kv_heads=1, group=3, prefix_blocks=(1,)),
    "of bfloat16, 64 wide": Case((5, 16), mx.bfloat16, group=3, prefix_blocks=(2,)),
    "an end within a tile": Case((1, 9), mx.float16, block_size=8, prefix_blocks=(3,)),
    "two groups": Case((1, 15, 17, 2, 30), prefix_blocks=(3, 1)),
    "more queries than a threadgroup has": Case((1, 3) * 5, mx.float16, group=16, kv_heads=1, prefix_blocks=(2,)),
    "two levels of groups": Case((1, 15, 17, 2, 30), mx.float16, prefix_blocks=(2, 5), num_levels=2),
    "windows that end in the prefix and after it": Case(
        (1, 15, 40, 17), window=33, sinks=mx.float32, prefix_blocks=(3,)
    ),
    "windows of float16 over two levels, softcap": Case(
        (1, 15, 17, 2, 70), mx.float16, window=50, softcap=4.0, sinks=mx.float16, prefix_blocks=(2, 5), num_levels=2
    ),
    "a window behind which a whole level is, softcap": Case(
        (9, 15, 11), mx.bfloat16, dim=128, kv_heads=1, group=3, window=8, softcap=4.0, prefix_blocks=(4,)
    ),
}
CHUNK_CASES = {
    "of float32": Case((33,)),
    "of bfloat16, 112 wide": Case((20,), mx.bfloat16, dim=112, kv_heads=3, block_size=8),
    "through a window, with sinks": Case((45,), window=29, sinks=mx.float32),
}


class Arrays:
    """A case's arrays; the slots that no row may read are NaN, and zero in the reference's."""

    def __init__(self, case: Case):
        self.case = case
        self.rng = np.random.default_rng(0)
        widths = [-(-length // case.block_size) for length in case.lengths]
        num_prefix_blocks = sum(case.prefix_blocks) * case.num_levels
        ids = self.rng.permutation(sum(widths) + num_prefix_blocks + 1).tolist()
        self.nobodys = nobodys = ids.pop()
        self.shared = [[[ids.pop() for _ in range(n)] for n in case.prefix_blocks] for _ in range(case.num_levels)]
        tables = [[ids.pop() for _ in range(width)] for width in widths]
        shape = ((sum(widths) + num_prefix_blocks + 1) * case.block_size, case.kv_heads, case.dim)
        self.seen = np.zeros((shape[0], 1, 1), dtype=bool)
        for row, (table, length) in enumerate(zip(tables, case.lengths, strict=True)):
            whole = [*self._prefix(row), *table]
            length += (len(whole) - len(table)) * case.block_size
            self._see(whole, 0 if case.window is None else max(length - case.window, 0), length)
        self.tables = mx.array([table + [nobodys] * (max(widths) - len(table)) for table in tables], dtype=mx.int32)
        self.lengths = mx.array(case.lengths, dtype=mx.int32)
        heads = case.kv_heads * case.group
        self.queries = self._random(len(case.lengths), heads, case.dim).astype(case.dtype)
        self.pools = [self._random(*shape).astype(case.dtype) for _ in range(2)]
        # A sink as heavy as hundreds of tokens: one that is lost or counted twice is far outside of the tolerance.
        self.sinks = None if case.sinks is None else (self._random(heads) + 5).astype(case.sinks)
        self.options = {"scale": case.dim**-0.5, "block_size": case.block_size}
        self.more_options = {"window": case.window, "softcap": case.softcap, "sinks": self.sinks}

    def _see(self, table: list[int], begin: int, end: int) -> None:
        size = self.case.block_size
        for token in range(begin, end):
            self.seen[table[token // size] * size + token % size] = True

    def _prefix(self, row: int) -> list[int]:
        """The blocks that a row shares with others, level by level."""
        num_groups = len(self.case.prefix_blocks)
        is_grouped = num_groups == 1 or (num_groups > 1 and row < len(self.case.lengths) - 1)
        return [block for tables in self.shared if is_grouped for block in tables[row % num_groups]]

    def _random(self, *shape: int) -> mx.array:
        return mx.array(self.rng.normal(size=shape).astype(np.float32))

    def kernel_arrays(self) -> list[mx.array]:
        return [
            self.queries,
            *(mx.where(mx.array(self.seen), pool, math.nan).astype(pool.dtype) for pool in self.pools),
        ]

    def reference_arrays(self) -> list[mx.array]:
        seen = (mx.where(mx.array(self.seen), pool, 0).astype(mx.float32) for pool in self.pools)
        return [self.queries.astype(mx.float32), *seen]

    def run_paged(self) -> tuple[mx.array, mx.array]:
        rows = (*self.kernel_arrays(), self.tables, self.lengths)
        return paged_attention(*rows, **self.options, **self.more_options, return_lse=True)  # type: ignore[call-overload, no-any-return]

    @property
    def levels(self) -> list[SharedLevel[mx.array]]:
        """All rows in the one group, or all but the last in turns; with a group that is empty."""
        return [self._level(tables) for tables in self.shared]

    def _level(self, tables: list[list[int]]) -> SharedLevel[mx.array]:
        num_rows, num_groups, width = len(self.case.lengths), len(tables), max(map(len, tables))
        most = -(-num_rows // num_groups)
        grouped = range(num_rows if num_groups == 1 else num_rows - 1)
        members = [[row for row in grouped if row % num_groups == group] for group in range(num_groups)]
        return SharedLevel(
            mx.array([table + [self.nobodys] * (width - len(table)) for table in [*tables, []]], dtype=mx.int32),
            mx.array([len(table) * self.case.block_size for table in [*tables, []]], dtype=mx.int32),
            mx.array([rows + [0] * (most - len(rows)) for rows in [*members, []]], dtype=mx.int32),
            mx.array(
                [row % num_groups * most + row // num_groups if row in grouped else -1 for row in range(num_rows)]
            ),
        )

    def run_prefix(self) -> mx.array:
        rows = (*self.kernel_arrays(), self.levels, self.tables, self.lengths)
        return shared_prefix_attention(*rows, **self.options, **self.more_options)

    def run_chunk(self) -> mx.array:
        chunk = (*self.kernel_arrays(), self.tables[0], self.case.lengths[0])
        return chunk_attention(*chunk, **self.options, **self.more_options)


@pytest.fixture(scope="module", params=["metal", "cuda"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostKernels]:
    """The package as on a GPU of that dialect, its launches on the host, every kernel of the cases compiled."""
    kernels = HostKernels(request.param, tmp_path_factory.mktemp(request.param))
    with pytest.MonkeyPatch.context() as patch:
        for module in (attention, gpu):
            patch.setattr(module, "backend", lambda: request.param)
        patch.setattr(mx.fast, f"{request.param}_kernel", kernels.make)
        patch.setattr(gpu, "_MIN_SPLIT", {request.param: 128})  # short cases are to run in several splits
        load_kernel.cache_clear()
        for case in CASES.values():
            Arrays(case).run_paged()
        for case in PREFIX_CASES.values():
            Arrays(case).run_prefix()
        for case in CHUNK_CASES.values():
            Arrays(case).run_chunk()
        bodies = BODIES - (set() if request.param == "cuda" else CUDA_BODIES)
        assert {kernel.name.rpartition("_")[0] for kernel in kernels.texts.values()} == bodies, (
            "a body that no case runs"
        )
        kernels.build()
        yield kernels
    load_kernel.cache_clear()


def check_close(result: mx.array, expected: mx.array, dtype: mx.Dtype) -> None:
    error = mx.abs(result.astype(mx.float32) - expected).max() / mx.abs(expected).max()
    assert error.item() < TOLERANCE[dtype]  # NaN is not below


@pytest.mark.parametrize("name", CASES)
def test_paged_attention_on_the_host_is_the_reference(host: HostKernels, name: str) -> None:
    arrays = Arrays(CASES[name])
    out, lse = arrays.run_paged()
    rows = (*arrays.reference_arrays(), arrays.tables, arrays.lengths)
    expected, expected_lse = reference.paged_attention(*rows, **arrays.options, **arrays.more_options)
    assert out.dtype == arrays.case.dtype
    check_close(out, expected, out.dtype)
    check_close(lse, expected_lse, mx.float32)


@pytest.mark.parametrize("name", PREFIX_CASES)
def test_a_shared_prefix_on_the_host_is_the_reference(host: HostKernels, name: str) -> None:
    arrays = Arrays(PREFIX_CASES[name])
    rows = (*arrays.reference_arrays(), arrays.levels, arrays.tables, arrays.lengths)
    expected = reference.shared_prefix_attention(*rows, **arrays.options, **arrays.more_options)
    check_close(arrays.run_prefix(), expected, arrays.case.dtype)


@pytest.mark.parametrize("name", CHUNK_CASES)
def test_a_chunk_on_the_host_is_the_reference(host: HostKernels, name: str) -> None:
    arrays = Arrays(CHUNK_CASES[name])
    chunk = (*arrays.reference_arrays(), arrays.tables[0], arrays.case.lengths[0])
    expected = reference.chunk_attention(*chunk, **arrays.options, **arrays.more_options)
    check_close(arrays.run_chunk(), expected, arrays.case.dtype)


@pytest.mark.parametrize("option", ["HAS_SINKS", "HAS_WINDOW", "HAS_SOFTCAP"])
def test_every_option_runs_in_one_split_and_in_several(host: HostKernels, option: str) -> None:
    defines = [dict(re.findall(r"#define (\w+) (\S+)", text)) for text in host.texts]
    paged = [found for found in defines if "PARTIAL" in found]
    assert {found["PARTIAL"] for found in paged if found.get(option) == "1"} == {"0", "1"}


def test_no_text_says_a_name_of_mlx_or_a_keyword_of_metal(host: HostKernels) -> None:
    utilities = "".join(
        without_comments((MLX_UTILITIES / f"{name}.h").read_text())
        for name in ("bf16", "bf16_math", "complex", "defines", "logging", "utils")
    )
    known = set(re.findall(r"\w+", utilities))
    macros = set(re.findall(r"#define (\w+)", utilities))
    assert {"elem_to_loc", "METAL_FUNC", "instantiate_kernel"} <= known, "these are no longer MLX's utilities"
    for text in host.texts:
        code = without_comments(text)
        own = set(re.findall(r"#define (\w+)|^(?:__device__ )?inline [\w ]+?(\w+)\(|^struct (\w+)", code, re.MULTILINE))
        names = {name for found in own for name in found if name}
        assert names >= {"Eight", "load_eight", "larger", "BARRIER", "ELEMENT_TYPE"}
        assert not names & known
        assert not set(re.findall(r"\w+", code)) & macros
        assert not re.search(r"(?<!\[\[)\bkernel\b|\b(vertex|fragment)\b", code)


def without_comments(text: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)


def test_mlx_writes_the_metal_function_around_a_body() -> None:
    kernel = Description(
        "toy", ["few", "many", "one"], ["out"], "out[thread_index_in_simdgroup] = few_shape[0];", "// it\n"
    )
    inputs = [mx.zeros(7), mx.zeros((2, 4), dtype=mx.bfloat16), mx.array(1.0)]
    assert metal_text(kernel, inputs, [mx.float16]) == (
        "// it\n"
        "[[kernel]] void custom_kernel_toy_floatc_bfloat16_t_floats_float16_t(\n"
        "  const constant float* few [[buffer(0)]],\n"
        "  const constant int* few_shape [[buffer(1)]],\n"
        "  const device bfloat16_t* many [[buffer(2)]],\n"
        "  const constant float& one [[buffer(3)]],\n"
        "  device float16_t* out [[buffer(4)]],\n"
        "  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]]) {\n"
        "out[thread_index_in_simdgroup] = few_shape[0];\n"
        "}\n\n"
    )


def test_the_cuda_function_takes_shapes_by_value() -> None:
    kernel = Description("toy", ["few", "many"], ["out"], "out[threadIdx.x] = few_shape[0];", "// it")
    assert cuda_text(kernel, [mx.zeros(7), mx.zeros((2, 4), dtype=mx.bfloat16)], [mx.float16]) == (
        "// it\n"
        "__global__ void custom_kernel_toy(\n"
        "    const float* few,\n"
        "    const __grid_constant__ Shape few_shape,\n"
        "    const __nv_bfloat16* many,\n"
        "    __half* out) {\n"
        "out[threadIdx.x] = few_shape[0];\n"
        "}\n"
    )


# Kernels of one input of 64 floats and one output of 64, run by 64 lanes, and what becomes of them.
LANE = "const int lane = int(thread_position_in_threadgroup.x);\n"
SHARE = "threadgroup float shared[64];\nshared[lane] = data[lane];\n"
BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);\n"
FAULTS = {
    "out[lane] = data[lane + 1];": "heap-buffer-overflow",
    "out[lane - 1] = data[lane];": "heap-buffer-overflow",
    SHARE + BARRIER + "out[lane] = shared[lane + 1];": "out of bounds",
    SHARE + "if (lane < 63) " + BARRIER + "out[lane] = shared[lane];": "a barrier that 63 of 64 lanes reach",
    "out[lane] = lane % 32 == 7 ? 0.0f : simd_shuffle_xor(data[lane], 1);": "a SIMD operation that 31 of 32 lanes",
    "out[lane] = simd_shuffle_xor(data[lane], ushort(1 + lane % 32 / 31));": "shuffle by different distances",
    SHARE + "out[lane] = shared[63 - lane];": "depend on the order",
    "threadgroup float shared[8192 + 1];\nshared[lane] = 0.0f;\nout[lane] = shared[lane];": "32772 bytes",
    "out[lane] = float(1 << (32 + lane));": "shift exponent",
}
GOOD = {
    SHARE + BARRIER + "out[lane] = shared[63 - lane];": lambda data: data[::-1],
    "out[lane] = simd_shuffle_xor(data[lane], 1);": lambda data: data.reshape(32, 2)[:, ::-1].reshape(64),
    "threadgroup float shared[64];\nout[lane] = shared[lane];": lambda data: np.full(64, np.nan),
    "float own[2];\nout[lane] = own[lane % 2];": lambda data: np.full(64, np.nan),
}
REFUSED = {
    "const int thread = lane; out[lane] = data[thread];": "expected unqualified-id",
    "const float* lost = data; out[lane] = lost[lane];": "type 'device float const",
    "const constant float* changed = data; out[lane] = changed[lane];": "type 'device float const",
    "threadgroup float shared[64]; device float* changed = shared; out[lane] = changed[lane];": "address_space",
    "const half narrow = data[lane]; out[lane] = narrow;": "implicit conversion",
    "const bfloat narrow = data[lane]; out[lane] = narrow;": "implicit conversion",
    "float own; out[lane] = own;": "uninitialized",
    "out[lane] = data[lane] * 0.5;": "double",
    "out[lane] = metal::exp3(data[lane]);": "exp3",
    "if constexpr (true) out[lane] = data[lane];": "constexpr",
}


def launch_toy(toys: HostKernels, body: str, data: np.ndarray) -> np.ndarray:
    kernel = toys.make(name="toy", input_names=["data"], output_names=["out"], source=LANE + body)
    launch = {"grid": (64, 1, 1), "threadgroup": (64, 1, 1), "output_shapes": [(64,)], "output_dtypes": [mx.float32]}
    return np.array(kernel(inputs=[mx.array(data)], **launch)[0])


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> HostKernels:
    kernels = HostKernels("metal", tmp_path_factory.mktemp("toys"))
    for body in (*FAULTS, *GOOD):
        launch_toy(kernels, body, np.zeros(64, np.float32))
    kernels.build()
    return kernels


@pytest.mark.parametrize("body", FAULTS)
def test_what_a_kernel_must_not_do_is_a_fault(toys: HostKernels, body: str) -> None:
    with pytest.raises(HostFault, match=FAULTS[body]):
        launch_toy(toys, body, np.arange(64, dtype=np.float32))


@pytest.mark.parametrize("body", GOOD)
def test_lanes_meet_and_unwritten_memory_is_not_a_number(toys: HostKernels, body: str) -> None:
    data = np.arange(64, dtype=np.float32)
    np.testing.assert_array_equal(launch_toy(toys, body, data), GOOD[body](data))


@pytest.mark.parametrize("body", REFUSED)
def test_what_metal_would_not_compile_is_refused(tmp_path: Path, body: str) -> None:
    kernels = HostKernels("metal", tmp_path)
    launch_toy(kernels, body, np.zeros(64, np.float32))
    with pytest.raises(HostFault, match=REFUSED[body]):
        kernels.build()
