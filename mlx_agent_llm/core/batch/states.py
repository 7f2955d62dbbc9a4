"""What recurrent layers make of a schedule: which tokens take a state on by one, and in which order the others follow.

A row is a token whose state stands in a slot when the forward begins. All rows are one call of a layer's module.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlx_agent_llm.core.batch.batch import StateBatch, StateChunk, StateRows
from mlx_agent_llm.core.schedule.schedule import Chunk, Schedule


def put_rows_first(schedule: Schedule) -> list[Chunk]:
    """A schedule's single tokens, those first that are rows here."""
    made = _made_slots(schedule.chunks)
    return sorted(schedule.rows, key=lambda chunk: not _is_row(chunk, made))


def are_rows_alone(schedule: Schedule) -> bool:
    """Whether every token of a schedule is a row here."""
    made = _made_slots(schedule.chunks)
    return all(_is_row(chunk, made) for chunk in schedule.chunks)


def state_batch(chunks: Sequence[Chunk], num_idle: int, empty_slots: frozenset[int]) -> StateBatch:
    """The states of packed chunks, of which the rows come first; idle rows follow where there is nothing else."""
    made = _made_slots(chunks)
    rows = [chunk.request.kv.state_spans[0] for chunk in chunks if _is_row(chunk, made)]
    begin = len(rows)
    waiting: list[StateChunk] = []
    for chunk in chunks[begin:]:
        waiting += _spans(chunk, begin)
        begin += chunk.length
    sources = tuple(row.source for row in rows if row.source is not None)
    targets = tuple(row.target for row in rows if row.target is not None)
    return StateBatch(
        StateRows(len(rows) + num_idle, sources, targets) if rows else None,
        tuple(_in_order(waiting)),
        empty_slots,
    )


def _made_slots(chunks: Sequence[Chunk]) -> set[int | None]:
    """Slots whose states the forward itself makes, from others or from nothing."""
    return {span.target for chunk in chunks for span in chunk.request.kv.state_spans if span.source != span.target}


def _is_row(chunk: Chunk, made: set[int | None]) -> bool:
    spans = chunk.request.kv.state_spans
    return chunk.length == 1 and bool(spans) and spans[0].source is not None and spans[0].source not in made


def _spans(chunk: Chunk, begin: int) -> list[StateChunk]:
    """The spans of a chunk that begins at packed token `begin`; one that nobody waits for has none of its own."""
    shift = begin - chunk.start
    spans = [StateChunk(s.begin + shift, s.end + shift, s.source, s.target) for s in chunk.request.kv.state_spans]
    return spans or [StateChunk(begin, begin + chunk.length, None, None)]


def _in_order(waiting: list[StateChunk]) -> list[StateChunk]:
    """Chunks after those whose targets they go on from."""
    ordered: list[StateChunk] = []
    while waiting:
        pending = {chunk.target for chunk in waiting if chunk.source != chunk.target}
        ordered += [chunk for chunk in waiting if chunk.source is None or chunk.source not in pending]
        waiting = [chunk for chunk in waiting if chunk.source is not None and chunk.source in pending]
    return ordered
