"""How the workloads run mlx-lm: by its own functions and settings, but for room for all requests and no end token.

Only extract, whose outputs end by themselves, names end tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import BatchGenerator, generate_step

from mlx_agent_llm.bench.arrivals import Arrivals


@contextmanager
def batch_generator(model: nn.Module, rows: int, stop_tokens: Sequence[Sequence[int]] = ()) -> Iterator[Any]:
    """A BatchGenerator with room for `rows` requests at once."""
    generator = BatchGenerator(model, stop_tokens=stop_tokens, completion_batch_size=rows)
    try:
        yield generator
    finally:
        generator.close()
        mx.clear_cache()


def stream_all(model: nn.Module, prompts: Sequence[list[int]], num_new: int) -> Arrivals:
    """Let all prompts arrive together; a request's number is its place among them."""
    with batch_generator(model, len(prompts)) as generator:
        arrivals = Arrivals()
        generator.insert(prompts, max_tokens=[num_new] * len(prompts))
        for _ in run_to_the_end(generator, arrivals, len(prompts) * num_new):
            pass
        return arrivals


def run_to_the_end(generator: Any, arrivals: Arrivals, num_left: int) -> Iterator[list[Any]]:
    """Step until `num_left` tokens came; yields each step's responses."""
    while num_left > 0:
        _, responses = generator.next()
        for response in responses:
            arrivals.note(response.uid)
        num_left -= len(responses)
        yield responses


def batch_tokens(model: nn.Module, prompts: Sequence[list[int]], num_new: int) -> list[list[int]]:
    """The greedy tokens of prompts that run together."""
    tokens: list[list[int]] = [[] for _ in prompts]
    with batch_generator(model, len(prompts)) as generator:
        generator.insert(prompts, max_tokens=[num_new] * len(prompts))
        for responses in run_to_the_end(generator, Arrivals(), len(prompts) * num_new):
            for response in responses:
                tokens[response.uid].append(int(response.token))
    return tokens


def single_tokens(model: nn.Module, prompt: list[int], num_new: int, prompt_cache: Any = None) -> Iterator[int]:
    """The greedy tokens of one prompt, as they come; they are in `prompt_cache` after it afterwards."""
    for token, _ in generate_step(mx.array(prompt), model, max_tokens=num_new, prompt_cache=prompt_cache):
        yield int(token)
