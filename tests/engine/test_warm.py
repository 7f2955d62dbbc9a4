"""Prompts that were warmed stay, whatever else runs, until somebody says otherwise."""

import asyncio
from pathlib import Path

import pytest

from mlx_agent_llm import CapacityError, Engine, RequestError, SamplingParams
from mlx_agent_llm.metrics import exposition
from tests.support.engines import MakeEngine

SYSTEM = list(range(1, 81))  # five blocks
ONE = SamplingParams(max_tokens=1, temperature=0.0)


def crowd(engine: Engine, count: int = 6) -> None:
    """Requests that take the whole pool, one after the other."""
    for number in range(count):
        engine.generate([[200 - number] * 150], ONE)


def cached_tokens(engine: Engine) -> int:
    [output] = engine.generate([[*SYSTEM, 7, 8, 9]], ONE)
    return output.usage.cached_tokens


def test_a_warmed_prompt_is_found_after_others_took_the_pool_and_an_unpinned_one_is_not(
    make_engine: MakeEngine,
) -> None:
    engine = make_engine(kv_cache_tokens=256)
    [pinned] = engine.warm([SYSTEM])
    assert (pinned.num_tokens, pinned.num_cached_tokens, pinned.num_pinned_tokens) == (80, 0, 80)
    assert engine.stats().num_pinned_blocks == 5
    assert b'mlx_agent:kv_blocks_pinned{engine="0",model_name="tiny"} 5.0' in exposition(engine).replace(
        engine.model_name.encode(), b"tiny"
    )
    crowd(engine)
    assert cached_tokens(engine) == 80
    engine.unpin([pinned])
    assert engine.stats().num_pinned_blocks == 0
    crowd(engine)
    assert cached_tokens(engine) == 0


def test_a_prompt_that_is_warmed_twice_is_pinned_until_both_are_unpinned(make_engine: MakeEngine) -> None:
    engine = make_engine(kv_cache_tokens=256)
    [first] = engine.warm([SYSTEM])
    [second] = asyncio.run(engine.awarm([SYSTEM]))
    assert second.num_cached_tokens == 79 // 16 * 16
    assert engine.stats().num_pinned_blocks == 5
    engine.unpin([first])
    crowd(engine)
    assert cached_tokens(engine) == 80
    engine.unpin()
    crowd(engine)
    assert cached_tokens(engine) == 0


def test_pins_take_at_most_half_of_the_pool_and_the_error_says_how_much_that_is(make_engine: MakeEngine) -> None:
    engine = make_engine(kv_cache_tokens=256)
    with pytest.raises(CapacityError, match="144 tokens would be pinned, and at most 128 of the 256"):
        engine.warm([SYSTEM, list(range(100, 164))])
    assert engine.stats().num_pinned_blocks == 0


def test_a_request_for_which_pins_leave_no_room_fails_alone_and_one_that_shares_them_runs(
    make_engine: MakeEngine,
) -> None:
    engine = make_engine(kv_cache_tokens=256)
    engine.warm([SYSTEM])
    with pytest.raises(CapacityError, match="needs room for 240 tokens, and 80 of the 256"):
        engine.generate([[5] * 200], SamplingParams(max_tokens=40))
    [output] = engine.generate([[*SYSTEM, *[5] * 120]], SamplingParams(max_tokens=40, ignore_eos=True))
    assert len(output.token_ids) == 40


def test_chats_are_warmed_with_their_tools(make_engine: MakeEngine) -> None:
    engine = make_engine(kv_cache_tokens=2048, max_model_len=2048)
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
    chat = [{"role": "system", "content": "You are an agent of few words, and of fewer tools."}]
    [without], [with_tools] = engine.warm([chat]), engine.warm([chat], tools=[tool])
    assert with_tools.num_tokens > without.num_tokens
    output = engine.chat([*chat, {"role": "user", "content": "hi"}], params=ONE)
    assert output.usage is not None and output.usage.cached_tokens > 0


def test_a_reset_forgets_pinned_prompts_too(make_engine: MakeEngine) -> None:
    engine = make_engine(kv_cache_tokens=256)
    engine.warm([SYSTEM])
    engine.reset_prefix_cache()
    assert engine.stats().num_pinned_blocks == 0
    assert cached_tokens(engine) == 0


def test_nothing_can_be_warmed_where_nothing_is_kept_and_a_prompt_has_to_stand_in_a_list(
    make_engine: MakeEngine,
) -> None:
    with pytest.raises(RequestError, match="prefix_cache=True"):
        make_engine(prefix_cache=False).warm([SYSTEM])
    with pytest.raises(RequestError, match="put a single one in a list"):
        make_engine().warm("text")
    assert make_engine().warm([]) == []


def test_what_is_pinned_stays_on_the_disk_when_others_have_to_go(make_engine: MakeEngine, tmp_path: Path) -> None:
    probe = make_engine(kv_cache_tokens=256)
    block_bytes = probe.stats().kv_cache_bytes // probe.stats().num_blocks
    settings = {"kv_cache_tokens": 256, "kv_tier": str(tmp_path / "kv"), "kv_tier_bytes": 16 * block_bytes}
    engine = make_engine(**settings)
    engine.warm([SYSTEM])
    crowd(engine)
    engine.close()
    tier = engine.stats().tier
    assert tier is not None and tier.num_written_bytes > 16 * block_bytes
    again = make_engine(**settings)
    [warmed] = again.warm([SYSTEM])
    assert warmed.num_cached_tokens == 79 // 16 * 16
