"""With a tier an engine says what it says without one, whatever becomes of the files, and computes less of it."""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_agent_llm import SamplingParams
from mlx_agent_llm.request import Request
from tests.support.model_types.dimensions import VOCAB_SIZE
from tests.support.tiered_cores import MODELS, NUM_NEW, assert_is_right, block_bytes, make_core, prompts, run, serve
from tests.support.tiers import small_disk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kv"


@pytest.mark.parametrize(
    "model_type",
    [pytest.param(each, marks=pytest.mark.long) if each in ("gpt_oss", "recurrent_gemma") else each for each in MODELS],
)
def test_after_a_restart_a_prompt_is_read_and_not_computed_and_says_the_same(path: Path, model_type: str) -> None:
    [asked] = prompts(1)
    [first] = serve(path, [asked], model_type)
    [again] = serve(path, [asked], model_type)
    assert first.num_cached_tokens == 0
    assert again.num_cached_tokens == 128
    [longer] = serve(path, [asked + [1, 2, 3] * 20], model_type)
    assert longer.num_cached_tokens >= 128


def test_engines_that_group_the_layers_of_one_model_differently_do_not_read_each_others_blocks(path: Path) -> None:
    asked = prompts(2)
    budgets = {"all layers alike": 2048, "windows apart": 64}
    cores = [make_core(path / "0", max_tokens_per_step=budget) for budget in budgets.values()]
    assert [core.kv_manager.windows is None for core in cores] == [True, False]
    for core in cores:
        core.close()
    for budget in (*budgets.values(), *reversed(budgets.values())):
        requests = serve(path / "1", asked, max_tokens_per_step=budget)
    assert [request.num_cached_tokens for request in requests] == [128, 128]


def test_agents_that_arrive_together_read_what_they_share_once(path: Path) -> None:
    asked = prompts(4)
    serve(path, asked)
    core = make_core(path)
    requests = run(core, asked)
    stats = core.stats().tier
    core.close()
    assert_is_right(requests)
    assert stats is not None
    assert [request.num_cached_tokens for request in requests] == [128] * 4
    assert stats.num_read_bytes <= 4 * 8 * block_bytes(core)


def test_what_is_in_memory_is_not_read(path: Path) -> None:
    [asked] = prompts(1)
    core = make_core(path)
    run(core, [asked])
    [again] = run(core, [asked])
    stats = core.stats().tier
    core.close()
    assert again.num_cached_tokens == 128
    assert stats is not None and stats.num_read_bytes == 0


def test_what_was_evicted_from_memory_comes_back_from_the_disk(path: Path) -> None:
    rng = np.random.default_rng(1)
    many = [rng.integers(0, VOCAB_SIZE, 130).tolist() for _ in range(12)]
    core = make_core(path, kv_cache_tokens=512)
    for each in many:
        run(core, [each])
    assert core.stats().num_evictions > 0
    again = run(core, many[:2])
    core.close()
    assert_is_right(again)
    assert [request.num_cached_tokens for request in again] == [128, 128]


def test_the_kv_of_other_weights_is_never_found(path: Path) -> None:
    [asked] = prompts(1)
    serve(path, [asked])
    [other] = serve(path, [asked], model=b"o" * 16)
    assert other.num_cached_tokens == 0


def test_a_salt_holds_on_the_disk(path: Path) -> None:
    [asked] = prompts(1)
    core = make_core(path)
    run(core, [asked], salt="a")
    core.close()
    core = make_core(path)
    found = [run(core, [asked], salt)[0].num_cached_tokens for salt in ("b", None, "a")]
    core.close()
    assert found == [0, 0, 128]


def test_a_reset_forgets_what_is_on_the_disk_too(path: Path) -> None:
    [asked] = prompts(1)
    core = make_core(path)
    run(core, [asked])
    core.reset_prefix_cache()
    [again] = run(core, [asked])
    core.close()
    assert again.num_cached_tokens == 0


def test_a_pool_that_is_too_small_for_all_of_it_takes_no_harm(path: Path) -> None:
    asked = prompts(6, num_common=0, num_own=200)
    serve(path, asked)
    again = serve(path, asked, kv_cache_tokens=224)
    assert sum(request.num_cached_tokens for request in again) > 0


def test_what_is_not_finite_does_not_go_to_the_disk_and_what_fails_is_forgotten_there(path: Path) -> None:
    [asked] = prompts(1)
    core = make_core(path)
    run(core, [asked])
    key = core._tiering._keys.of("full", core.kv_manager.hashes.of(Request(9, asked, SamplingParams(), 0, print), 0))  # type: ignore[union-attr]
    store = core._tiering._store  # type: ignore[union-attr]
    core.close()
    core = make_core(path)
    store = core._tiering._store  # type: ignore[union-attr]
    assert store.has(key)
    with pytest.MonkeyPatch.context() as patch:
        layer = core._runner._layers.paged[0]
        read = type(layer).update_and_fetch

        def spoil(self: object, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
            return read(self, keys * mx.nan, values)  # type: ignore[arg-type]

        patch.setattr(type(layer), "update_and_fetch", spoil)
        request = Request(1, asked, SamplingParams(max_tokens=NUM_NEW, temperature=0), 0, lambda delta: None)
        core.add(request)
        while core.has_work:
            core.step()
    assert request.finish_reason == "error"
    assert not store.has(key)
    core.close()


def damages() -> Iterator[tuple[str, object]]:
    def flip(file: Path, rng: random.Random) -> None:
        whole = bytearray(file.read_bytes())
        whole[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        file.write_bytes(whole)

    yield "flip", flip
    yield "cut", lambda file, rng: os.truncate(file, rng.randrange(file.stat().st_size))
    yield "remove", lambda file, rng: file.unlink()
    yield "empty", lambda file, rng: file.write_bytes(b"")


LONG = [pytest.mark.long, pytest.mark.timeout(3600)]


@pytest.mark.parametrize(
    ("model_type", "num_rounds"),
    [("llama", 1), *(pytest.param(each, 50, marks=LONG) for each in ("llama", "gemma3_text", "qwen3_next"))],
)
def test_whatever_becomes_of_the_files_no_token_is_wrong(path: Path, model_type: str, num_rounds: int) -> None:
    rng, asked = random.Random(0), prompts(3)
    serve(path, asked, model_type)
    for _ in range(num_rounds):
        for _, damage in damages():
            files = sorted(each for each in path.iterdir() if each.name != "lock")
            damage(rng.choice(files), rng)  # type: ignore[operator]
            core = make_core(path, model_type)
            if files and rng.random() < 0.5:  # also after the table was read
                left = sorted(path.glob("*.kv"))
                if left:
                    damage(rng.choice(left), rng)  # type: ignore[operator]
            requests = run(core, asked)
            core.close()
            assert_is_right(requests, model_type)


def test_a_folder_that_is_removed_while_the_engine_runs_harms_nothing(path: Path) -> None:
    asked = prompts(3)
    serve(path, asked)
    core = make_core(path)
    shutil.rmtree(path)
    requests = run(core, asked)
    core.close()
    stats = core.stats().tier
    assert_is_right(requests)
    assert stats is not None and stats.fault is not None


@pytest.mark.long
def test_a_file_system_that_vanishes_while_the_engine_runs_harms_nothing(path: Path) -> None:
    asked = prompts(3)
    with small_disk(path, "16m"):
        serve(path, asked)
        core = make_core(path)
        subprocess.run(["umount", "-l", path], check=True)
        requests = run(core, asked)
        core.close()
    stats = core.stats().tier
    assert_is_right(requests)
    assert stats is not None and stats.fault is not None
    assert not list(path.iterdir()), "what was below it is left alone"


@pytest.mark.long
def test_a_disk_that_is_full_is_read_on(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked = prompts(12, num_common=0, num_own=130)
    with small_disk(path, "300k"):
        serve(path, asked)
        core = make_core(path)
        requests = run(core, asked)
        core.close()
    assert_is_right(requests)
    assert any(request.num_cached_tokens for request in requests)
    assert sum("nothing more is written: the disk is full" in record.message for record in caplog.records) == 2


def test_where_another_process_writes_an_engine_reads(path: Path) -> None:
    asked = prompts(2)
    writer = make_core(path)
    reader = make_core(path)
    run(writer, asked[:1])
    writer.close()
    again = run(reader, asked)
    reader.close()
    assert_is_right(again)
    assert [request.num_cached_tokens for request in again] == [128, 96]
