"""Constraints to compiled grammars, once per content and vocabulary."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from mlx_agent_llm.constrain.json_grammar import json_grammar
from mlx_agent_llm.constrain.matcher import GrammarMatcher, TokenSets
from mlx_agent_llm.constrain.preflight import check_schema
from mlx_agent_llm.constrain.spec import Constraint, JSONSchema, StructuralTag
from mlx_agent_llm.errors import ConstraintError

if TYPE_CHECKING:
    import xgrammar


class CompiledConstraint:
    """A grammar compiled for one vocabulary; any number of matchers share it."""

    def __init__(self, grammar: xgrammar.CompiledGrammar, token_sets: TokenSets) -> None:
        self._grammar = grammar
        self._token_sets = token_sets

    def matcher(self) -> GrammarMatcher:
        """Return a new matcher at the start of the grammar."""
        return GrammarMatcher(self._grammar, self._token_sets)


class GrammarCompiler:
    """Compiles constraints for one vocabulary, from any thread; the `cache_size` latest used are kept.

    token_bytes: the bytes of every token, b"" for special ones. vocab_size: the width of the logits, which may be more;
    ids beyond token_bytes are never allowed. Special tokens are never allowed unless they are end tokens.
    xgrammar is imported by the first compilation, which takes seconds.
    """

    def __init__(
        self,
        token_bytes: Sequence[bytes],
        vocab_size: int,
        eos_token_ids: Collection[int],
        special_token_ids: Collection[int],
        *,
        cache_size: int = 256,
    ) -> None:
        assert len(token_bytes) <= vocab_size, "every token has a logit"
        self._end = sorted(eos_token_ids)
        special = set(special_token_ids)
        # Without bytes xgrammar itself knows a token as special, and lets no free text use it.
        self._token_bytes = [b"" if token_id in special else data for token_id, data in enumerate(token_bytes)]
        self._vocab_size = vocab_size
        unusable = (special | set(range(len(token_bytes), vocab_size))) - set(self._end)
        self._token_sets = TokenSets(vocab_size, unusable, set(self._end))
        self._cache_size = cache_size
        self._cache: OrderedDict[str, CompiledConstraint] = OrderedDict()
        self._lock = threading.Lock()
        self._backend_lock = threading.Lock()
        self._backend: xgrammar.GrammarCompiler | None = None

    def compile(self, constraint: Constraint) -> CompiledConstraint:
        """Check and compile a constraint; raises UnsupportedSchemaError or ConstraintError."""
        with self._lock:
            if constraint.key in self._cache:
                self._cache.move_to_end(constraint.key)
                return self._cache[constraint.key]
        compiled = CompiledConstraint(self._compile(constraint), self._token_sets)
        with self._lock:
            self._cache[constraint.key] = compiled
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        return compiled

    def _compile(self, constraint: Constraint) -> xgrammar.CompiledGrammar:
        if not self._end:
            raise ConstraintError("a constraint needs a tokenizer with an end token: there would be no way to finish")
        if isinstance(constraint, JSONSchema):
            check_schema(constraint.json_schema)
            return self._xgrammar().compile_grammar(json_grammar(constraint.json_schema))
        if not isinstance(constraint, StructuralTag):
            raise ConstraintError(f"constraint={constraint!r} must be a JSONSchema")
        try:
            return self._xgrammar().compile_structural_tag({"type": "structural_tag", "format": constraint.format})
        except RuntimeError as error:
            raise ConstraintError(f"the structural tag cannot be compiled: {error}") from error

    def _xgrammar(self) -> xgrammar.GrammarCompiler:
        with self._backend_lock:
            if self._backend is None:
                self._backend = _new_backend(self._token_bytes, self._vocab_size, self._end)
            return self._backend


def _new_backend(token_bytes: list[bytes], vocab_size: int, end: list[int]) -> xgrammar.GrammarCompiler:
    import xgrammar

    info = xgrammar.TokenizerInfo(
        token_bytes, xgrammar.VocabType.RAW, vocab_size=vocab_size, stop_token_ids=end, add_prefix_space=False
    )
    return xgrammar.GrammarCompiler(info, max_threads=2, cache_enabled=False)
