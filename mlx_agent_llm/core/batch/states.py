"""What recurrent layers make of a schedule: which tokens take a state on by one, and in which order the others follow.

A row is a token whose state stands in a slot when the forward begins, and whose next one nobody reads before its end.
All rows are one call of a layer's module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mlx_agent_llm.core.batch.batch import StateBatch, StateChunk, StateRows
from mlx_agent_llm.core.schedule.schedule import Chunk, Schedule


class StateOrder:
    """Which single tokens of a step are rows, those first, and what is computed after what."""

    def __init__(self, schedule: Schedule) -> None:
        spans = [span for chunk in schedule.chunks for span in chunk.request.kv.state_spans]
        num_readers = Counter(span.source for span in spans)
        # Written and read in the same step by different spans.
        self._passed_on = {span.target for span in spans if num_readers[span.target] > (span.source == span.target)}
        self._empty_slots = schedule.changes.empty_slots
        self.rows = sorted(schedule.rows, key=lambda chunk: not self._is_row(chunk))
        self.are_alone = not schedule.prompts and all(map(self._is_row, schedule.rows))

    def batch(self, chunks: Sequence[Chunk], num_idle: int) -> StateBatch:
        """The states of packed chunks, of which the rows come first; idle rows follow where there is nothing else."""
        rows = [chunk.request.kv.state_spans[0] for chunk in chunks if self._is_row(chunk)]
        begin = len(rows)
        ordered: list[tuple[int, StateChunk]] = []
        for chunk in chunks[begin:]:
            ordered += _spans(chunk, begin)
            begin += chunk.length
        ordered.sort(key=lambda item: item[0])
        sources = tuple(row.source for row in rows if row.source is not None)
        targets = tuple(row.target for row in rows)
        return StateBatch(
            StateRows(len(rows) + num_idle, sources, targets) if rows else None,
            tuple(span for _, span in ordered),
            self._empty_slots,
        )

    def _is_row(self, chunk: Chunk) -> bool:
        spans = chunk.request.kv.state_spans
        if chunk.length > 1 or not spans or spans[0].source is None:
            return False
        return self._passed_on.isdisjoint((spans[0].source, spans[0].target))


def _spans(chunk: Chunk, begin: int) -> list[tuple[int, StateChunk]]:
    """The spans of a chunk that begins at packed token `begin`, with their numbers; nobody's chunk has one."""
    shift = begin - chunk.start
    spans = chunk.request.kv.state_spans
    if not spans:
        return [(0, StateChunk(begin, begin + chunk.length, None, None))]
    return [(s.number, StateChunk(s.begin + shift, s.end + shift, s.source, s.target)) for s in spans]
