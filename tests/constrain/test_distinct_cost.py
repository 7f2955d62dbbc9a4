"""What items that must differ take with a real vocabulary: a mask, and a token that is accepted."""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np
import pytest

from mlx_agent_llm.bench.json_compilers import compiler_of, vocabulary_of
from mlx_agent_llm.constrain.schema import write_json
from tests.support.real_tokenizers import real_tokenizer

WORDS = ["red", "order", "status", "https://example.com/", "New York", "São Paulo", "customer_id", "2024-"]
PERSON = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
ITEMS: dict[str, dict[str, Any]] = {
    "strings": {"type": "string"},
    "short strings": {"type": "string", "maxLength": 60},
    "integers": {"type": "integer"},
    "objects": {**PERSON, "required": ["name", "age"]},
}


def items(name: str, count: int) -> list[Any]:
    """Different items, many of which begin alike."""
    rng = random.Random(0)
    texts = [f"{rng.choice(WORDS)} {rng.choice(WORDS)} {index}" for index in range(count)]
    numbers = [rng.randrange(10) * 1000 + index for index in range(count)]
    objects = [{"name": text, "age": index % 90} for index, text in enumerate(texts)]
    return {"integers": numbers, "objects": objects}.get(name, texts)


@pytest.mark.long
@pytest.mark.parametrize("name", ITEMS)
def test_a_mask_takes_less_than_a_millisecond_however_many_items_there_are(name: str) -> None:
    tokenizer = real_tokenizer("qwen3")
    vocabulary = vocabulary_of("qwen3", tokenizer, tokenizer.vocab_size)
    make_reader = compiler_of("ours", vocabulary)({"type": "array", "uniqueItems": True, "items": ITEMS[name]})
    row = np.zeros((1, (vocabulary.vocab_size + 31) // 32), np.int32)
    make_reader().fill(row)
    for count in (5, 50, 200):
        reader, times = make_reader(), list[tuple[float, float]]()
        for token_id in tokenizer.encode(write_json(items(name, count)), add_special_tokens=False):
            begin = time.process_time()
            reader.fill(row)
            filled = time.process_time()
            assert reader.accept(token_id)
            times.append((filled - begin, time.process_time() - filled))
        p50, p99, most = 1e3 * np.percentile(times, [50, 99, 100], axis=0)
        figures = " | ".join(f"{p50[side]:.2f} | {p99[side]:.2f} | {most[side]:.2f}" for side in (0, 1))
        print(f"| {name} | {count} | {len(times)} | {figures} |")
        assert p99[0] < 1 or len(times) < 100
