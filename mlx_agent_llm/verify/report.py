"""All that is verified on a device, as lines and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from mlx_agent_kernels import backend
from mlx_agent_llm.bench.machine import describe_machine
from mlx_agent_llm.process.thermal import thermal_state
from mlx_agent_llm.verify.comparison import Comparison
from mlx_agent_llm.verify.forms import compare_forms
from mlx_agent_llm.verify.kernels import compare_kernels
from mlx_agent_llm.verify.steps import (
    MAX_RATIO,
    Bandwidth,
    Launches,
    Steps,
    count_launches,
    measure_reading,
    measure_steps,
)

_NUM_LAYERS = 36  # of a model that the commits are told of: Qwen3-8B


class Report(NamedTuple):
    """What was found; thermal: the system's word before and after, None where it gives none."""

    comparisons: Sequence[Comparison]
    steps: Steps
    bandwidth: Bandwidth
    launches: Launches | None  # where MLX commits them, which is on Metal
    thermal: tuple[str | None, str | None]

    @property
    def is_good(self) -> bool:
        """Whether every result is its reference's and the size of the pool makes no difference."""
        return self.steps.are_alike and all(comparison.is_close for comparison in self.comparisons)

    def lines(self) -> list[str]:
        """What is measured beside the comparisons, a sentence each."""
        steps, bandwidth = self.steps, self.bandwidth
        verdict = "alike" if steps.are_alike else f"NOT alike (more than {MAX_RATIO}x): pools are copied"
        lines = [
            f"a step takes {1e3 * steps.small_seconds:.2f} ms with a pool of {_mib(steps.small_bytes)} and "
            f"{1e3 * steps.large_seconds:.2f} ms with {_mib(steps.large_bytes)}: {verdict}",
            f"a copy moves {bandwidth.copy / 1e9:,.0f} GB/s, attention reads {bandwidth.attention / 1e9:,.0f} GB/s "
            f"({bandwidth.attention / bandwidth.copy:.0%} of it)",
        ]
        if self.launches is not None:
            lines.append(_launches_line(self.launches))
        before, after = (state or "not told by the system" for state in self.thermal)
        return [*lines, f"thermal state before: {before}; after: {after}"]

    def as_json(self) -> Mapping[str, Any]:
        """Everything, with the machine."""
        return {
            "machine": describe_machine(),
            "is_good": self.is_good,
            "comparisons": [found._asdict() | {"is_close": found.is_close} for found in self.comparisons],
            "steps": self.steps._asdict() | {"are_alike": self.steps.are_alike},
            "bandwidth_bytes_per_second": self.bandwidth._asdict(),
            "launches": None if self.launches is None else self.launches._asdict(),
            "thermal_state": self.thermal,
        }


def verify(on_found: Callable[[Comparison], None]) -> Report:
    """Run everything on MLX's default device: some minutes, most of which compile kernels.

    on_found is called with each comparison when it is made.
    """
    before = thermal_state()
    comparisons = list[Comparison]()
    for found in chain(compare_kernels(), compare_forms()):
        on_found(found)
        comparisons.append(found)
    launches = count_launches() if backend() == "metal" else None
    return Report(comparisons, measure_steps(), measure_reading(), launches, (before, thermal_state()))


def _launches_line(launches: Launches) -> str:
    return (
        f"a step of one row has {launches.a_layer:.1f} operations a layer and {launches.others:.0f} more, so that "
        f"{_NUM_LAYERS} layers commit about {launches.commits(_NUM_LAYERS)} times a step (counted, not observed)"
    )


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.0f} MiB"
