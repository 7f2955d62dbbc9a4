"""Forced text as tokens: those that the model's own tokenizer writes after what is there, and none that may change."""

import random

import pytest

from mlx_agent_llm.constrain.closing.forced import ForcedText
from mlx_agent_llm.constrain.closing.spelling import Spelling
from mlx_agent_llm.models import LoadedModel
from tests.support.adversary import PIECES, PieceTokenizer

TOKENIZER = PieceTokenizer()
SPELLING = Spelling(TOKENIZER.token_bytes, TOKENIZER.special_token_texts, TOKENIZER.eos_token_ids)
FORCED = ForcedText(TOKENIZER.encode, SPELLING)


def spelled(text: str, before: str = "") -> tuple[list[bytes], int]:
    forced = FORCED.spell(TOKENIZER.encode(before), text.encode())
    return [TOKENIZER.token_bytes[token_id] for token_id in forced.token_ids], forced.num_safe


@pytest.mark.parametrize(
    ("text", "before", "expected", "num_safe"),
    [
        ('{"abc": 7', "", [b'{"', b"abc", b'": ', b"7"], 4),
        ('{"abc": "', "", [b'{"', b"abc", b'": "'], 3),
        ('{"abc": ', "", [b'{"', b"abc", b'": '], 2),  # a quote might follow and belong to the last token
        ('{"items":', "", [b'{"', b"item", b"s", b'":'], 3),
        ('abc": 7', '{"', [b"abc", b'": ', b"7"], 3),
        ("bc\\", "a", [b"b", b"c", b"\\"], 2),  # "abc" was begun otherwise, and stays as it is
        ("x€", "", [b"x\xe2\x82", b"\xac"], 1),  # the last byte may begin a longer token
        ("[", "x", [], 0),
        ("7", "x", [b"7"], 1),
    ],
)
def test_a_text_is_spelled_as_the_tokenizer_does(text: str, before: str, expected: list[bytes], num_safe: int) -> None:
    assert spelled(text, before) == (expected, num_safe)


def test_what_is_begun_within_a_character_is_left_to_the_sampler() -> None:
    assert FORCED.spell([0xE2], "€".encode()[1:] + b"abc").token_ids == []
    forced = FORCED.spell([], b"yes " + "€".encode()[:2])
    assert b"".join(TOKENIZER.token_bytes[token_id] for token_id in forced.token_ids) == b"yes "


def test_a_control_token_is_no_context() -> None:
    assert FORCED.spell([256], b'{"name": 7').token_ids == FORCED.spell([], b'{"name": 7').token_ids


def test_whatever_is_there_the_tokens_spell_the_text_and_no_safe_one_can_be_merged() -> None:
    num_spelled = 0
    for seed in range(1000):
        rng = random.Random(seed)
        before = [rng.randrange(TOKENIZER.vocab_size) for _ in range(rng.randrange(6))]
        data = b"".join(rng.choices([*PIECES, b"a", b"7", "é".encode()], k=rng.randrange(1, 5)))
        token_ids, num_safe = FORCED.spell(before, data)
        written = b"".join(TOKENIZER.token_bytes[token_id] for token_id in token_ids)
        num_spelled += bool(token_ids)
        assert data.startswith(written) and 0 <= num_safe <= len(token_ids)
        for index in range(num_safe):
            left = b"".join(TOKENIZER.token_bytes[token_id] for token_id in token_ids[index:])
            assert not any(piece.startswith(left) and piece != left for piece in PIECES)
    assert num_spelled > 300


def test_the_demo_models_own_tokens_are_forced(demo: LoadedModel) -> None:
    tokenizer = demo.tokenizer
    forced = ForcedText(
        lambda text: tokenizer.encode(text, add_special_tokens=False),
        Spelling(tokenizer.token_bytes, tokenizer.special_token_texts, tokenizer.eos_token_ids),
    )
    whole = '{"name": "Ada", "address": {"street": "x"}}'
    token_ids = tokenizer.encode(whole, add_special_tokens=False)
    pieces = [tokenizer.token_bytes[token_id] for token_id in token_ids]
    for end in range(len(token_ids)):
        left = b"".join(pieces[end:])
        assert forced.spell(token_ids[:end], left).token_ids in (token_ids[end:], [])
