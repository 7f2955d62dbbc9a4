"""The whole text that a GPU's compiler gets: a kernel's header and body, and the function that MLX writes around them.

For Metal, MLX writes it itself, on any machine: while a function is exported it only prints the text, and asks for no
GPU. For CUDA the few lines are said here again.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import mlx.core as mx

_CUDA_TYPES = {
    mx.float32: "float",
    mx.float16: "__half",
    mx.bfloat16: "__nv_bfloat16",
    mx.int32: "int32_t",
    mx.uint32: "uint32_t",
}


_make_metal_kernel = mx.fast.metal_kernel  # a test may put something else in its place


class Description(NamedTuple):
    """A kernel as mx.fast.metal_kernel and mx.fast.cuda_kernel take it."""

    name: str
    input_names: list[str]
    output_names: list[str]
    source: str
    header: str = ""


def metal_text(kernel: Description, inputs: Sequence[mx.array], output_dtypes: Sequence[mx.Dtype]) -> str:
    """The text that MLX hands to Metal's compiler after its own utilities."""
    made = _make_metal_kernel(**kernel._asdict())

    def call(*arrays: mx.array) -> list[mx.array]:
        return made(
            inputs=list(arrays),
            grid=(1, 1, 1),
            threadgroup=(1, 1, 1),
            output_shapes=[(1,)] * len(output_dtypes),
            output_dtypes=list(output_dtypes),
            stream=mx.gpu,
            verbose=True,
        )

    return _printed(lambda: _export(call, inputs)).split("```\n")[1]


def cuda_text(kernel: Description, inputs: Sequence[mx.array], output_dtypes: Sequence[mx.Dtype]) -> str:
    """The text of the CUDA kernel without MLX's includes; shapes are passed by value, as MLX passes them."""
    parameters = []
    for name, array in zip(kernel.input_names, inputs, strict=True):
        parameters.append(f"    const {_CUDA_TYPES[array.dtype]}* {name}")
        if f"{name}_shape" in kernel.source:
            parameters.append(f"    const __grid_constant__ Shape {name}_shape")
    for name, dtype in zip(kernel.output_names, output_dtypes, strict=True):
        parameters.append(f"    {_CUDA_TYPES[dtype]}* {name}")
    signature = f"__global__ void custom_kernel_{kernel.name}(\n" + ",\n".join(parameters)
    return f"{kernel.header}\n{signature}) {{\n{kernel.source}\n}}\n"


def _export(call: Callable[..., list[mx.array]], inputs: Sequence[mx.array]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        mx.export_function(os.path.join(directory, "kernel.mlxfn"), call, *inputs)


def _printed(action: Callable[[], None]) -> str:
    """What an action writes to the process's standard output, past Python."""
    with tempfile.TemporaryFile() as file:
        with _standard_output_to(file.fileno()):
            action()
        file.seek(0)
        return file.read().decode()


@contextmanager
def _standard_output_to(descriptor: int) -> Iterator[None]:
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(descriptor, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
