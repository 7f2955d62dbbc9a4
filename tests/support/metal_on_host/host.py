"""Kernels of both dialects on the CPU: all of a test file's kernels in one program, compiled once.

A `HostKernels` stands in for mx.fast.metal_kernel and mx.fast.cuda_kernel. Before `build` it only notes which kernels
are asked for, and returns zeros; afterwards it runs them.
"""

from __future__ import annotations

import platform
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from tests.support.metal_on_host.wrapper import Description, cuda_text, metal_text

HERE = Path(__file__).parent
Dialect = str  # "metal" or "cuda"

_COMPILERS = (*(f"clang++-{version}" for version in range(25, 16, -1)), "clang++")
# Metal is C++14. What it has not, or what it converts only when asked to, is an error.
_CHECKS = "-std=c++14 -Wall -Wextra -Werror -Wdouble-promotion -Wimplicit-float-conversion -Wno-unknown-attributes"
_UNUSED = "-Wno-unused-function -Wno-unused-variable -Wno-unused-parameter"
_SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all -ftrivial-auto-var-init=pattern"
_RUNTIME = ("--rtlib=compiler-rt",)  # libgcc before 13 has no conversion to bfloat16
_PROBE = """
    template <typename T> using four = T __attribute__((ext_vector_type(4)));
    float add(four<__bf16> a, four<_Float16> b) { return float(a[1] * a[1]) + float(b[2]); }
    int main() { return int(add(four<__bf16>(__bf16(2.0f)), four<_Float16>(_Float16(-4.0f)))); }
"""
_INPUT, _OUTPUT, _WRITTEN = 0, 1, 2  # what lanes.cpp is told of a buffer
_CUDA_SHAPE_BYTES = 32  # cuda.h's Shape, which is passed by value
_NUMPY_TYPES = {mx.float32: np.float32, mx.int32: np.int32, mx.float16: np.uint16, mx.bfloat16: np.uint16}
# What CUDA's dialect says in the GPU's own instructions, as statements; any other one does not compile.
_PTX = {
    r'asm\("ex2\.approx\.ftz\.f32 %0, %1;" : "=f"\((\w+)\) : "f"\((\w+)\)\);': r"\1 = exp2f(\2);",
    r'asm\("mma\.sync\.aligned\.m16n8k16\.row\.col\.f32\.(f16|bf16)\.\1\.f32 [^"]*"[^;]*\);': (
        r"multiply_on_the_host<ptx::\1>(sums, a, b);"
    ),
    r'asm volatile\("cp\.async\.cg\.shared\.global \[%0\], \[%1\], 16;" : : "r"\(place\), "l"\(from\) : "memory"\);': (
        "copy_on_the_host(to, from);"
    ),
    r'asm volatile\("cp\.async\.commit_group;" : : : "memory"\);': "commit_on_the_host();",
    r'asm volatile\("cp\.async\.wait_group %0;" : : "n"\(PENDING\) : "memory"\);': "wait_on_the_host(PENDING);",
}


class HostFault(AssertionError):
    """A kernel did on the host what it must not: out of bounds, undefined, or lanes that do not meet."""


class _Launch(NamedTuple):
    inputs: list[mx.array]
    grid: tuple[int, int, int]
    threadgroup: tuple[int, int, int]
    output_shapes: list[tuple[int, ...]]
    output_dtypes: list[mx.Dtype]


class HostKernels:
    """The kernels of one dialect, run by a program in `directory`."""

    def __init__(self, dialect: Dialect, directory: Path):
        self.dialect = dialect
        self.directory = directory
        self.texts: dict[str, Description] = {}
        self.program: Path | None = None

    def make(self, **description: object) -> Callable[..., list[mx.array]]:
        """The kernel of a description, to be called as MLX's are."""
        kernel = Description(**description)  # type: ignore[arg-type]

        def call(**launch: object) -> list[mx.array]:
            return self._call(kernel, _Launch(**launch))  # type: ignore[arg-type]

        return call

    def build(self) -> None:
        """Compile every kernel asked for so far."""
        source = self.directory / f"{self.dialect}.cpp"
        source.write_text(program_text(self.dialect, self.texts))
        self.check_text(source)
        self.program = self.directory / self.dialect
        compile_host(*_CHECKS.split(), *_UNUSED.split(), *_SANITIZERS.split(), "-O0", str(source),
                     str(HERE / "lanes.cpp"), "-o", str(self.program))  # fmt: skip

    def check_text(self, source: Path) -> None:
        """Compile for the address spaces, into which the sanitizers do not look: not the program that runs."""
        if self.dialect == "metal":
            compile_host(*_CHECKS.split(), *_UNUSED.split(), "-DADDRESS_SPACES", "-fsyntax-only", str(source))

    def _call(self, kernel: Description, launch: _Launch) -> list[mx.array]:
        text = (metal_text if self.dialect == "metal" else cuda_text)(kernel, launch.inputs, launch.output_dtypes)
        if self.program is None:
            self.texts.setdefault(text, kernel)
            return [mx.zeros(*like) for like in zip(launch.output_shapes, launch.output_dtypes, strict=True)]
        index = list(self.texts).index(text)
        results = self._run(index, kernel, launch)
        half = len(results) // 2
        if results[:half] != results[half:]:
            raise HostFault(f"{kernel.name}: the outputs depend on the order in which the lanes run")
        written = written_inputs(kernel)
        changed = [array for name, array in zip(kernel.input_names, launch.inputs, strict=True) if name in written]
        shapes = [array.shape for array in changed] + launch.output_shapes
        arrays = _arrays(results[:half], shapes, [array.dtype for array in changed] + launch.output_dtypes)
        for array, content in zip(changed, arrays, strict=False):
            array[:] = content  # the same object, as the same memory on a GPU
        return arrays[len(changed) :]

    def _run(self, index: int, kernel: Description, launch: _Launch) -> bytes:
        """The outputs' bytes, twice: of the lanes in ascending and in descending order."""
        shape_bytes = 0 if self.dialect == "metal" else _CUDA_SHAPE_BYTES
        buffers = input_buffers(kernel, launch.inputs, shape_bytes)
        sizes = zip(launch.output_shapes, launch.output_dtypes, strict=True)
        buffers += [(bytes(int(np.prod(shape)) * dtype.size), _OUTPUT) for shape, dtype in sizes]
        data = [struct.pack("<8q", index, *launch.grid, *launch.threadgroup, len(buffers))]
        for content, role in buffers:
            data += [struct.pack("<2q", len(content), role), b"" if role == _OUTPUT else content]
        paths = self.directory / "launch", self.directory / "results"
        paths[0].write_bytes(b"".join(data))
        done = subprocess.run([str(self.program), *map(str, paths)], capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise HostFault(f"{kernel.name}: {done.stderr[:4000]}")
        return paths[1].read_bytes()


def program_text(dialect: Dialect, texts: Sequence[str] | dict[str, Description]) -> str:
    """One source file of all texts, each in a namespace of its own, with the table that lanes.cpp starts them from."""
    parts = [f'#include "{dialect}.h"']
    for index, text in enumerate(texts):
        for instruction, statement in _PTX.items():
            text = re.sub(instruction, statement, text)
        defines = re.findall(r"^\s*#define (\w+)", text, re.MULTILINE)
        parts += [f"#define KERNEL {index}", f"namespace kernel_{index} {{", text, _launcher(dialect, text), "}"]
        parts += [f"#undef {name}" for name in [*defines, "KERNEL"]]
    for index in range(len(texts)):
        parts.append(f'extern "C" char __start_shared_{index}[] __attribute__((weak));')
        parts.append(f'extern "C" char __stop_shared_{index}[] __attribute__((weak));')
    entries = (f"{{kernel_{i}::launch, __start_shared_{i}, __stop_shared_{i}}}," for i in range(len(texts)))
    return "\n".join(
        [*parts, "#ifndef ADDRESS_SPACES", "const KernelEntry kernels[] = {", *entries, "};", "#endif", ""]
    )


def input_buffers(kernel: Description, inputs: Sequence[mx.array], shape_bytes: int) -> list[tuple[bytes, int]]:
    """The inputs' bytes, row-contiguous, each followed by its shape where the body asks for it; with their roles."""
    buffers = []
    written = written_inputs(kernel)
    for name, array in zip(kernel.input_names, inputs, strict=True):
        buffers.append((_bytes(array), _WRITTEN if name in written else _INPUT))
        if f"{name}_shape" in kernel.source:
            buffers.append((struct.pack(f"<{array.ndim}i", *array.shape).ljust(shape_bytes, b"\0"), _INPUT))
    return buffers


def written_inputs(kernel: Description) -> set[str]:
    """The inputs that a kernel writes in place."""
    return set(re.findall(r"const_cast<[\w ]+\*>\((\w+)\)", kernel.source))


@cache
def missing_tools() -> str | None:
    """Why nothing can run here, or None."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "the lanes are switched by hand on Linux x86_64 only; a Mac has its own GPU"
    return (
        None
        if compiler()
        else "no clang++ of version 17 or later with its sanitizers (Debian: clang-19, libclang-rt-19-dev)"
    )


@cache
def compiler() -> str | None:
    """A clang++ that knows both half types and has its sanitizers, or None."""
    for name in filter(shutil.which, _COMPILERS):
        command = [name, "-x", "c++", "-", "-fsanitize=address,undefined", *_RUNTIME, "-o", "/dev/null"]
        if subprocess.run(command, input=_PROBE, capture_output=True, text=True).returncode == 0:
            return name
    return None


def compile_host(*arguments: str) -> None:
    """Run the compiler; HostFault with its words where it refuses."""
    command = [str(compiler()), f"-I{HERE}", *_RUNTIME, "-Wno-unused-command-line-argument", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise HostFault(done.stderr[:8000])


def _launcher(dialect: Dialect, text: str) -> str:
    """A function that calls the kernel with its buffers and the lane's position."""
    found = re.search(r"^(?:\[\[kernel\]\]|__global__) void (\w+)\((.*?)\) \{$", text, re.MULTILINE | re.DOTALL)
    assert found is not None, text
    parameters = [parameter.split("[[")[0].split() for parameter in found[2].split(",\n")]
    arguments = []
    for index, (*words, name) in enumerate(parameters):
        declared = " ".join(words).replace("__grid_constant__ ", "")
        if declared.endswith("*"):
            arguments.append(f"({declared})buffers[{index}]")
        elif declared.endswith("&") or dialect == "cuda":
            arguments.append(f"*({declared.rstrip('&')}*)buffers[{index}]")
        else:
            arguments.append(f"POSITION_{name}")
    call = f"static void launch(void* const* buffers) {{\n  {found[1]}({', '.join(arguments)});\n}}"
    return f"#ifndef ADDRESS_SPACES\n{call}\n#endif"


def _bytes(array: mx.array) -> bytes:
    numbers = array.view(mx.uint16) if array.dtype in (mx.float16, mx.bfloat16) else array
    return np.ascontiguousarray(np.array(numbers)).tobytes()


def _arrays(data: bytes, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[mx.Dtype]) -> list[mx.array]:
    arrays, begin = [], 0
    for shape, dtype in zip(shapes, dtypes, strict=True):
        count = int(np.prod(shape))
        numbers = np.frombuffer(data, dtype=_NUMPY_TYPES[dtype], count=count, offset=begin).reshape(shape)
        arrays.append(mx.array(numbers).view(dtype))
        begin += count * dtype.size
    return arrays
