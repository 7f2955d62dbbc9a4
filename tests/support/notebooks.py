"""The notebook of examples/, executed as Jupyter would; `python -m tests.support.notebooks` stores what it printed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "13_notebook.ipynb"
_SECONDS = 300


def read_notebook() -> Any:
    """The notebook as it is stored."""
    return nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]


def execute() -> Any:
    """The notebook with the outputs of a new kernel; an error of a cell is raised."""
    notebook = read_notebook()
    NotebookClient(notebook, timeout=_SECONDS, kernel_name="python3", coalesce_streams=True).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times
        if cell.cell_type == "code":  # warnings about the machine's own Jupyter
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def printed(notebook: Any) -> str:
    """All texts that its cells gave."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "\n".join(output.get("text") or output["data"]["text/plain"] for output in outputs)


if __name__ == "__main__":
    sys.exit(nbformat.write(execute(), NOTEBOOK))  # type: ignore[no-untyped-call]
