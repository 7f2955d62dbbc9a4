"""What every workload is: a name, the options that it takes, and a run that ends in a Result."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, fields

from mlx_agent_llm.bench.result import Result
from mlx_agent_llm.config import DType, check_range
from mlx_agent_llm.errors import ContextLengthError, RequestError
from mlx_agent_llm.models import LoadedModel, load_model

Load = Callable[[DType], LoadedModel]


@dataclass(frozen=True)
class Options:
    """What a workload may be told; None leaves it to the workload, a bad value is a ValueError that names it.

    model: reads the weights anew at each call, by default the demo model's. rows: requests at the same time, instead of
    the workload's own number. repeats: runs of each, the best of which counts. prompt_tokens: the long prompt's length.
    dtypes: what the weights are cast to, one run each. bits: what they are quantized to, 4 or 8 in groups of 64, or 16,
    which leaves them as they are. schemas: of each corpus. quick: fewer requests and shorter prompts, so that it takes
    minutes on a CPU.
    """

    model: Load | None = None
    rows: int | None = None
    repeats: int | None = None
    prompt_tokens: int | None = None
    dtypes: tuple[DType, ...] | None = None
    bits: int | None = None
    schemas: int | None = None
    quick: bool | None = None

    def __post_init__(self) -> None:
        for name in ("rows", "repeats", "prompt_tokens", "schemas"):
            if getattr(self, name) is not None:
                check_range(name, getattr(self, name), 1)
        if self.dtypes is not None and not self.dtypes:
            raise ValueError("dtypes=() must hold at least one dtype")
        if self.bits not in (None, 4, 8, 16):
            raise ValueError(f"bits={self.bits} must be 4, 8 or 16")

    def load(self, dtype: DType = "auto") -> LoadedModel:
        """A model that nobody else holds: the engine may change the one that it serves, so the peer has its own."""
        return load_model("demo", dtype=dtype) if self.model is None else self.model(dtype)

    @property
    def given(self) -> frozenset[str]:
        """The fields that somebody set."""
        return frozenset(field.name for field in fields(self) if getattr(self, field.name) is not None)


@dataclass(frozen=True)
class Workload:
    """One workload; `takes` names the options that mean something to it."""

    name: str
    takes: frozenset[str]
    measure: Callable[[Options], Result]

    def run(self, options: Options) -> Result:
        """Measure; an option that the workload would not look at is a RequestError."""
        check_taken(self.name, self.takes, options)
        return self.measure(options)


def check_taken(name: str, takes: frozenset[str], options: Options) -> None:
    """Raise a RequestError for an option that would not be looked at."""
    if idle := sorted(options.given - takes):
        raise RequestError(f"{name} takes no {', '.join(idle)}: only {', '.join(sorted(takes)) or 'none'}")


class RandomTokens:
    """Prompts without sense, the same at every run."""

    def __init__(self, vocab_size: int, seed: int = 0) -> None:
        self._generator = random.Random(seed)
        self._bound = max(vocab_size // 2, 1)  # the ids beyond are more often special tokens

    def __call__(self, length: int) -> list[int]:
        """`length` token ids."""
        return [self._generator.randrange(self._bound) for _ in range(length)]


def check_context(loaded: LoadedModel, num_tokens: int, what: str) -> None:
    """Raise a ContextLengthError for a workload that the model's context does not hold."""
    if loaded.max_model_len is not None and num_tokens > loaded.max_model_len:
        raise ContextLengthError(
            f"{what} needs {num_tokens} tokens, and the context of {loaded.name!r} ends at {loaded.max_model_len}"
        )
