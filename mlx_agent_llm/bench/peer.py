"""How the workloads run mlx-lm: by its own functions and settings, but for room for all requests and no end token.

Only extract, whose outputs end by themselves, names end tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import BatchGenerator, generate_step

from mlx_agent_llm.bench.arrivals import Arrivals

P = ParamSpec("P")
T = TypeVar("T")


def unless_out_of_memory(run: Callable[P, T]) -> Callable[P, T | None]:
    """A run that is None where the device has no memory for it: a table then goes on without it."""

    @wraps(run)
    def attempt(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return run(*args, **kwargs)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        mx.clear_cache()  # only now that the error has let go of the run's arrays
        return None

    return attempt


def best(runs: Sequence[T | None], choose: Callable[[list[T]], T]) -> T | None:
    """What `choose` makes of the runs; None when one of them is."""
    done = [run for run in runs if run is not None]
    return choose(done) if len(done) == len(runs) else None


def _is_out_of_memory(error: Exception) -> bool:
    """By the words of MLX's allocators, of CUDA and of Metal's command buffers."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(
        words in said for words in ("malloc", "out of memory", "insufficient memory")
    )


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
