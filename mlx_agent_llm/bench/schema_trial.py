"""One schema on one side: what it takes to the first mask and from token to token, and which texts it lets through.

A side works in a process of its own, which is ended where a schema takes too long: nothing else stops a compilation.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from mlx_agent_llm.bench.json_compilers import Compile, Reader, Side, Vocabulary, compiler_of
from mlx_agent_llm.constrain.backends.cursor import Bitmask

SCHEMA_TIMEOUT = 10.0  # seconds for a schema with all its texts
NUM_MASKS = 200  # of a text at most
READY = "ready"


class Task(NamedTuple):
    """A schema, and texts of valid and of invalid values as tokens."""

    schema: dict[str, Any]
    valid: Sequence[Sequence[int]]
    invalid: Sequence[Sequence[int]]


class Outcome(NamedTuple):
    """What a side made of a task; seconds from the schema to the first mask, and for each further one.

    refusal: why there is no mask; empty where there is one. gave_up: whether that is no answer of the side, but that it
    took too long or fell over. num_lost: valid texts that are not let through; num_wrong:
    invalid ones that are.
    """

    refusal: str = ""
    first_mask: float = 0.0
    masks: Sequence[float] = ()
    num_lost: int = 0
    num_wrong: int = 0
    gave_up: bool = False


class SideProcess:
    """A side in a process of its own, which begins anew after a schema that took too long; ended by `with`."""

    def __init__(self, side: Side, vocabulary: Vocabulary) -> None:
        self._arguments = side, vocabulary
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    def run(self, task: Task) -> Outcome:
        """What the side makes of a task within SCHEMA_TIMEOUT."""
        try:
            self._connection.send(task)
            if self._connection.poll(SCHEMA_TIMEOUT):
                outcome: Outcome = self._connection.recv()
                return outcome
            refusal = f"not within {SCHEMA_TIMEOUT:.0f} s"
        except (EOFError, OSError):
            refusal = "the process ended"
        self._stop()
        self._start()
        return Outcome(refusal, gave_up=True)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, *self._arguments), daemon=True)
        self._process.start()
        other.close()
        assert self._connection.recv() == READY

    def _stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


def _serve(connection: Connection, side: Side, vocabulary: Vocabulary) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # xgrammar writes its warnings there, from C++
    compile_schema = compiler_of(side, vocabulary)
    compile_schema({"const": 0})  # imports the library and reads the vocabulary
    connection.send(READY)
    while True:
        connection.send(try_schema(compile_schema, vocabulary.vocab_size, connection.recv()))


def try_schema(compile_schema: Compile, vocab_size: int, task: Task) -> Outcome:
    """Compile the schema anew and read the texts; what the side raises is a refusal."""
    row = np.zeros((1, (vocab_size + 31) // 32), np.int32)
    begin = time.perf_counter()
    try:
        make_reader = compile_schema(task.schema)
        make_reader().fill(row)
        first_mask = time.perf_counter() - begin
        masks = list[float]()
        num_lost = sum(not _reads(make_reader(), text, row, masks) for text in task.valid)
        num_wrong = sum(_reads(make_reader(), text) for text in task.invalid)
    except Exception as error:  # each library has its own
        return Outcome(refusal=f"{type(error).__name__}: {error}"[:200])
    return Outcome("", first_mask, masks, num_lost, num_wrong)


def _reads(reader: Reader, text: Sequence[int], row: Bitmask | None = None, masks: list[float] | None = None) -> bool:
    """Whether a text is let through; with a row, the masks on the way are filled and timed."""
    for position, token_id in enumerate(text):
        if row is not None and masks is not None and position < NUM_MASKS:
            begin = time.perf_counter()
            reader.fill(row)
            masks.append(time.perf_counter() - begin)
        if not reader.accept(token_id):
            return False
    return reader.is_complete
