"""The notebook of examples/: it is stored as it was executed, and executing it again says the like."""

import ast
import re

import nbformat
import pytest

from tests.support.notebooks import execute, printed, read_notebook


def check(text: str) -> None:
    assert "'The capital of France is Paris.'" in text
    assert re.search(r"running, \d+ waiting", text) and re.search(r"\d+ used \(\d+ shared\)", text), "the live view"
    assert "'weather'" in text and "sunny in" in text and "City(name=" in text
    [rows, found] = map(int, re.findall(r"(\d+) rows in the largest batch, (\d+)% of prompt tokens", text)[0])
    assert rows == 16 and found > 60


def test_the_notebook_is_stored_as_it_was_executed() -> None:
    notebook = read_notebook()
    nbformat.validate(notebook)  # type: ignore[no-untyped-call]
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in codes] == list(range(1, len(codes) + 1))
    for cell in codes:
        compile(cell.source, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
    assert "await engine.achat" in codes[1].source
    check(printed(notebook))


@pytest.mark.long
@pytest.mark.usefixtures("demo")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # of Jupyter's own client
def test_the_notebook_runs_in_a_new_kernel() -> None:
    check(printed(execute()))
