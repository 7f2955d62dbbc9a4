"""The drawings of the documentation: `python docs/drawings.py` writes docs/img."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

IMAGES = Path(__file__).parent / "img"
RESULTS = Path(__file__).parent / "bench.md"
INK, SHARED, OWN, HOST, DEVICE = "#333", "#7aa6da", "#e8c170", "#b5d6a7", "#d6a7c9"


class Box(NamedTuple):
    """A labelled rectangle; places and sizes are in pixels."""

    x: float
    y: float
    width: float
    height: float
    label: str
    color: str


def svg(width: int, height: int, boxes: Sequence[Box], texts: Sequence[tuple[float, float, str]]) -> str:
    """A drawing of boxes and lines of text."""
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">']
    parts.append(f'<rect width="{width}" height="{height}" fill="white"/>')
    for box in boxes:
        middle = (box.x + box.width / 2, box.y + box.height / 2 + 4)
        parts.append(
            f'<rect x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" rx="4" '
            f'fill="{box.color}" stroke="{INK}"/>'
        )
        parts.append(
            f'<text x="{middle[0]:g}" y="{middle[1]:g}" font-size="12" text-anchor="middle" fill="{INK}">'
            f"{box.label}</text>"
        )
    parts += [f'<text x="{x:g}" y="{y:g}" font-size="13" fill="{INK}">{text}</text>' for x, y, text in texts]
    return "\n".join([*parts, "</svg>", ""])


def shared_blocks() -> str:
    """Three agents, whose tables begin with the same blocks."""
    boxes = [Box(170 + 90 * i, 20, 80, 30, f"block {i}", SHARED) for i in range(3)]
    boxes += [Box(67 + 190 * i, 150, 80, 30, f"block {3 + i}", OWN) for i in range(3)]
    texts = [(10, 40, "system prompt, tools"), (585, 170, "what each has alone"), (10, 225, _CAPTION)]
    for agent in range(3):
        table = ", ".join(map(str, [0, 1, 2, 3 + agent]))
        boxes.append(Box(20 + 190 * agent, 85, 175, 30, f"agent {agent + 1}: blocks {table}", "white"))
    return svg(760, 240, boxes, texts)


_CAPTION = "Blocks 0 to 2 are computed once, kept once, and read once a step for all three rows."


def one_step() -> str:
    """The two lanes of three steps: what the host does while the device computes."""
    return svg(760, 190, list(_lanes()), [(10, 50, "host"), (10, 110, "device"), (80, 165, _STEP_CAPTION)])


_STEP_CAPTION = (
    "The forward of a step is dispatched before the last step's tokens are read: only the sampling waits for masks."
)


def _lanes() -> Iterator[Box]:
    for step in range(3):
        x = 80 + 220 * step
        for offset, label in enumerate(("schedule", "tokens", "masks")):
            yield Box(x + 66 * offset, 30, 62, 32, label, HOST)
        yield Box(x + 40, 90, 150, 32, f"forward {step + 1}", DEVICE)
        yield Box(x + 192, 90, 50, 32, "sample", DEVICE)


def speedups() -> str:
    """The ratios of the results' table, as bars beside mlx-lm's, which is 1."""
    shown = list(_measured())
    boxes = [Box(330, 30 + 34 * row, _PIXELS * ratio, 22, "", SHARED) for row, (_, ratio) in enumerate(shown)]
    boxes.append(Box(330 + _PIXELS, 26, 1, 34 * len(shown), "", INK))
    texts: list[tuple[float, float, str]] = [(10, 18, _SPEEDUP_CAPTION)]
    for row, (work, ratio) in enumerate(shown):
        texts += [(10, 46 + 34 * row, work), (338 + _PIXELS * ratio, 46 + 34 * row, f"{ratio:g}x")]
    return svg(760, 40 + 34 * len(shown), boxes, texts)


_PIXELS = 40  # of what mlx-lm does
_SPEEDUP_CAPTION = "Times as fast as mlx-lm (the line), SmolLM2-135M on 2 CPU cores; docs/bench.md"
_SHOWN = {"agents": "total", "extract --repeats 2": "total", "batch --repeats 3": "decode", "turns": "total"}
_SHOWN |= {"single --repeats 3": "decode"}


def _measured() -> Iterator[tuple[str, float]]:
    """What the table of docs/bench.md says of the workloads that have a peer."""
    rows = (line.split("|")[1:6] for line in RESULTS.read_text(encoding="utf-8").splitlines() if "bench" in line)
    for command, work, _, _, ratio in (row for row in rows if len(row) == 5):
        name = command.strip().strip("`").removeprefix("mlx-agent bench ")
        if name in _SHOWN and _SHOWN[name] in work:
            yield f"{name.split()[0]}: {work.strip()}", float(ratio.strip().removesuffix("x"))


DRAWINGS = {"blocks.svg": shared_blocks, "step.svg": one_step, "speedups.svg": speedups}

if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for name, draw in DRAWINGS.items():
        (IMAGES / name).write_text(draw(), encoding="utf-8")
