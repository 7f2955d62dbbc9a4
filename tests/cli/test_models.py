"""mlx-agent models: on the demo model and on a hub's cache that the tests write."""

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlx_agent_llm.cli.app import app
from mlx_agent_llm.cli.models import cache, recommend
from mlx_agent_llm.cli.models.card import card_of
from mlx_agent_llm.cli.models.fit import Size, max_decode_rate, num_agents
from mlx_agent_llm.cli.models.recommend import KNOWN, recommendations
from mlx_agent_llm.models import LoadedModel
from mlx_agent_llm.models.served_types import served_types
from mlx_agent_llm.process.device_memory import GIB
from tests.cli.test_demo import mlx_agent
from tests.support.fake_hub import NAME, fake_hub

COMMIT = "0123456789012345678901234567890123456789"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub's cache with one model that is served, one that is not, and one that is here in part."""
    for name, model_type, is_complete in (("served", "qwen3", True), ("other", "nobodys", True), ("part", "", False)):
        folder = tmp_path / f"models--a--{name}"
        snapshot = folder / "snapshots" / COMMIT
        snapshot.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(COMMIT)
        (snapshot / "README.md").write_text("x" * 100)
        if is_complete:
            (snapshot / "config.json").write_text(json.dumps({"model_type": model_type}))
            (snapshot / "model.safetensors").write_bytes(bytes(10_000))
    scan, find = cache.scan_cache_dir, cache.snapshot_download
    monkeypatch.setattr(cache, "scan_cache_dir", lambda: scan(tmp_path))
    monkeypatch.setattr(
        "mlx_agent_llm.models.source.snapshot_download",
        lambda name, **options: find(name, cache_dir=tmp_path, **options),
    )
    return tmp_path


def run(*arguments: str, answer: str | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["models", *arguments], input=answer)
    return result.exit_code, result.output if result.exception is None else f"{result.output}{result.exception}"


def test_the_table_names_every_type_with_its_layers_or_the_reason_against_it() -> None:
    _, printed = run("types")
    table = served_types()
    num_served = sum(row.verdict == "equal" for row in table.types)
    assert f"{num_served} of {len(table.types)} model types of mlx-lm {table.mlx_lm} are served" in printed
    for row in table.types:
        assert row.model_type in printed and row.layers in printed and row.reason[:40] in printed


def test_only_types_that_are_asked_for_are_shown() -> None:
    _, printed = run("types", "gemma3", "bitnet")
    assert "gemma3n" in printed and "bitnet" in printed and "qwen" not in printed


def test_a_type_that_nobody_has_is_an_error() -> None:
    code, printed = run("types", "no-such-type")
    assert code == 2 and "called like no-such-type" in printed


def test_the_cache_is_listed_with_what_is_served_and_what_is_not_complete(hub: Path) -> None:
    found = {row.name: row for row in cache.cached_models()}
    assert found["a/served"].is_served == "served" and found["a/served"].num_bytes > 10_000
    assert "no model type 'nobodys'" in found["a/other"].is_served
    assert not found["a/part"].is_complete
    _, printed = run("list", "PART", "served")
    assert "a/part" in printed and "a/served" in printed and "a/other" not in printed


def test_a_model_is_deleted_from_the_cache_when_the_user_agrees(hub: Path) -> None:
    code, printed = run("rm", "a/served", answer="n\n")
    assert code == 1 and "Delete a/served" in printed and (hub / "models--a--served").exists()
    code, printed = run("rm", "a/served", "--yes", "--json", str(hub / "rm.json"))
    assert code == 0 and "free again" in printed
    freed = json.loads((hub / "rm.json").read_text())
    assert freed["model"] == "a/served" and freed["freed_bytes"] > 10_000
    assert {row.name for row in cache.cached_models()} - {"demo"} == {"a/other", "a/part"}


def test_a_model_that_is_not_there_cannot_be_deleted(hub: Path) -> None:
    code, printed = run("rm", "a/nothing", "--yes")
    assert code == 1 and "'a/nothing' is not in the hub's cache" in printed


def test_of_a_type_that_is_not_served_no_weight_is_downloaded(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = hub / "models--a--other" / "snapshots" / COMMIT / "config.json"
    monkeypatch.setattr(cache.HfApi, "model_info", lambda self, name, timeout: None)
    monkeypatch.setattr(cache, "hf_hub_download", lambda name, file: str(config))
    monkeypatch.setattr(cache, "snapshot_download", lambda *args, **options: pytest.fail("weights were asked for"))
    code, printed = run("pull", "a/other")
    assert code == 1 and "model_type='nobodys' is not supported" in printed


def test_a_hub_that_cannot_be_reached_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, name: str, timeout: float) -> None:
        raise ConnectionError("no route\nto the host")

    monkeypatch.setattr(cache.HfApi, "model_info", fail)
    code, printed = run("pull", "a/b")
    assert code == 1 and "'a/b' cannot be downloaded: ConnectionError: no route" in printed


@pytest.mark.long  # the hub's client waits before it asks again
def test_a_download_goes_on_where_its_connection_broke_and_keeps_what_was_whole(tmp_path: Path) -> None:
    weights = bytes(range(256)) * 96 * 1024  # 24 MiB: the hub's client keeps pieces of 10
    files = {"config.json": b'{"model_type": "qwen3"}', "model.safetensors": weights, "notes.bin": b"not of the model"}

    def pull() -> subprocess.CompletedProcess[str]:
        where = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
        code = f"import os; os.environ.update({where!r})"
        return mlx_agent("models", "pull", NAME, "--json", str(tmp_path / "pull.json"), setup=code)

    with fake_hub(files) as hub:
        hub.refuses.add("model.safetensors")
        failed = pull()
        assert failed.returncode == 1 and "cannot be downloaded" in failed.stderr.splitlines()[-1]
        assert "Traceback" not in failed.stderr
        hub.refuses.clear()
        hub.breaks.add("model.safetensors")
        done = pull()
        assert done.returncode == 0, done.stderr
        assert "100%" in done.stderr, "the progress is shown"
    *before, (name, first) = hub.asked
    assert before == [("config.json", 0), ("model.safetensors", 0), ("model.safetensors", 0)]
    assert name == "model.safetensors" and 0 < first <= len(weights) // 2
    path = Path(json.loads((tmp_path / "pull.json").read_text())["path"])
    assert {file.name: file.read_bytes() for file in path.iterdir()} == dict(list(files.items())[:2])


def test_the_card_of_the_demo_model_is_right(demo: LoadedModel) -> None:
    card = card_of("demo")
    assert card["type"] == "llama" and card["context"] == 8192 and card["vocabulary"] == demo.vocab_size
    assert card["layers"] == [{"kind": "3 KV heads of 64, all tokens", "number": 30}]
    assert card["kv_bytes_per_token"] == 30 * 2 * 3 * 64 * 4  # float32 on a CPU
    assert card["tool_format"] == "smollm2" and card["tool_format_source"] == "signs"
    assert run("show", "demo")[0] == 0


def test_what_fits_follows_from_memory_weights_and_kv() -> None:
    size = Size(weights=4 * GIB, read_weights=2 * GIB, token_bytes=2**20, sequence_bytes=GIB)
    assert num_agents(size, 14 * GIB, context=1024) == 3  # 60% of 10 GiB, 2 GiB each
    assert num_agents(size, 3 * GIB, context=1024) == 0
    assert max_decode_rate(size, bandwidth=4 * GIB, context=1024) == 1.0
    assert max_decode_rate(size, bandwidth=4 * GIB, context=1024, num_rows=3) == 1.5


def test_only_models_that_fit_are_recommended_and_all_known_ones_are_served() -> None:
    small = {row["model"] for row in recommendations(2 * GIB, 1e11, 8192, (4,))}
    large = [row["model"] for row in recommendations(512 * GIB, 1e11, 8192, (4, 8, 16))]
    assert small and small < set(large) and len(large) == 3 * len(KNOWN)


def test_the_bound_of_a_decode_rate_is_that_of_the_faster_way_to_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(recommend, "measure_bandwidth", lambda: 2e9)
    monkeypatch.setattr(recommend, "reading_rate", lambda: 3e9)  # as on CPUs, where a copy is slow
    assert run("recommend", "--context", "1024", "--json", str(tmp_path / "fit.json"))[0] == 0
    assert json.loads((tmp_path / "fit.json").read_text())["bandwidth"] == 3e9
    monkeypatch.undo()
    assert recommend.reading_rate() > 0
