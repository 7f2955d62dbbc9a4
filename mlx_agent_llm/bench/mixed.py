"""mixed: a long prompt arrives while streams run: how long do they stand still, and how long does it wait."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median

from mlx_agent_llm.bench import ours, peer
from mlx_agent_llm.bench.arrivals import Arrivals
from mlx_agent_llm.bench.result import OURS, OUT_OF_MEMORY, PEER, Bars, Headline, Result, Spread, row_without_memory
from mlx_agent_llm.bench.workload import Options, RandomTokens, Workload, check_context
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.models import LoadedModel

NUM_ROWS, NUM_LONG = 8, 4096
NUM_SHORT, NUM_STREAMED, NUM_BEFORE, NUM_AFTER = 24, 200, 20, 32
_COLUMNS = ("gaps in ms", "median", "worst", "waiting", "worst", "/ median", "first s")


@dataclass(frozen=True)
class Scene:
    """The streams' prompts and the one that arrives when each of them has NUM_BEFORE tokens."""

    prompts: list[list[int]]
    late_prompt: list[int]

    @property
    def rows(self) -> int:
        """Streams; the late request's number is the next one."""
        return len(self.prompts)

    @property
    def num_tokens(self) -> int:
        """All that will be generated."""
        return self.rows * NUM_STREAMED + NUM_AFTER

    def may_begin(self, arrivals: Arrivals) -> bool:
        """Whether the late prompt is due."""
        return all(arrivals.count(stream) >= NUM_BEFORE for stream in range(self.rows))


@dataclass(frozen=True)
class Stall:
    """Seconds between the streams' tokens: while the long prompt waited for its first token, and in the whole run."""

    waiting_median: float
    waiting_worst: float
    overall_median: float
    overall_worst: float
    late_first_token_seconds: float
    num_still_running: int  # streams that had not ended when the long prompt got its first token
    gaps: list[float] = field(repr=False)  # all

    @property
    def worst_over_median(self) -> float:
        """How much longer than usual a stream stood still."""
        return self.waiting_worst / self.overall_median


def _measure(options: Options) -> Result:
    loaded, rival = options.load(), options.load()
    tokens, num_long = RandomTokens(loaded.vocab_size), options.prompt_tokens or NUM_LONG
    check_context(loaded, num_long + NUM_AFTER, f"mixed with prompt_tokens={num_long}")
    check_context(loaded, NUM_SHORT + NUM_STREAMED, "mixed")
    rows = options.rows or NUM_ROWS
    scene = Scene([tokens(NUM_SHORT) for _ in range(rows)], tokens(num_long))
    _warm_up(loaded, rival, tokens(16))
    runs = [(_run_ours(loaded, scene), _run_peer(rival, scene)) for _ in range(options.repeats or 1)]
    mine, theirs = _best([mine for mine, _ in runs]), peer.best([theirs for _, theirs in runs], _best)
    return _result(scene, mine, theirs)


def _warm_up(loaded: LoadedModel, rival: LoadedModel, prompt: list[int]) -> None:
    with Engine(loaded, ours.config_for(2)) as engine:
        ours.stream_all(engine, [prompt] * 2, 4)
    peer.stream_all(rival.model, [prompt] * 2, 4)


def _run_ours(loaded: LoadedModel, scene: Scene) -> Stall:
    with Engine(loaded, ours.config_for(scene.rows + 1)) as engine:
        arrivals, arrived_at = asyncio.run(_play(engine, scene))
    return _read(scene, arrivals, arrived_at)


async def _play(engine: Engine, scene: Scene) -> tuple[Arrivals, float]:
    arrivals, is_due = Arrivals(), asyncio.Event()

    async def stream(request: int) -> None:
        async for delta in engine.astream(scene.prompts[request], ours.fixed_length(NUM_STREAMED)):
            arrivals.note(request, len(delta.token_ids))
            if not is_due.is_set() and scene.may_begin(arrivals):
                is_due.set()

    async def arrive_late() -> float:
        await is_due.wait()
        arrived_at = arrivals.now
        await ours.consume(engine, scene.late_prompt, NUM_AFTER, scene.rows, arrivals)
        return arrived_at

    streams = asyncio.gather(*(stream(request) for request in range(scene.rows)))
    arrived_at, _ = await asyncio.gather(arrive_late(), streams)
    return arrivals, arrived_at


@peer.unless_out_of_memory
def _run_peer(loaded: LoadedModel, scene: Scene) -> Stall:
    arrivals = Arrivals()
    arrived_at: float | None = None
    with peer.batch_generator(loaded.model, scene.rows + 1) as generator:
        generator.insert(scene.prompts, max_tokens=[NUM_STREAMED] * scene.rows)
        for _ in peer.run_to_the_end(generator, arrivals, scene.num_tokens):
            if arrived_at is None and scene.may_begin(arrivals):
                arrived_at = arrivals.now
                generator.insert([scene.late_prompt], max_tokens=[NUM_AFTER])
    assert arrived_at is not None
    return _read(scene, arrivals, arrived_at)


def _read(scene: Scene, arrivals: Arrivals, arrived_at: float) -> Stall:
    streams = range(scene.rows)
    assert all(arrivals.count(stream) == NUM_STREAMED for stream in streams), "a stream got too few tokens"
    first = arrivals.first(scene.rows)
    gaps = arrivals.gaps(streams)
    overall = [gap.seconds for gap in gaps]
    waiting = [gap.seconds for gap in gaps if gap.end > arrived_at and gap.begin < first]
    return Stall(
        waiting_median=median(waiting),
        waiting_worst=max(waiting),
        overall_median=median(overall),
        overall_worst=max(overall),
        late_first_token_seconds=first - arrived_at,
        num_still_running=sum(arrivals.last(stream) >= first for stream in streams),
        gaps=overall,
    )


def _best(runs: Sequence[Stall]) -> Stall:
    return min(runs, key=lambda stall: stall.waiting_worst)


def _result(scene: Scene, mine: Stall, theirs: Stall | None) -> Result:
    sides = {OURS: mine} | ({} if theirs is None else {PEER: theirs})
    return Result(
        title=f"mixed: {scene.rows} streams, and a prompt of {len(scene.late_prompt)} tokens that arrives late",
        columns=_COLUMNS,
        rows=[_row(OURS, mine), row_without_memory(PEER, _COLUMNS) if theirs is None else _row(PEER, theirs)],
        numbers={
            "streams": scene.rows,
            "prompt_tokens": len(scene.late_prompt),
            "ours": _numbers(mine),
            "mlx_lm": None if theirs is None else _numbers(theirs),
            "mlx_lm_failure": OUT_OF_MEMORY if theirs is None else None,
            "ratios": None if theirs is None else _ratios(mine, theirs),
        },
        charts=[
            Spread(
                "all gaps between tokens of the streams", "seconds", {name: side.gaps for name, side in sides.items()}
            ),
            _waiting_chart(sides),
        ],
        notes=[
            "waiting: the median and the worst gap while the long prompt waits for its first token, first s",
            *(
                f"{label}: {stall.num_still_running} of {scene.rows} streams still ran at the long prompt's first token"
                for label, stall in sides.items()
            ),
        ],
        headline=Headline(
            f"{scene.rows} streams while a prompt of {len(scene.late_prompt)} tokens arrives: worst gap",
            mine.waiting_worst,
            None if theirs is None else theirs.waiting_worst,
        ),
    )


def _ratios(mine: Stall, theirs: Stall) -> dict[str, float]:
    return {
        "worst gap": theirs.waiting_worst / mine.waiting_worst,
        "first token": theirs.late_first_token_seconds / mine.late_first_token_seconds,
    }


def _row(label: str, stall: Stall) -> tuple[str, ...]:
    seconds = (stall.overall_median, stall.overall_worst, stall.waiting_median, stall.waiting_worst)
    return (
        label,
        *(f"{number * 1e3:.1f}" for number in seconds),
        f"{stall.worst_over_median:.1f}x",
        f"{stall.late_first_token_seconds:.2f}",
    )


def _numbers(stall: Stall) -> dict[str, float]:
    numbers = {name: value for name, value in asdict(stall).items() if name != "gaps"}
    return numbers | {"num_gaps": len(stall.gaps), "worst_over_median": stall.worst_over_median}


def _waiting_chart(sides: Mapping[str, Stall]) -> Bars:
    values = {label: [stall.waiting_worst, stall.late_first_token_seconds] for label, stall in sides.items()}
    return Bars("while the long prompt waits", "seconds", ["worst gap", "its first token"], values)


MIXED = Workload("mixed", frozenset({"model", "rows", "repeats", "prompt_tokens"}), _measure)
