"""What is pinned is held in every group of layers, and takes no room that an open request needs."""

from pathlib import Path

import pytest

from mlx_agent_llm import CapacityError, SamplingParams
from mlx_agent_llm.core.loop import EngineCore
from mlx_agent_llm.request import Request
from tests.core.tiering.test_tiering import assert_is_right, make_core, prompts, run


def pin(core: EngineCore, prompt: list[int], request_id: int = 1000) -> int:
    """How many tokens of a prompt are pinned."""
    request = Request(request_id, prompt, SamplingParams(max_tokens=1, temperature=0), 0, lambda delta: None)
    core.scheduler.reserve_pins([request])
    core.add(request)
    while core.has_work:
        core.step()
    core.check_integrity()
    return core.kv_manager.pins.num_tokens(request_id)


@pytest.mark.parametrize(
    "model_type",
    ["gemma3_text", "mamba2", *(pytest.param(each, marks=pytest.mark.long) for each in ("llama", "qwen3_next"))],
)
def test_all_groups_of_layers_keep_a_pinned_prompt_when_others_need_room_or_memory_is_short(
    tmp_path: Path, model_type: str
) -> None:
    core = make_core(tmp_path / "kv", model_type, kv_cache_tokens=512, max_num_seqs=2, max_state_snapshots=2)
    core._tiering = None  # what comes back from the disk would hide what was lost
    [asked], others = prompts(1), prompts(4, num_common=0, num_own=200)
    assert pin(core, asked) == 128
    for other in others:
        run(core, [other])
    core.relieve_memory()
    [again] = run(core, [asked])
    assert again.num_cached_tokens == 128
    assert_is_right([again], model_type)
    core.kv_manager.pins.drop()
    for other in others:
        run(core, [other])
    [again] = run(core, [asked])
    assert again.num_cached_tokens < 128
    core.close()


def test_pins_take_no_room_from_a_request_that_is_open(tmp_path: Path) -> None:
    core = make_core(tmp_path / "kv", kv_cache_tokens=256)
    core.add(Request(1, [5] * 100, SamplingParams(max_tokens=100), 0, lambda delta: None))
    core.step()
    with pytest.raises(CapacityError, match="request 1 needs room for 200 tokens, and 128 of the 256"):
        pin(core, [*range(128), 1])
    assert not core.kv_manager.pins.hashes
    core.abort(1)
    core.close()


def test_a_prompt_that_fails_or_is_cancelled_keeps_no_room(tmp_path: Path) -> None:
    core = make_core(tmp_path / "kv")
    request = Request(1, [5] * 100, SamplingParams(max_tokens=1), 0, lambda delta: None)
    core.scheduler.reserve_pins([request])
    core.add(request)
    core.abort(1)
    assert not core.kv_manager.pins.hashes
    core.close()


def test_a_pinned_prompt_whose_kv_is_withdrawn_is_pinned_no_longer(tmp_path: Path) -> None:
    core = make_core(tmp_path / "kv")
    [asked] = prompts(1)
    assert pin(core, asked) == 128
    request = Request(2, asked, SamplingParams(max_tokens=4), 0, lambda delta: None)
    core.add(request)
    core.step()
    core.kv_manager.withdraw([request], [])
    assert core.kv_manager.pins.num_tokens(1000) == 0
    core.abort(2)
    core.check_integrity()
    core.close()
