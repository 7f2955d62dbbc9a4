import pytest
from typer.testing import CliRunner

from mlx_agent_llm.cli.app import app
from mlx_agent_llm.models.served_types import served_types


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


def test_the_table_names_every_type_with_its_layers_or_the_reason_against_it() -> None:
    printed = CliRunner().invoke(app, ["models"]).output
    table = served_types()
    num_served = sum(row.verdict == "equal" for row in table.types)
    assert f"{num_served} of {len(table.types)} model types of mlx-lm {table.mlx_lm} are served" in printed
    for row in table.types:
        assert row.model_type in printed and row.layers in printed and row.reason[:40] in printed


def test_only_types_that_are_asked_for_are_shown() -> None:
    printed = CliRunner().invoke(app, ["models", "gemma3", "bitnet"]).output
    assert "gemma3n" in printed and "bitnet" in printed and "qwen" not in printed


def test_a_type_that_nobody_has_is_an_error() -> None:
    result = CliRunner().invoke(app, ["models", "no-such-type"])
    assert result.exit_code == 2 and "called like no-such-type" in result.output
