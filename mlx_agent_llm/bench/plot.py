"""Charts as PNG files, by matplotlib, which is an extra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlx_agent_llm.bench.result import Bars, Chart, Result, Spread

try:
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    raise ImportError("plots need matplotlib: pip install 'mlx-agent-llm[bench]'") from error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCHES_A_CHART, _INCHES_HIGH = 6.0, 4.5
_MANY_BARS = 6


def write_plot(path: Path, result: Result, caption: str) -> None:
    """Draw the result's charts side by side; `caption`, the machine and the date, stands below."""
    figure = Figure(figsize=(_INCHES_A_CHART * len(result.charts), _INCHES_HIGH), layout="constrained")
    figure.suptitle(result.title)
    axes: Sequence[Axes] = figure.subplots(1, len(result.charts), squeeze=False)[0]
    for one, chart in zip(axes, result.charts, strict=True):
        _draw(one, chart)
    figure.supxlabel(caption, fontsize=8)
    figure.savefig(path, format="png", dpi=120)


def _draw(axes: Axes, chart: Chart) -> None:
    if isinstance(chart, Bars):
        _draw_bars(axes, chart)
    else:
        _draw_spread(axes, chart)
    axes.set_title(chart.title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    if len(chart.series) > 1:
        axes.legend(fontsize=8)


def _draw_bars(axes: Axes, chart: Bars) -> None:
    width = 0.8 / len(chart.series)
    for index, (name, values) in enumerate(chart.series.items()):
        places = np.arange(len(chart.labels)) + (index - (len(chart.series) - 1) / 2) * width
        bars = axes.bar(places, values, width, label=name)
        if len(chart.labels) <= _MANY_BARS:
            axes.bar_label(bars, fmt="{:.3g}", fontsize=8)
    axes.set_ylabel(chart.unit)
    is_crowded = len(chart.labels) > _MANY_BARS and max(map(len, chart.labels)) > 2
    axes.set_xticks(range(len(chart.labels)), chart.labels, rotation=60 if is_crowded else 0, fontsize=8)


def _draw_spread(axes: Axes, chart: Spread) -> None:
    for name, values in chart.series.items():
        axes.plot(np.linspace(0, 100, len(values)), sorted(values), label=name)
    axes.set_yscale("log")
    axes.set_ylabel(chart.unit)
    axes.set_xlabel("percent of them that are shorter", fontsize=8)
