"""mlx-agent kv: on folders that the tests write."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlx_agent_llm.cli.app import app
from tests.support.tiers import key_of, open_store, put


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "kv"
    store = open_store(path)
    assert put(store, 0, 0, 10) and put(store, 1, 0, 10)
    store.close()
    return path


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["kv", *map(str, arguments)], env={"COLUMNS": "300"})
    return result.exit_code, result.stdout if result.exception is None else f"{result.stdout}{result.exception}"


def test_list_tells_models_and_sizes_and_no_keys(folder: Path) -> None:
    code, printed = run("list", folder, "--json", "-")
    found = json.loads(printed)
    assert code == 0
    assert [(model["description"], model["num_entries"]) for model in found["models"]] == [("a model", 20)]
    assert found["bytes"] == sum(file.stat().st_size for file in folder.glob("*.kv"))
    assert key_of(0, 0).hex() not in printed
    assert "a model" in run("list", folder)[1]


def test_prune_leaves_no_more_than_it_was_told(folder: Path) -> None:
    before = json.loads(run("list", folder, "--json", "-")[1])["bytes"]
    code, printed = run("prune", folder, "--max-bytes", before - 1, "--json", "-")
    found = json.loads(printed)
    assert (code, found["bytes"] + found["deleted_bytes"]) == (0, before)
    assert found["bytes"] == before // 2
    assert run("prune", folder)[0] == 2


def test_verify_ends_with_1_where_a_bit_is_wrong(folder: Path) -> None:
    code, printed = run("verify", folder)
    assert code == 0 and "all is as it was written" in printed
    file = next(folder.glob("*.kv"))
    whole = bytearray(file.read_bytes())
    whole[-1] ^= 1
    file.write_bytes(whole)
    code, printed = run("verify", folder, "--json", "-")
    [fault] = json.loads(printed[: printed.rindex("}") + 1])["faults"]
    assert code == 1 and file.name in fault


@pytest.mark.parametrize("command", [["list"], ["prune", "--max-bytes", 0], ["verify"]])
def test_a_folder_without_a_tier_is_named(tmp_path: Path, command: list[object]) -> None:
    code, printed = run(*command, tmp_path)
    assert code == 1 and f"{tmp_path} holds no KV" in printed


def test_the_default_is_the_folder_of_auto(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_agent_llm.cli.kv.folder.auto_path", lambda: folder)
    assert str(folder) in run("list")[1]
