"""What MLX orders when a graph runs on Metal, as a model: which launches may overlap, and which of those race.

MLX encodes launches into concurrent encoders. One launch waits for another where it has a buffer among its inputs or
outputs that the other has as an output (a barrier within an encoder, a fence between two); nothing else orders them. A
view is no launch: its buffer is that of the array it views, and an array that merely depends on others is its first
input. A buffer lives until the last launch that has it is done, so that MLX's own writes to a pool that is still held
go to a copy. So a kernel that writes an input may overlap with whatever it has no path of buffers to.

The graph is MLX's own: it is exported, with the calls of Metal kernels in it, on any machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import mlx.core as mx
import pytest

from mlx_agent_kernels import attention, elementwise, gpu, heads, projections, reference, writes
from mlx_agent_kernels.loader import load_kernel

_VIEWS = frozenset(
    "AsStrided Broadcast Contiguous Copy Depends ExpandDims Flatten Reshape Slice Split Squeeze StopGradient Transpose "
    "Unflatten View".split()
)
_make_metal_kernel = mx.fast.metal_kernel


class Launch(NamedTuple):
    """One launch, and the buffers that it touches, by names."""

    name: str
    inputs: frozenset[str]
    outputs: frozenset[str]  # that MLX knows of
    written_inputs: frozenset[str]
    num_bytes: int  # of the outputs


class Race(NamedTuple):
    """A write of a buffer by one launch, and what another one does to it meanwhile."""

    writer: str
    other: str
    buffer: str


@contextmanager
def metal_calls() -> Iterator[None]:
    """Let the package build its graphs as on a Mac; nothing can be computed meanwhile."""

    def make(**description: Any) -> Callable[..., list[mx.array]]:
        made = _make_metal_kernel(**description)
        return lambda **launch: made(**launch, stream=mx.gpu)

    with pytest.MonkeyPatch.context() as patch:
        for module in (attention, elementwise, gpu, heads, projections, reference, writes):
            patch.setattr(module, "backend", lambda: "metal")
        patch.setattr(mx.fast, "metal_kernel", make)
        load_kernel.cache_clear()
        mx.disable_compile()  # MLX exports no operations that it has made one of
        try:
            yield
        finally:
            mx.enable_compile()
            load_kernel.cache_clear()


def launches_of(build: Callable[[mx.array], mx.array]) -> list[Launch]:
    """The launches of what a function of a token builds, in the order in which MLX encodes them."""
    tape: list[dict[str, Any]] = []
    mx.export_function(tape.append, build, mx.array([0]))
    buffers: dict[str, str] = {}  # of arrays that are views
    launches = []
    for entry in tape:
        if entry["type"] != "primitive":
            continue
        inputs, outputs = ([name for name, _, _ in entry[side]] for side in ("inputs", "outputs"))
        if entry["name"] in _VIEWS:
            # Depends has one output an input, after which come those that are waited for.
            buffers |= {
                output: buffers.get(source, source) for output, source in zip(outputs, _sources(entry), strict=True)
            }
            continue
        own = [buffers.get(name, name) for name in inputs]
        num_bytes = sum(_num_elements(shape) * dtype.size for _, shape, dtype in entry["outputs"])
        launches.append(Launch(entry["name"], frozenset(own), frozenset(outputs), _written(entry, own), num_bytes))
    return launches


def races(launches: Sequence[Launch]) -> list[Race]:
    """Pairs of launches that no path of buffers orders, of which one writes what the other reads or writes."""
    before = _predecessors(launches)
    found = []
    for index, writer in enumerate(launches):
        for buffer in writer.written_inputs:
            for other_index, other in enumerate(launches):
                if index == other_index or buffer not in other.inputs:
                    continue
                if index not in before[other_index] and other_index not in before[index]:
                    found.append(Race(writer.name, other.name, buffer))
    return found


def _predecessors(launches: Sequence[Launch]) -> list[set[int]]:
    """For each launch, all that are done when it begins."""
    makers: dict[str, int] = {}
    before: list[set[int]] = []
    for index, launch in enumerate(launches):
        own = {makers[buffer] for buffer in launch.inputs if buffer in makers}
        before.append(own.union(*(before[maker] for maker in own)))
        makers |= dict.fromkeys(launch.outputs, index)
    return before


def _sources(entry: dict[str, Any]) -> list[str]:
    """Which input each output of a view has the buffer of."""
    names = [name for name, _, _ in entry["inputs"]]
    return names[: len(entry["outputs"])] if entry["name"] == "Depends" else [names[0]] * len(entry["outputs"])


def _written(entry: dict[str, Any], buffers: Sequence[str]) -> frozenset[str]:
    """The inputs that a kernel of ours writes all the same: their names in its text, found by their places."""
    if entry["name"] != "CustomKernel":
        return frozenset()
    text: str = entry["arguments"][1]
    cast = set(re.findall(r"const_cast<[\w ]+\*>\((\w+)\)", text))
    parameters = re.findall(r"const (?:device|constant) \w+[*&] (\w+) \[\[buffer", text)
    arrays = [name for name in parameters if not re.search(r"_(shape|strides|ndim)$", name)]
    assert len(arrays) == len(buffers), text[:500]
    return frozenset(buffer for name, buffer in zip(arrays, buffers, strict=True) if name in cast)


def _num_elements(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
