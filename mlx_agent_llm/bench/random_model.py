"""A model of a real one's shape that is made in the process: speed does not depend on what the weights say.

Its tokenizer has as many tokens as the model: bytes, two special tokens, and words of a blank and four letters, so that
what it writes at random is text, and is read as the tokens that were written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from string import ascii_lowercase

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.models import qwen3

from mlx_agent_llm.config import DType
from mlx_agent_llm.models import LoadedModel, from_parts
from mlx_agent_llm.testing import ByteTokenizer

_QWEN3_06B = {
    "model_type": "qwen3",
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rms_norm_eps": 1e-6,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
}
_WORD = re.compile("( [a-z]{4})")


def random_model(dtype: DType = "auto") -> LoadedModel:
    """Random weights in Qwen3-0.6B's shape, of bfloat16 unless another type is asked for."""
    model = qwen3.Model(qwen3.ModelArgs.from_dict(_QWEN3_06B))
    kind = mx.bfloat16 if dtype == "auto" else getattr(mx, dtype)
    model.update(tree_map(lambda weight: (0.02 * mx.random.normal(weight.shape)).astype(kind), model.parameters()))
    mx.eval(model.parameters())
    return from_parts(model, _WordTokenizer(_QWEN3_06B["vocab_size"]))  # type: ignore[arg-type]


class _WordTokenizer(ByteTokenizer):
    """A ByteTokenizer with words after its tokens."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    @cached_property
    def token_bytes(self) -> Sequence[bytes]:
        """Token id -> the bytes that it adds to the text."""
        first = ByteTokenizer.vocab_size
        return [*super().token_bytes, *(_word(number) for number in range(self.vocab_size - first))]

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The tokens of `text`, words where they are known."""
        token_ids: list[int] = []
        for part in _WORD.split(text):
            word = ByteTokenizer.vocab_size + _number(part) if _WORD.fullmatch(part) else self.vocab_size
            token_ids += [word] if word < self.vocab_size else super().encode(part)
        return token_ids


def _word(number: int) -> bytes:
    letters = [ascii_lowercase[number // 26**place % 26] for place in range(4)]
    return f" {''.join(letters)}".encode()


def _number(word: str) -> int:
    return sum(ascii_lowercase.index(letter) * 26**place for place, letter in enumerate(word[1:]))
