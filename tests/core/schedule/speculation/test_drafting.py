"""What becomes of drafts on their way through a core: whom they fail, what waits for them, what they leave behind."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from mlx_agent_llm import Engine, JSONSchema, SamplingParams
from mlx_agent_llm.constrain.closing.forced import ForcedText
from mlx_agent_llm.constrain.closing.spelling import Spelling
from mlx_agent_llm.core.kv.prefix_hashes import PrefixHashes
from mlx_agent_llm.core.loop import EngineCore
from mlx_agent_llm.core.reading import Reading
from mlx_agent_llm.core.schedule.jump_forward import JumpForward
from mlx_agent_llm.core.schedule.scheduler import Scheduler
from mlx_agent_llm.core.schedule.speculation.speculation import Speculation
from mlx_agent_llm.request import Draft, Request
from mlx_agent_llm.testing import ByteTokenizer
from tests.support.cores import make_core, run
from tests.support.drafters import Say, ToldDrafter, tell
from tests.support.exact_model import EOS_TOKEN_ID, ExactModel
from tests.support.grammars import PERSON, PushdownMatcher
from tests.support.model_types.tiny import tiny

PROMPTS = [[11 * i * i % 101 for i in range(length)] for length in (9, 20, 14)]
COLORS = JSONSchema({"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 3, "maxItems": 5})


def half_right(expected: Sequence[list[int]]) -> Say:
    """Three tokens, of which the first is right and the second is not."""

    def say(request: Request, count: int) -> list[int]:
        rest = expected[request.request_id][request.num_output_tokens :]
        return [*rest[:1], *((one + 1) % 128 for one in rest[1:3])]

    return say


def test_a_source_that_breaks_fails_its_own_request_and_no_other() -> None:
    expected = run(make_core(tiny("qwen3")), *PROMPTS)
    core = make_core(tiny("qwen3"), speculation=3)

    def say(request: Request, count: int) -> list[int]:
        if request.request_id == 1 and request.num_output_tokens > 2:
            raise RuntimeError("the source broke")
        return half_right(expected)(request, count)

    tell(core, say)
    outputs: list[list[int]] = [[] for _ in PROMPTS]
    errors = list[tuple[int, str]]()
    for index, prompt in enumerate(PROMPTS):
        core.add(Request(index, prompt, SamplingParams(max_tokens=10), 0, lambda delta: None))
    while core.has_work:
        for request, delta in core.step():
            outputs[request.request_id] += delta.token_ids
            errors += [] if delta.error is None else [(request.request_id, str(delta.error))]
    assert errors == [(1, "RuntimeError: the source broke")]
    assert outputs == [expected[0], expected[1][: len(outputs[1])], expected[2]] and len(outputs[1]) > 2
    core.check_integrity()


def test_nothing_of_a_draft_that_was_wrong_is_ever_found_as_a_block() -> None:
    expected = run(make_core(tiny("qwen3")), *PROMPTS)
    core = make_core(tiny("qwen3"), speculation=3, block_size=2)
    tell(core, half_right(expected))
    hashes, real = PrefixHashes(2), set[bytes]()
    for prompt, said in zip(PROMPTS, expected, strict=True):
        whole = Request(0, [*prompt, *said], SamplingParams(), 0, lambda delta: None)
        real |= {hashes.of(whole, index) for index in range(len(whole.token_ids) // 2)}

    def check() -> None:
        assert core.kv_manager.pool._by_hash.keys() <= real

    assert run(core, *PROMPTS, each_step=check) == expected
    stats = core.stats()
    assert stats.num_drafted_tokens > 2 * stats.num_accepted_tokens > 0


def test_a_request_that_is_preempted_with_a_draft_loses_it_and_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run(make_core(tiny("qwen3")), *PROMPTS)
    core = make_core(tiny("qwen3"), speculation=3, block_size=2, kv_cache_tokens=44)
    tell(core, half_right(expected))
    lost = list[Draft]()
    preempt = Scheduler._preempt

    def note(scheduler: Scheduler, request: Request) -> None:
        lost.append(request.draft)
        preempt(scheduler, request)
        assert not request.draft.token_ids

    monkeypatch.setattr(Scheduler, "_preempt", note)
    assert run(core, *PROMPTS, each_step=core.check_integrity) == expected
    assert any(draft.token_ids for draft in lost)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What cores do, in order: a forward is dispatched, with a draft or without, tokens are read, masks are filled."""
    noted = list[str]()

    def note(owner: type, name: str, text: Callable[[Any], str]) -> None:
        method = getattr(owner, name)

        def noting(self: Any, *arguments: Any, **options: Any) -> Any:
            noted.append(text(arguments[0]))
            return method(self, *arguments, **options)

        monkeypatch.setattr(owner, name, noting)

    def kind(schedule: Any) -> str:
        return "drafted" if any(chunk.request.draft.token_ids for chunk in schedule.chunks) else "forward"

    note(EngineCore, "_forward", kind)
    note(EngineCore, "_fill_masks", lambda batch: f"{int(any(batch.places))} masks")
    note(Reading, "advance", lambda in_flight: "read" if in_flight else "")
    return noted


def test_the_masks_of_a_draft_are_filled_while_its_forward_runs(
    make_engine: Callable[..., Engine], events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every place of the draft, by what the grammar allows there."""
    prompt, params = list(b"colors"), SamplingParams(max_tokens=60, temperature=0.0, constraint=COLORS)
    said = make_engine(ExactModel(), jump_forward=False).generate([prompt], params)[0].token_ids
    engine = make_engine(ExactModel(), jump_forward=False, speculation=4)
    tell(engine._worker.core, lambda request, count: list(said[request.num_output_tokens :][:count]))
    allowed = list[int]()
    fill = EngineCore._fill_masks

    def look(core: EngineCore, batch: Any) -> Any:
        receivers, bitmask = fill(core, batch)
        assert bitmask is not None and len(bitmask) == len(batch.places)
        allowed.extend(np.unpackbits(bitmask.view(np.uint8), axis=1).sum(axis=1))
        return receivers, bitmask

    monkeypatch.setattr(EngineCore, "_fill_masks", look)
    events.clear()
    assert engine.generate([prompt], params)[0].token_ids == said
    assert max(allowed) < 10, "no place was left without a mask"
    drafted = [index for index, event in enumerate(events) if event == "drafted"]
    assert len(drafted) >= 3
    assert all(events[index - 1 : index + 2] == ["read", "drafted", "1 masks"] for index in drafted)


def test_steps_overlap_where_auto_has_nothing_to_draft(make_engine: Callable[..., Engine], events: list[str]) -> None:
    engine = make_engine(ExactModel(), speculation="auto")
    tell(engine._worker.core, lambda request, count: [], chance=0.1)
    events.clear()
    engine.generate([list(b"one"), list(b"two")], SamplingParams(max_tokens=20, temperature=0.0, ignore_eos=True))
    first, last = events.index("read"), len(events) - 1 - events[::-1].index("forward")
    assert events.count("forward") >= 20
    assert events[first - 1 : last + 1 : 3] == ["forward"] * len(events[first - 1 : last + 1 : 3])
    assert events[first : last + 1 : 3] == ["read"] * len(events[first : last + 1 : 3])


TOKENIZER = ByteTokenizer()
SPELLING = Spelling(TOKENIZER.token_bytes, TOKENIZER.special_token_texts, TOKENIZER.eos_token_ids)


def draft_of(said: Sequence[int], count: int = 64, **fields: Any) -> Draft:
    """What becomes of what a source says of a request that goes on within a grammar, or without one."""
    jumps = JumpForward(ForcedText(TOKENIZER.encode, SPELLING).spell)
    speculation = Speculation(64, jumps, lambda request: {EOS_TOKEN_ID}, TOKENIZER.vocab_size)
    speculation.make_drafter = lambda request: ToldDrafter(request, lambda request, count: list(said))
    request = Request(0, [1, 2], SamplingParams(max_tokens=fields.pop("max_tokens", 100)), 0, lambda delta: None)
    request.matcher = fields.pop("matcher", None)
    return speculation._draft(request, count)


@pytest.mark.parametrize("wrong", [EOS_TOKEN_ID, -1, TOKENIZER.vocab_size, 2**70])
def test_a_draft_ends_before_an_end_token_and_before_what_is_no_token(wrong: int) -> None:
    assert draft_of([5, 6, wrong, 7]).token_ids == (5, 6)


def test_a_draft_is_no_longer_than_it_was_asked_for_and_leaves_room_for_the_token_after_it() -> None:
    assert draft_of(range(50), count=3).token_ids == (0, 1, 2)
    assert draft_of(range(50), max_tokens=4).token_ids == (0, 1, 2)
    assert draft_of(range(50), max_tokens=1) == Draft()


def test_a_draft_holds_what_the_grammar_forces_and_ends_where_it_goes_on_otherwise() -> None:
    matcher = PushdownMatcher(PERSON, TOKENIZER.token_bytes, EOS_TOKEN_ID)
    before, after = np.zeros((2, 1, -(-TOKENIZER.vocab_size // 32)), np.int32)
    matcher.fill_mask(before, 0)
    for text, expected in (
        (b'{"name": "Ada", "age": x', b'{"name": "Ada", "age": '),  # no number
        (b'{"nome": "Ada"', b'{"name": "'),  # another name than the forced one
        (b"[1", b""),
    ):
        draft = draft_of(text, matcher=matcher)
        assert bytes(draft.token_ids) == expected
        matcher.fill_mask(after, 0)
        assert (before == after).all(), "the matcher is where it was"
    forced = draft_of(b'{"name": "Ada", "age": 3', matcher=matcher).is_forced
    assert forced == (False, *[True] * 9, False, False, False, False, *[True] * 9, False)
