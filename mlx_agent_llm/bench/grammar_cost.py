"""What compiling a grammar and filling one row's mask take, over the tool schemas, with either library."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlx_agent_llm.bench.tool_schemas import TOOL_SCHEMAS
from mlx_agent_llm.constrain.backends import BACKEND_NAMES, BackendName, CompiledConstraint, GrammarCompiler
from mlx_agent_llm.constrain.grammars import constraint_grammar
from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.models import LoadedModel
from mlx_agent_llm.request.constraints import JSONSchema

NUM_WALKS, NUM_STEPS = 3, 200
CLOSING = frozenset(b'"}],:0123456789')  # what ends strings, numbers and the rest


@dataclass(frozen=True)
class GrammarCost:
    """Seconds at the 50th and 99th percentile: to compile a schema, and to fill a mask on random walks through it."""

    backend: str
    num_schemas: int
    num_refused: int  # with more states than xgrammar is given
    num_masks: int
    compile_p50: float
    compile_p99: float
    mask_p50: float
    mask_p99: float


def measure_grammars(loaded: LoadedModel) -> list[GrammarCost]:
    """The cost of the library that is taken ("chosen"), and of each one for all schemas."""
    tokenizer = loaded.tokenizer
    compiler = GrammarCompiler(
        tokenizer.token_bytes, loaded.vocab_size, tokenizer.eos_token_ids, tokenizer.special_token_texts
    )
    walker = _Walker(tokenizer.token_bytes, loaded.vocab_size)
    for backend in BACKEND_NAMES:
        compiler.compile(constraint_grammar(JSONSchema({"const": 0})), backend)  # imports it and reads the vocabulary
    return [_measure(compiler, backend, walker) for backend in (None, *BACKEND_NAMES)]


def describe(cost: GrammarCost) -> str:
    """The cost as a line."""
    refused = f", {cost.num_refused} refused" if cost.num_refused else ""
    return (
        f"{cost.num_schemas} tool schemas, {cost.backend}{refused}: compiled in {cost.compile_p50 * 1e3:.1f} ms (p50), "
        f"{cost.compile_p99 * 1e3:.0f} ms (p99); a row's mask filled in {cost.mask_p50 * 1e6:.0f} us (p50), "
        f"{cost.mask_p99 * 1e6:.0f} us (p99)"
    )


def _measure(compiler: GrammarCompiler, backend: BackendName | None, walker: _Walker) -> GrammarCost:
    compile_seconds, mask_seconds, num_refused = list[float](), list[float](), 0
    for schema in TOOL_SCHEMAS.values():
        begin = time.perf_counter()
        try:
            compiled = compiler.compile(constraint_grammar(JSONSchema(schema)), backend)
        except ConstraintError:
            num_refused += 1
            continue
        compile_seconds.append(time.perf_counter() - begin)
        for seed in range(NUM_WALKS):
            mask_seconds += walker.walk(compiled, random.Random(seed))
    return GrammarCost(
        backend or "chosen",
        len(TOOL_SCHEMAS),
        num_refused,
        len(mask_seconds),
        *np.percentile(compile_seconds, [50, 99]).tolist(),
        *np.percentile(mask_seconds, [50, 99]).tolist(),
    )


class _Walker:
    """Writes random texts of a grammar, now and then with a token that ends something."""

    def __init__(self, token_bytes: Sequence[bytes], vocab_size: int) -> None:
        self._mask = np.zeros((1, (vocab_size + 31) // 32), np.int32)
        self._is_closing = np.zeros(self._mask.size * 32, bool)
        for token_id, data in enumerate(token_bytes):
            self._is_closing[token_id] = bool(data) and CLOSING.issuperset(data)

    def walk(self, compiled: CompiledConstraint, rng: random.Random) -> list[float]:
        """The seconds that each mask took."""
        matcher, seconds = compiled.matcher(), list[float]()
        while not matcher.is_finished and len(seconds) < NUM_STEPS:
            begin = time.perf_counter()
            matcher.fill_mask(self._mask, 0)
            seconds.append(time.perf_counter() - begin)
            assert matcher.accept(self._choose(rng)), "a token of the mask is accepted"
        return seconds

    def _choose(self, rng: random.Random) -> int:
        allowed = np.flatnonzero(np.unpackbits(self._mask.view(np.uint8), bitorder="little"))
        closing = allowed[self._is_closing[allowed]]
        return int(rng.choice(closing if closing.size and rng.random() < 0.3 else allowed))
