"""embed: texts a second of the demo embedder beside sentence-transformers, in one call and from many callers."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from mlx_agent_llm.bench.result import OURS, Bars, Result
from mlx_agent_llm.bench.workload import Options, Workload
from mlx_agent_llm.embedder import Embedder
from mlx_agent_llm.errors import RequestError
from mlx_agent_llm.models.embedders.source import DEMO, find_embedder

SENTENCE_TRANSFORMERS = "sentence-transformers"
NUM_CALLERS = 64
WORDS = "the ferry leaves at nine and the bakery sells bread while owls hunt over a quiet harbour every night".split()
LENGTHS = {"short": (256, 5, 20), "mixed": (128, 1, 250), "long": (32, 254, 254)}  # texts, fewest and most words

Embed = Callable[[list[str]], Any]


@dataclass(frozen=True)
class Speed:
    """Texts a second of both sides. batches: our forwards for all callers of one text each; None for one call."""

    case: str
    ours: float
    theirs: float
    batches: int | None = None

    @property
    def ratio(self) -> float:
        """How many times as fast ours is."""
        return self.ours / self.theirs


def _measure(options: Options) -> Result:
    peer = _load_peer()
    callers, repeats = options.rows or NUM_CALLERS, options.repeats or 1
    with Embedder.load(DEMO, device="cpu") as embedder:
        sides = (embedder.embed, peer)
        for embed in sides:
            embed(_texts(*LENGTHS["mixed"])[:16])  # warms it up
        speeds = [_in_one_call(case, sides, repeats) for case in LENGTHS]
        speeds.append(_from_callers(embedder, sides, callers, repeats))
    return _result(speeds)


def _load_peer() -> Embed:
    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError as error:
        raise RequestError("embed needs sentence-transformers: pip install sentence-transformers") from error
    model = SentenceTransformer(str(find_embedder(DEMO)), device="cpu")
    return lambda texts: model.encode(texts, show_progress_bar=False)


def _in_one_call(case: str, sides: Sequence[Embed], repeats: int) -> Speed:
    texts = _texts(*LENGTHS[case])
    runs = [[_time(lambda embed=embed: embed(texts)) for embed in sides] for _ in range(repeats)]  # type: ignore[misc]
    ours, theirs = (len(texts) / min(seconds) for seconds in zip(*runs, strict=True))
    return Speed(case, ours, theirs)


def _from_callers(embedder: Embedder, sides: Sequence[Embed], callers: int, repeats: int) -> Speed:
    """A thread for each text."""
    texts = _texts(callers, *LENGTHS["short"][1:])
    with ThreadPoolExecutor(callers) as pool:

        def run(embed: Embed) -> None:
            list(pool.map(lambda text: embed([text]), texts))

        for embed in sides:
            run(embed)  # starts the threads
        before = embedder.num_batches
        runs = [[_time(lambda embed=embed: run(embed)) for embed in sides] for _ in range(repeats)]  # type: ignore[misc]
        batches = (embedder.num_batches - before) // repeats
    ours, theirs = (callers / min(seconds) for seconds in zip(*runs, strict=True))
    return Speed(f"{callers} callers", ours, theirs, batches)


def _texts(count: int, fewest: int, most: int) -> list[str]:
    generator = random.Random(0)
    return [" ".join(generator.choices(WORDS, k=generator.randint(fewest, most))) for _ in range(count)]


def _time(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def _result(speeds: Sequence[Speed]) -> Result:
    return Result(
        title=f"embed: {DEMO} on the CPU, texts a second",
        columns=("", OURS, SENTENCE_TRANSFORMERS, "times as fast", "our forwards"),
        rows=[
            (
                speed.case,
                f"{speed.ours:.1f}",
                f"{speed.theirs:.1f}",
                f"{speed.ratio:.2f}x",
                "" if speed.batches is None else str(speed.batches),
            )
            for speed in speeds
        ],
        numbers={"cases": [asdict(speed) | {"ratio": speed.ratio} for speed in speeds]},
        charts=[
            Bars(
                "more is better",
                "texts a second",
                [speed.case for speed in speeds],
                {
                    OURS: [speed.ours for speed in speeds],
                    SENTENCE_TRANSFORMERS: [speed.theirs for speed in speeds],
                },
            )
        ],
        notes=["with MKL_NUM_THREADS=1 and OMP_NUM_THREADS=1 both sides compute on one thread"],
    )


EMBED = Workload("embed", frozenset({"rows", "repeats"}), _measure)
