"""What a workload found, as plain data: a table to read, numbers for JSON, charts to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

OURS, PEER = "mlx_agent_llm", "mlx-lm"
OUT_OF_MEMORY = "out of memory"  # a cell, and the reason in JSON, where the peer has no numbers


@dataclass(frozen=True)
class Bars:
    """One bar for each label and series; NaN where a series has none."""

    title: str
    unit: str
    labels: Sequence[str]
    series: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Spread:
    """All values of each series, drawn from the smallest to the largest: where the tail is the point."""

    title: str
    unit: str
    series: Mapping[str, Sequence[float]]


Chart = Bars | Spread


@dataclass(frozen=True)
class Table:
    """Rows of text, as they are shown."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def row_without_memory(label: str, columns: Sequence[str]) -> tuple[str, ...]:
    """The row of a side that had no memory for the work."""
    return (label, OUT_OF_MEMORY, *[""] * (len(columns) - 2))


class Headline(NamedTuple):
    """The one comparison that a workload is about, in seconds; mlx_lm: None without memory for it."""

    what: str
    ours: float
    mlx_lm: float | None

    @property
    def ratio(self) -> float | None:
        """How many times as fast as mlx-lm."""
        return None if self.mlx_lm is None else self.mlx_lm / self.ours


@dataclass(frozen=True)
class Result(Table):
    """A table, and more below it; `numbers` is what JSON carries, unrounded; notes stand below all tables.

    headline: None where nothing is compared with mlx-lm in seconds.
    """

    numbers: Mapping[str, Any]
    charts: Sequence[Chart]
    notes: Sequence[str] = ()
    more: Sequence[Table] = ()
    headline: Headline | None = None
