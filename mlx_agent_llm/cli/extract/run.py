"""All documents at once on one engine, each as a request of its own; lines are written as they are done."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from mlx_agent_llm.chat import ChatOutput
from mlx_agent_llm.cli.extract.documents import done_documents, find_documents, line_of, read_documents
from mlx_agent_llm.cli.failure import PART_DONE
from mlx_agent_llm.cli.options import write_json
from mlx_agent_llm.cli.schema_argument import read_schema
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.errors import EngineClosedError, MLXAgentError, UnsupportedSchemaError
from mlx_agent_llm.request import JSONSchema, SamplingParams


class Settings(NamedTuple):
    """The options as they were given."""

    schema: str
    files: Sequence[Path]
    output: Path
    model: str
    instruction: str
    strict: bool
    max_tokens: int
    temperature: float
    concurrency: int
    json_file: Path | None


def run(settings: Settings) -> None:
    """Read what is not done yet; exit code 3 if a document was skipped."""
    schema = JSONSchema(read_schema(settings.schema, "SCHEMA"), strict=settings.strict)
    documents = find_documents(settings.files)
    done = done_documents(settings.output)
    left = [path for path in documents if str(path) not in done]
    console = Console(stderr=True)
    console.print(f"{len(documents) - len(left)} documents were done before, {len(left)} are left", highlight=False)
    with _appending(settings.output) as lines, Engine.load(settings.model) as engine:
        work = _Work(engine, schema, settings, lines, console)
        try:
            asyncio.run(work.run(left))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
    num_written = len(left) - len(work.skipped)
    console.print(f"{num_written} are in {settings.output}", markup=False, highlight=False)
    write_json(
        settings.json_file, {"done_before": len(documents) - len(left), "written": num_written, "skipped": work.skipped}
    )
    if work.skipped:
        console.print(f"{len(work.skipped)} were skipped: call again to try those", style="yellow", highlight=False)
        raise typer.Exit(PART_DONE)


@contextmanager
def _appending(output: Path) -> Iterator[TextIO]:
    try:
        with output.open("a", encoding="utf-8") as lines:
            yield lines
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        hint = f"{error.strerror}: what was written is kept, so make room and call again"
        raise OSError(error.errno, hint, str(output)) from None


class _Work:
    """What the documents of one run have in common."""

    def __init__(self, engine: Engine, schema: JSONSchema, settings: Settings, lines: TextIO, console: Console) -> None:
        self.skipped: dict[str, str] = {}  # documents, and why
        self._engine = engine
        self._schema = schema
        self._settings = settings
        self._params = SamplingParams(settings.max_tokens, temperature=settings.temperature)
        self._lines = lines
        self._progress = _progress(console)
        self._slots = asyncio.Semaphore(settings.concurrency)

    async def run(self, paths: Sequence[Path]) -> None:
        """Read them; a schema that the engine refuses ends all."""
        with self._progress:
            task = self._progress.add_task("documents", total=len(paths))
            async with asyncio.TaskGroup() as group:
                for path, text in read_documents(paths):
                    await self._slots.acquire()  # so that no more texts are in memory than are worked on
                    group.create_task(self._one(path, text, task))

    async def _one(self, path: Path, text: str | Exception, task: TaskID) -> None:
        try:
            value = await self._value(text)
        except (EngineClosedError, UnsupportedSchemaError):
            raise
        except (MLXAgentError, OSError, UnicodeDecodeError, _NotReadError) as error:
            self.skipped[str(path)] = str(error)
            self._progress.console.print(f"skipped {path}: {error}", style="yellow", markup=False, highlight=False)
        else:
            self._lines.write(line_of(path, value))
            self._lines.flush()
        finally:
            self._slots.release()
            self._progress.advance(task)

    async def _value(self, text: str | Exception) -> Any:
        if isinstance(text, Exception):
            raise text
        content = f"{self._settings.instruction}\n\n{text}"
        message = {"role": "user", "content": content}
        reply = await self._engine.achat([message], response_format=self._schema, params=self._params)
        return _value_of(reply)


class _NotReadError(Exception):
    """A document whose JSON cannot be used."""


def _value_of(reply: ChatOutput) -> Any:
    if reply.parse_error is not None:
        raise _NotReadError(f"its JSON does not fit the schema: {reply.parse_error}")
    return json.loads(reply.text)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), _PaceColumn())
    return Progress(*columns, console=console)


class _PaceColumn(ProgressColumn):
    """Documents a second since the beginning, and how long the others take at that rate: they end in bursts."""

    def render(self, task: Task) -> Text:
        if not task.completed or not task.elapsed:
            return Text("")
        rate = task.completed / task.elapsed
        return Text(f"{rate:.2f}/s, {timedelta(seconds=round((task.remaining or 0) / rate))} left")
