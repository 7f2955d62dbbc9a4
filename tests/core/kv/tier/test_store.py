"""A tier on disk: what was written is read, and whatever happens to its files is a miss at worst."""

import json
import os
import random
import shutil
import stat
from pathlib import Path
from typing import NamedTuple

import pytest
from xxhash import xxh3_128_hexdigest

from mlx_agent_llm import KVTierError
from mlx_agent_llm.core.kv.tier.catalogue import ROOT
from mlx_agent_llm.core.kv.tier.inspection import faults_in, prune, usage_of
from mlx_agent_llm.core.kv.tier.store import TierStore
from mlx_agent_llm.core.kv.tier.writer import BackgroundWriter
from tests.support.tiers import content_of, is_right, key_of, open_store, parts_of, put, small_disk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kv"


def keys_of(chain: int, count: int) -> list[bytes]:
    return [key_of(chain, i) for i in range(count)]


def num_found(store: TierStore, chain: int, count: int) -> int:
    """How many leading entries of a chain are read; what is read has to be right."""
    contents = store.read(keys_of(chain, count))
    assert all(is_right(key, content) for key, content in zip(keys_of(chain, count), contents, strict=True))
    return next((i for i, content in enumerate(contents) if content is None), count)


def test_what_one_process_wrote_the_next_one_reads(path: Path) -> None:
    store = open_store(path)
    assert put(store, 0, 0, 3) and put(store, 0, 3, 5)
    store.close()
    assert num_found(open_store(path), 0, 5) == 5


def test_the_folder_and_its_files_are_their_owner_s_alone(path: Path) -> None:
    store = open_store(path)
    put(store, 0, 0, 3)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in path.iterdir()} == {0o600}


def test_one_process_writes_and_others_read_what_it_writes(path: Path) -> None:
    writer, reader = open_store(path), open_store(path)
    assert writer.is_writer and not reader.is_writer
    put(writer, 0, 0, 3)
    assert not put(reader, 1, 0, 3)
    reader.refresh()
    assert num_found(reader, 0, 3) == 3
    writer.close()
    assert put(reader, 1, 0, 3), "the next one writes when the first one has ended"
    assert num_found(reader, 0, 3) == 3


def test_a_reader_whose_segments_were_evicted_misses_them(path: Path) -> None:
    writer = open_store(path, max_bytes=1000)
    put(writer, 0, 0, 3)
    reader = open_store(path, max_bytes=1000)
    for chain in range(1, 4):
        assert put(writer, chain, 0, 3)
    assert num_found(reader, 0, 3) == 0


def test_what_follows_nothing_that_is_there_is_not_written(path: Path) -> None:
    store = open_store(path)
    assert not put(store, 0, 3, 5)
    assert store.num_bytes == 0


def test_files_that_are_no_segments_are_left_alone(path: Path) -> None:
    path.mkdir(mode=0o700)
    names = ["notes.txt", "seg-1.kv", "seg-" + "0" * 31 + "x.kv", "a.tmp"]
    for name in names:
        (path / name).write_text("mine")
    store = open_store(path, max_bytes=1000)
    for chain in range(4):
        put(store, chain, 0, 3)
    store.close()
    assert all((path / name).read_text() == "mine" for name in names)


def test_a_damaged_manifest_is_made_anew_of_the_segments(path: Path) -> None:
    store = open_store(path)
    put(store, 0, 0, 3)
    store.close()
    (path / "manifest").write_bytes(b"nothing of use")
    store = open_store(path)
    assert num_found(store, 0, 3) == 3
    store.close()
    assert faults_in(path) == []


def test_what_an_ended_writer_left_is_removed_by_the_next_one(path: Path) -> None:
    store = open_store(path)
    put(store, 0, 0, 3)
    store.close()
    (segment,) = path.glob("*.kv")
    left = [path / f"seg-{'a' * 32}.kv.tmp", path / f"seg-{'b' * 32}.kv"]
    for each in left:
        shutil.copy(segment, each)
    open_store(path).close()
    assert not any(each.exists() for each in left)
    assert segment.exists()


def test_a_tier_of_a_newer_format_is_refused(path: Path) -> None:
    open_store(path).close()
    body = json.dumps({"format": 2}).encode()
    (path / "manifest").write_bytes(xxh3_128_hexdigest(body).encode() + b"\n" + body)
    with pytest.raises(KVTierError, match="a tier of format 2, and this version reads format 1 only"):
        open_store(path)


def test_a_newer_version_that_takes_over_meanwhile_ends_the_writing(path: Path) -> None:
    writer, reader = open_store(path), open_store(path)
    put(writer, 0, 0, 3)
    reader.refresh()
    body = json.dumps({"format": 2}).encode()
    (path / "manifest").write_bytes(xxh3_128_hexdigest(body).encode() + b"\n" + body)
    reader.refresh()
    assert num_found(reader, 0, 3) == 0
    assert not put(reader, 1, 0, 3)
    assert "format 2" in str(reader.fault)


@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702])
def test_a_folder_that_others_may_write_to_is_refused(path: Path, mode: int) -> None:
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(KVTierError, match="nobody else owns or may write to"):
        open_store(path)


def test_a_path_that_is_no_folder_is_refused(path: Path) -> None:
    path.write_text("a file")
    with pytest.raises(KVTierError, match=r"kv_tier=.* cannot be used: File exists"):
        open_store(path)


@pytest.mark.parametrize("stride", [29, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", ["segment", "manifest"])
def test_each_flipped_bit_is_found_and_never_read(path: Path, name: str, stride: int) -> None:
    store = open_store(path)
    put(store, 0, 0, 3, length=10)
    store.close()
    (segment,) = path.glob("*.kv")
    wholes = {each: each.read_bytes() for each in (segment, path / "manifest")}
    file = segment if name == "segment" else path / name
    for spot in range(0, 8 * len(wholes[file]), stride):
        for each, whole in wholes.items():
            each.write_bytes(whole)
        flip(file, spot)
        if name == "manifest":
            with pytest.raises(KVTierError, match="its manifest is damaged"):
                faults_in(path)
        else:
            assert len(faults_in(path)) == 1
        reader = open_store(path)
        assert num_found(reader, 0, 3) < 3 if name == "segment" else num_found(reader, 0, 3) == 3
        reader.close()


def flip(file: Path, bit: int) -> None:
    whole = bytearray(file.read_bytes())
    whole[bit // 8] ^= 1 << bit % 8
    file.write_bytes(whole)


def test_a_file_that_was_cut_anywhere_is_a_miss(path: Path) -> None:
    store = open_store(path)
    put(store, 0, 0, 3, length=20)
    store.close()
    (segment,) = path.glob("*.kv")
    whole = segment.read_bytes()
    manifest = (path / "manifest").read_bytes()
    for length in range(0, len(whole), 5):
        segment.write_bytes(whole[:length])
        (path / "manifest").write_bytes(manifest)
        assert len(faults_in(path)) == 1
        assert num_found(open_store(path), 0, 3) == 0


def test_what_is_cut_while_a_process_knows_it_is_a_miss_with_all_that_follows(path: Path) -> None:
    store = open_store(path)
    put(store, 0, 0, 3)
    put(store, 0, 3, 5)
    first = min(path.glob("*.kv"), key=lambda each: -each.stat().st_size)
    os.truncate(first, first.stat().st_size - 1)
    assert num_found(store, 0, 5) == 0
    assert store.num_bytes == 0
    assert put(store, 0, 0, 5), "it is written again"
    assert num_found(store, 0, 5) == 5


def test_a_folder_that_is_removed_under_way_ends_the_writing_and_harms_nothing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(path)
    put(store, 0, 0, 3)
    shutil.rmtree(path)
    assert num_found(store, 0, 3) == 0
    assert not put(store, 0, 0, 3) and not put(store, 0, 0, 3)
    assert store.fault is not None
    assert sum("nothing more is written" in record.message for record in caplog.records) == 1
    store.refresh()
    store.close()


def test_a_folder_that_another_one_took_the_place_of_is_written_no_more_and_the_other_one_is_left_alone(
    path: Path,
) -> None:
    store = open_store(path)
    put(store, 0, 0, 3)
    path.rename(path.with_name("moved"))
    other = open_store(path)
    assert other.is_writer and put(other, 1, 0, 3)
    files = {each: each.read_bytes() for each in path.iterdir()}
    assert not put(store, 0, 3, 5)
    assert store.fault == "the folder was replaced by another one"
    store.close()
    assert {each: each.read_bytes() for each in path.iterdir()} == files


def test_a_full_disk_ends_the_writing_and_what_is_there_is_read_on(path: Path) -> None:
    with small_disk(path, "64k"):
        store = open_store(path)
        written = [put(store, chain, 0, 10, length=500) for chain in range(20)]
        assert store.fault == "the disk is full"
        assert written == sorted(written, reverse=True) and any(written)
        assert sum(num_found(store, chain, 10) for chain in range(20)) == 10 * sum(written)
        store.close()


def test_a_write_that_breaks_off_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(path)
    write, num_written = os.write, 0

    def break_off(descriptor: int, view: memoryview) -> int:
        nonlocal num_written
        num_written += 1
        if num_written == 3:
            raise OSError(28, "No space left on device")
        return write(descriptor, view)

    monkeypatch.setattr(os, "write", break_off)
    assert not put(store, 0, 0, 5)
    assert store.fault == "No space left on device"
    assert [each.name for each in path.iterdir()] == ["lock"]


def test_clocks_that_jump_change_nothing(path: Path) -> None:
    writer, reader = open_store(path), open_store(path)
    for chain, moment in enumerate([2**31, 0, 10**9]):
        put(writer, chain, 0, 3)
        os.utime(path / "manifest", (moment, moment))
        reader.refresh()
        assert num_found(reader, chain, 3) == 3


def test_the_least_recently_used_chain_goes_first_and_its_end_before_its_head(path: Path) -> None:
    store = open_store(path, max_bytes=2000)
    for chain in range(2):
        assert put(store, chain, 0, 3) and put(store, chain, 3, 5)
    store.touch(keys_of(0, 5))
    assert put(store, 2, 0, 3)
    assert num_found(store, 0, 5) == 5
    assert num_found(store, 1, 5) == 3


def test_what_is_forgotten_is_gone_with_all_that_follows_it_also_for_the_next_process(path: Path) -> None:
    store = open_store(path)
    put(store, 0, 0, 3)
    put(store, 0, 3, 5)
    put(store, 1, 0, 3)
    store.forget([key_of(0, 1)])
    assert (num_found(store, 0, 5), num_found(store, 1, 3)) == (0, 3)
    store.close()
    store = open_store(path)
    assert (num_found(store, 0, 5), num_found(store, 1, 3)) == (0, 3)


def test_a_reader_forgets_for_itself_alone(path: Path) -> None:
    writer = open_store(path)
    put(writer, 0, 0, 3)
    reader = open_store(path)
    reader.clear()
    put(writer, 1, 0, 3)
    reader.refresh()
    assert (num_found(reader, 0, 3), num_found(reader, 1, 3)) == (0, 3)
    assert num_found(writer, 0, 3) == 3


def test_only_a_model_s_own_segments_are_cleared(path: Path) -> None:
    store = open_store(path)
    put(store, 0, 0, 3)
    store.close()
    other = open_store(path, model=b"o" * 16)
    put(other, 1, 0, 3)
    other.clear()
    assert (num_found(other, 0, 3), num_found(other, 1, 3)) == (3, 0)


def test_a_list_tells_models_and_sizes_and_no_keys(path: Path) -> None:
    store = open_store(path)
    put(store, 0, 0, 3)
    put(store, 0, 3, 5)
    store.close()
    [usage] = usage_of(path)
    assert (usage.description, usage.num_segments, usage.num_entries) == ("a model", 2, 5)
    assert usage.num_bytes == sum(each.stat().st_size for each in path.glob("*.kv"))


def test_pruning_evicts_down_to_a_size_unless_another_process_writes(path: Path) -> None:
    store = open_store(path)
    for chain in range(4):
        put(store, chain, 0, 3)
    with pytest.raises(KVTierError, match="written by another process"):
        prune(path, 0)
    size = store.num_bytes
    store.close()
    assert prune(path, size // 2) == size // 2
    assert prune(path, 0) == size // 2
    assert list(path.glob("*.kv")) == []
    assert usage_of(path) == []


def test_a_folder_without_a_tier_is_refused_by_the_inspection(tmp_path: Path) -> None:
    with pytest.raises(KVTierError, match="holds no KV"):
        usage_of(tmp_path)


def test_the_background_writer_writes_in_order_and_ends_with_all_written(path: Path) -> None:
    store = open_store(path)
    writer = BackgroundWriter(store)
    for begin in range(0, 50, 5):
        parent = key_of(0, begin - 1) if begin else ROOT
        writer.submit(parent, parts_of(0, range(begin, begin + 5)))
    writer.close()
    assert writer.is_idle
    assert num_found(store, 0, 50) == 50
    assert writer.num_written_bytes == 50 * 100


class _Chain(NamedTuple):
    number: int
    length: int


@pytest.mark.parametrize(
    "num_operations", [600, pytest.param(1_000_000, marks=[pytest.mark.long, pytest.mark.timeout(7200)])]
)
def test_no_chain_loses_its_head_and_no_bound_is_broken_in_random_operations(path: Path, num_operations: int) -> None:
    rng, max_bytes = random.Random(num_operations), 12_000
    store = open_store(path, max_bytes)
    for number in range(num_operations):
        chain = rng.randrange(12)
        match rng.choices(["grow", "read", "touch", "forget", "restart", "damage"], [10, 10, 5, 0.3, 0.3, 0.3])[0]:
            case "grow":
                begin = num_found(store, chain, 30)
                if begin < 30:
                    put(store, chain, begin, min(begin + rng.randint(1, 6), 30), length=rng.choice([0, 50, 300]))
            case "read":
                num_found(store, chain, 30)
            case "touch":
                store.touch(keys_of(chain, rng.randint(0, 30)))
            case "forget":
                store.forget([key_of(chain, rng.randint(0, 29))])
            case "restart":
                store.close()
                store = open_store(path, max_bytes)
            case "damage" if files := sorted(path.glob("*.kv")):
                damage(rng.choice(files), rng)
        assert store.num_bytes <= max_bytes
        assert store.fault is None
        if number % 50 == 0:
            there = [[store.has(key) for key in keys_of(each, 30)] for each in range(12)]
            assert all(found == sorted(found, reverse=True) for found in there), "a chain without its head"
    store.close()


def damage(file: Path, rng: random.Random) -> None:
    """Flip a bit, cut the end off, or remove it."""
    match rng.choice(["flip", "cut", "remove"]):
        case "flip":
            flip(file, rng.randrange(8 * file.stat().st_size))
        case "cut":
            os.truncate(file, rng.randrange(file.stat().st_size))
        case "remove":
            file.unlink()


def test_contents_follow_from_keys() -> None:
    assert not is_right(key_of(0, 0), content_of(key_of(0, 1)))
