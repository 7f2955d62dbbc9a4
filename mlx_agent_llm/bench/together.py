"""single, batch, agents: requests that arrive together, on our engine and on mlx-lm's BatchGenerator in turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

from mlx_agent_llm.bench import ours, peer
from mlx_agent_llm.bench.arrivals import Arrivals
from mlx_agent_llm.bench.result import OURS, OUT_OF_MEMORY, PEER, Bars, Chart, Headline, Result, row_without_memory
from mlx_agent_llm.bench.workload import Options, RandomTokens, Workload, check_context
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.models import LoadedModel


@dataclass(frozen=True)
class Crowd:
    """Prompts that arrive together, each continued by num_new tokens."""

    prompts: list[list[int]]
    num_new: int


@dataclass(frozen=True)
class Measurement:
    """One run. all_started: seconds until every request had its first token; decode: tokens per second from then on."""

    total_seconds: float
    all_started_seconds: float
    decode_tokens_per_second: float


_COLUMNS = ("", "total s", "all started s", "decode tok/s")
MakeCrowd = Callable[[RandomTokens, int | None], Crowd]


def _single(tokens: RandomTokens, rows: int | None) -> Crowd:
    return Crowd([tokens(512) for _ in range(rows or 1)], 128)


def _batch(tokens: RandomTokens, rows: int | None) -> Crowd:
    return Crowd([tokens(16 + index % 32) for index in range(rows or 32)], 64)


def _agents(tokens: RandomTokens, rows: int | None) -> Crowd:
    system = tokens(1024)
    return Crowd([system + tokens(64) for _ in range(rows or 16)], 64)


def _measure(name: str, make_crowd: MakeCrowd, options: Options) -> Result:
    """Measure both, in turns because machines are noisy, after a short run of each that warms it up."""
    loaded, rival = options.load(), options.load()
    crowd = make_crowd(RandomTokens(loaded.vocab_size), options.rows)
    check_context(loaded, max(map(len, crowd.prompts)) + crowd.num_new, name)
    warm_up = Crowd([prompt[:16] for prompt in crowd.prompts[:2]], 4)
    _run_ours(loaded, warm_up)
    _run_peer(rival, warm_up)
    runs = [(_run_ours(loaded, crowd), _run_peer(rival, crowd)) for _ in range(options.repeats or 1)]
    mine, theirs = _best([mine for mine, _ in runs]), peer.best([theirs for _, theirs in runs], _best)
    return _result(name, crowd, mine, theirs)


def _run_ours(loaded: LoadedModel, crowd: Crowd) -> Measurement:
    with Engine(loaded, ours.config_for(len(crowd.prompts))) as engine:
        return _read(ours.stream_all(engine, crowd.prompts, crowd.num_new), crowd)


@peer.unless_out_of_memory
def _run_peer(loaded: LoadedModel, crowd: Crowd) -> Measurement:
    return _read(peer.stream_all(loaded.model, crowd.prompts, crowd.num_new), crowd)


def _read(arrivals: Arrivals, crowd: Crowd) -> Measurement:
    requests = range(len(crowd.prompts))
    assert all(arrivals.count(request) == crowd.num_new for request in requests), "a request got too few tokens"
    all_started = max(arrivals.first(request) for request in requests)
    end = max(arrivals.last(request) for request in requests)
    return Measurement(end, all_started, arrivals.num_after(all_started) / max(end - all_started, 1e-9))


def _best(runs: list[Measurement]) -> Measurement:
    return Measurement(
        min(run.total_seconds for run in runs),
        min(run.all_started_seconds for run in runs),
        max(run.decode_tokens_per_second for run in runs),
    )


def _result(name: str, crowd: Crowd, mine: Measurement, theirs: Measurement | None) -> Result:
    ratios = None if theirs is None else _ratios(mine, theirs)
    rows = [_row(OURS, mine), row_without_memory(PEER, _COLUMNS) if theirs is None else _row(PEER, theirs)]
    if ratios is not None:
        rows.append(("times as fast", *(f"{ratio:.2f}x" for ratio in ratios.values())))
    return Result(
        title=f"{name}: {len(crowd.prompts)} requests, {crowd.num_new} new tokens each",
        columns=_COLUMNS,
        rows=rows,
        numbers={
            "requests": len(crowd.prompts),
            "new_tokens": crowd.num_new,
            "ours": asdict(mine),
            "mlx_lm": None if theirs is None else asdict(theirs),
            "mlx_lm_failure": OUT_OF_MEMORY if theirs is None else None,
            "ratios": ratios,
        },
        charts=_charts({OURS: mine} | ({} if theirs is None else {PEER: theirs})),
        headline=Headline(
            f"{_requests(len(crowd.prompts))} of {_lengths(crowd)} tokens, {crowd.num_new} new each: total",
            mine.total_seconds,
            None if theirs is None else theirs.total_seconds,
        ),
    )


def _requests(number: int) -> str:
    return f"{number} requests" if number > 1 else "1 request"


def _lengths(crowd: Crowd) -> str:
    shortest, longest = (choose(map(len, crowd.prompts)) for choose in (min, max))
    return str(longest) if shortest == longest else f"{shortest} to {longest}"


def _ratios(mine: Measurement, theirs: Measurement) -> dict[str, float]:
    return {
        "total": theirs.total_seconds / mine.total_seconds,
        "all started": theirs.all_started_seconds / mine.all_started_seconds,
        "decode": mine.decode_tokens_per_second / theirs.decode_tokens_per_second,
    }


def _row(label: str, run: Measurement) -> tuple[str, ...]:
    return (label, *(f"{number:.2f}" for number in asdict(run).values()))


def _charts(runs: dict[str, Measurement]) -> list[Chart]:
    seconds = {label: [run.total_seconds, run.all_started_seconds] for label, run in runs.items()}
    decode = {label: [run.decode_tokens_per_second] for label, run in runs.items()}
    return [
        Bars("less is better", "seconds", ["total", "all started"], seconds),
        Bars("more is better", "tokens a second", ["decode"], decode),
    ]


_TAKES = frozenset({"model", "rows", "repeats"})

SINGLE = Workload("single", _TAKES, partial(_measure, "single", _single))
BATCH = Workload("batch", _TAKES, partial(_measure, "batch", _batch))
AGENTS = Workload("agents", _TAKES, partial(_measure, "agents", _agents))
