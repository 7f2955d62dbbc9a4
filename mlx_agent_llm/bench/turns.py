"""turns: one agent and its tool loop, a history that grows by what was generated and what the tool answered."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

from mlx_lm.models.cache import make_prompt_cache

from mlx_agent_llm.bench import ours, peer
from mlx_agent_llm.bench.result import OURS, PEER, Bars, Headline, Result
from mlx_agent_llm.bench.workload import Options, RandomTokens, Workload, check_context
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.models import LoadedModel

NUM_SYSTEM, NUM_TURNS, NUM_ASKED, NUM_NEW = 512, 8, 40, 48


@dataclass(frozen=True)
class Turn:
    """One turn. new_tokens: those of the prompt that no forward had seen; excess: what was computed beyond them."""

    prompt_tokens: int
    found_tokens: int
    computed_tokens: int
    new_tokens: int
    first_token_seconds: float
    total_seconds: float

    @property
    def excess_tokens(self) -> int:
        """Computed though it had been computed before: less than a block when the prefix cache does its work."""
        return self.computed_tokens - self.new_tokens


def _measure(options: Options) -> Result:
    loaded, rival = options.load(), options.load()
    num_tokens = NUM_SYSTEM + NUM_TURNS * (NUM_ASKED + NUM_NEW)
    check_context(loaded, num_tokens, "turns")
    runs = [(_run_ours(loaded), _run_peer(rival)) for _ in range(options.repeats or 1)]
    mine, theirs = (min(side, key=_total) for side in zip(*runs, strict=True))
    return _result(mine, theirs)


def _run_ours(loaded: LoadedModel) -> list[Turn]:
    """Every turn sends the whole history: what of it was computed before is for the engine to find."""
    tokens = RandomTokens(loaded.vocab_size)
    history, turns, num_seen = tokens(NUM_SYSTEM), list[Turn](), 0
    with Engine(loaded, ours.config_for(1)) as engine:
        [_] = engine.generate([RandomTokens(loaded.vocab_size, seed=1)(16)], ours.fixed_length(4))  # warms it up
        for _ in range(NUM_TURNS):
            history += tokens(NUM_ASKED)
            [output] = engine.generate([history], ours.fixed_length(NUM_NEW))
            found = output.usage.cached_tokens
            num_prompt, times = len(history), output.timings
            turns.append(Turn(num_prompt, found, num_prompt - found, num_prompt - num_seen, times.ttft, times.total))
            history += output.token_ids
            num_seen = len(history) - 1  # the last token ended the turn before any forward took it
    return turns


def _run_peer(loaded: LoadedModel) -> list[Turn]:
    """mlx-lm's way: the caller keeps the cache and gives the new tokens alone; it computes the last token, too."""
    tokens = RandomTokens(loaded.vocab_size)
    list(peer.single_tokens(loaded.model, RandomTokens(loaded.vocab_size, seed=1)(16), 4))  # warms it up
    cache: Any = make_prompt_cache(loaded.model)
    asked, turns = tokens(NUM_SYSTEM), list[Turn]()
    for _ in range(NUM_TURNS):
        asked += tokens(NUM_ASKED)
        found, began, moments = int(cache[0].offset), perf_counter(), list[float]()
        for _ in peer.single_tokens(loaded.model, asked, NUM_NEW, cache):
            moments.append(perf_counter() - began)
        turns.append(Turn(found + len(asked), found, len(asked), len(asked), moments[0], moments[-1]))
        asked = []
    return turns


def _total(turns: list[Turn]) -> float:
    return sum(turn.total_seconds for turn in turns)


def _result(mine: list[Turn], theirs: list[Turn]) -> Result:
    ratios = {
        "total": _total(theirs) / _total(mine),
        "first token": sum(t.first_token_seconds for t in theirs) / sum(t.first_token_seconds for t in mine),
    }
    computed, new = (sum(getattr(turn, f"{name}_tokens") for turn in mine) for name in ("computed", "new"))
    return Result(
        title=f"turns: 1 agent, {NUM_TURNS} turns, {NUM_ASKED} tokens asked and {NUM_NEW} generated in each",
        columns=("turn", "prompt", "found", "computed", "excess", "first s", "mlx-lm", "total s", "mlx-lm"),
        rows=[_row(str(index), *pair) for index, pair in enumerate(zip(mine, theirs, strict=True), start=1)]
        + [_row("all", _sum(mine), _sum(theirs))],
        numbers={
            "ours": [_numbers(turn) for turn in mine],
            "mlx_lm": [_numbers(turn) for turn in theirs],
            "computed_tokens": computed,
            "new_tokens": new,
            "ratios": ratios,
        },
        charts=[_computed_chart(mine), _seconds_chart(mine, theirs)],
        notes=[
            f"computed / new tokens: {computed / new:.3f}",
            f"times as fast: {ratios['total']:.2f}x in total, {ratios['first token']:.2f}x to the first tokens",
        ],
        headline=Headline(f"1 agent, {NUM_TURNS} turns of a growing history: total", _total(mine), _total(theirs)),
    )


def _sum(turns: list[Turn]) -> Turn:
    return Turn(**{name: sum(asdict(turn)[name] for turn in turns) for name in asdict(turns[0])})


def _row(label: str, mine: Turn, theirs: Turn) -> tuple[str, ...]:
    counts = (mine.prompt_tokens, mine.found_tokens, mine.computed_tokens, mine.excess_tokens)
    seconds = (mine.first_token_seconds, theirs.first_token_seconds, mine.total_seconds, theirs.total_seconds)
    return (label, *map(str, counts), *(f"{number:.2f}" for number in seconds))


def _numbers(turn: Turn) -> dict[str, float]:
    return asdict(turn) | {"excess_tokens": turn.excess_tokens}


def _labels(turns: list[Turn]) -> list[str]:
    return [str(index) for index in range(1, len(turns) + 1)]


def _computed_chart(mine: list[Turn]) -> Bars:
    values = {name: [getattr(turn, f"{name}_tokens") for turn in mine] for name in ("prompt", "computed", "new")}
    return Bars("ours, by turn", "tokens", _labels(mine), values)


def _seconds_chart(mine: list[Turn], theirs: list[Turn]) -> Bars:
    values = {label: [turn.total_seconds for turn in turns] for label, turns in ((OURS, mine), (PEER, theirs))}
    return Bars("by turn, less is better", "seconds", _labels(mine), values)


TURNS = Workload("turns", frozenset({"model", "repeats"}), _measure)
