"""Source text to kernels: the constants, the dialect and one body of src/, compiled by MLX at the first use.

A kernel's name holds a digest of its whole text, because MLX's CUDA build knows compiled kernels by name alone.
Knows what a body is, not what it computes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from importlib.resources import files
from typing import Literal, NamedTuple

import mlx.core as mx

Backend = Literal["metal", "cuda", "reference"]
Constants = tuple[tuple[str, int | float], ...]
Kernel = Callable[..., list[mx.array]]

_MATRIX_BODIES = frozenset({"project_rows", "shared_attention"})  # they multiply small matrices
_MAX_KERNELS = 128  # of constants in use at once; one more drops the kernel that was used longest ago
_ELEMENT_TYPES = {
    "metal": {mx.float32: "float", mx.float16: "half", mx.bfloat16: "bfloat16_t"},
    "cuda": {mx.float32: "float", mx.float16: "__half", mx.bfloat16: "__nv_bfloat16"},
}


class Body(NamedTuple):
    """One function body of src/ and the names of its buffers, which the constants may add to."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def backend() -> Backend:
    """What computes on MLX's default device: "metal" or "cuda" on a GPU, "reference" on the CPU."""
    if mx.default_device() == mx.Device(mx.cpu):
        return "reference"
    return "metal" if mx.metal.is_available() else "cuda"


def kernel_text(body: str, dialect: str, dtype: mx.Dtype, constants: Constants) -> tuple[str, str]:
    """The header and the source of a body as MLX takes them; `dialect` is "metal" or "cuda"."""
    values = (("ELEMENT_TYPE", _ELEMENT_TYPES[dialect][dtype]), *((name, _literal(value)) for name, value in constants))
    defines = "".join(f"#define {name} {value}\n" for name, value in values)
    header = defines + _read(f"dialect_{dialect}.h")
    if body in _MATRIX_BODIES:
        header += _read(f"matrix_{dialect}.h")
    if dict(constants).get("BITS"):
        header += _read(f"packed_{dialect}.h")
    return header, _read(f"indices_{dialect}.h") + _read(f"{body}.h")


@lru_cache(maxsize=_MAX_KERNELS)
def load_kernel(
    body: Body, dialect: str, dtype: mx.Dtype, extra_types: Sequence[mx.Dtype], constants: Constants
) -> Kernel:
    """The kernel of a body; `extra_types` are those of inputs that do not follow from dtype and constants."""
    header, source = kernel_text(body.name, dialect, dtype, constants)
    digest = hashlib.sha256(f"{header}\0{source}\0{body}\0{extra_types}".encode()).hexdigest()[:16]
    make = mx.fast.metal_kernel if dialect == "metal" else mx.fast.cuda_kernel
    kernel: Kernel = make(  # type: ignore[assignment]
        name=f"{body.name}_{digest}",
        input_names=list(body.inputs),
        output_names=list(body.outputs),
        source=source,
        header=header,
    )
    return kernel


def _literal(value: int | float) -> str:
    return f"{value!r}f" if isinstance(value, float) else str(int(value))


@cache
def _read(name: str) -> str:
    return (files("mlx_agent_kernels") / "src" / name).read_text()
