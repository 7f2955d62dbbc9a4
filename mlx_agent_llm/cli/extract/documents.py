"""Which files are documents, which of them are done, and what is written of each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

SUFFIXES = (".txt", ".md")  # of what is read in a folder


def find_documents(paths: Sequence[Path]) -> list[Path]:
    """Files as they are given, and those of folders by name; none twice. What does not exist is a BadParameter."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found |= dict.fromkeys(file for file in sorted(path.rglob("*")) if file.suffix in SUFFIXES)
        elif path.exists():
            found[path] = None
        else:
            raise typer.BadParameter(f"{path} does not exist", param_hint="FILES")
    if not found:
        raise typer.BadParameter(f"no {' or '.join(SUFFIXES)} file in {', '.join(map(str, paths))}", param_hint="FILES")
    return list(found)


def done_documents(output: Path) -> set[str]:
    """The documents that a file of lines holds. A last line that was cut off when it was written is taken away."""
    if not output.parent.is_dir():
        raise typer.BadParameter(f"{output.parent} is no folder", param_hint="--output")
    if not output.exists():
        return set()
    if not output.is_file():  # a device would be read for ever
        raise typer.BadParameter(f"{output} is no file", param_hint="--output")
    text = output.read_text(encoding="utf-8")
    whole, newline, rest = text.rpartition("\n")
    if rest:
        output.write_text(whole + newline, encoding="utf-8")
    return {_document_of(line, output) for line in whole.splitlines() if line}


def line_of(document: Path, value: Any) -> str:
    """What is written of a document."""
    return json.dumps({"document": str(document), "value": value}, ensure_ascii=False) + "\n"


def _document_of(line: str, output: Path) -> str:
    try:
        return str(json.loads(line)["document"])
    except (ValueError, KeyError, TypeError):
        problem = f"{output} has a line that this command did not write: {line[:60]}"
        raise typer.BadParameter(problem, param_hint="--output") from None


def read_documents(paths: Sequence[Path]) -> Iterator[tuple[Path, str | OSError | UnicodeDecodeError]]:
    """Each document's text, or what keeps it from being read."""
    for path in paths:
        try:
            yield path, path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            yield path, error
