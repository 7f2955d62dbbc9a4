"""What can be wrong with kv_tier is named when the engine is made; only "auto" goes on without it."""

import logging
import os
from pathlib import Path

import pytest
from xxhash import xxh3_128_hexdigest

from mlx_agent_llm import EngineConfig, KVTierError, SamplingParams
from mlx_agent_llm.engine.tier import auto_path
from mlx_agent_llm.testing import tiny_model
from tests.support.engines import MakeEngine

PROMPT = list(range(1, 81))


def make_newer(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True)
    body = b'{"format": 2}'
    (path / "manifest").write_bytes(xxh3_128_hexdigest(body).encode() + b"\n" + body)


def test_a_path_that_is_no_folder_is_named(make_engine: MakeEngine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KVTierError, match=r"kv_tier='.*file' cannot be used: File exists"):
        make_engine(kv_tier=str(tmp_path / "file"))
    with pytest.raises(KVTierError, match=r"kv_tier='.*file/kv' cannot be used: Not a directory"):
        make_engine(kv_tier=str(tmp_path / "file" / "kv"))


def test_a_folder_that_cannot_be_written_to_is_named(
    make_engine: MakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access  # root may write anywhere
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    with pytest.raises(KVTierError, match="can be written to"):
        make_engine(kv_tier=str(tmp_path / "kv"))


def test_a_tier_of_a_newer_version_is_refused(make_engine: MakeEngine, tmp_path: Path) -> None:
    make_newer(tmp_path / "kv")
    with pytest.raises(KVTierError, match="a tier of format 2, and this version reads format 1 only"):
        make_engine(kv_tier=str(tmp_path / "kv"))
    assert [file.name for file in (tmp_path / "kv").iterdir()] == ["manifest"]


def test_a_size_below_one_segment_is_refused_with_the_size_of_one(make_engine: MakeEngine, tmp_path: Path) -> None:
    with pytest.raises(KVTierError, match=r"kv_tier_bytes=100 must be at least \d+, which a segment of one block"):
        make_engine(kv_tier=str(tmp_path / "kv"), kv_tier_bytes=100)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kv_tier": ""}, "kv_tier='' must be a path"),
        ({"kv_tier": 3}, "kv_tier=3 must be a path"),
        ({"kv_tier": "kv", "kv_tier_bytes": 0}, "kv_tier_bytes=0 must be at least 1"),
        ({"kv_tier": "kv", "prefix_cache": False}, "needs prefix_cache=True"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EngineConfig(**options)  # type: ignore[arg-type]


def test_auto_is_a_folder_in_the_users_cache_and_the_engine_runs_without_it_where_it_cannot_be_used(
    make_engine: MakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert auto_path() == tmp_path / "mlx_agent_llm" / "kv"
    engine = make_engine(kv_tier="auto")
    assert engine.stats().tier is not None
    engine.close()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    make_newer(auto_path())
    with caplog.at_level(logging.WARNING):
        engine = make_engine(kv_tier="auto")
    assert engine.stats().tier is None
    assert sum("without a tier for KV" in record.message for record in caplog.records) == 1
    [output] = engine.generate([PROMPT], SamplingParams(max_tokens=1))
    assert len(output.token_ids) == 1


def test_engines_of_one_model_find_each_others_kv_and_those_of_other_weights_or_blocks_do_not(
    make_engine: MakeEngine, tmp_path: Path
) -> None:
    def cached_tokens(seed: int = 0, **options: object) -> int:
        engine = make_engine(tiny_model(seed=seed), kv_tier=str(tmp_path / "kv"), **options)
        [output] = engine.generate([PROMPT], SamplingParams(max_tokens=1))
        engine.close()
        return output.usage.cached_tokens

    assert cached_tokens() == 0
    assert cached_tokens() == 64
    assert cached_tokens(seed=1) == 0
    assert cached_tokens(block_size=8) == 0
