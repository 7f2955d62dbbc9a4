"""The one store of constraints: each is checked at once, compiled beside the prompt, and kept for all who bring it."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from mlx_agent_llm.constrain.backends import GrammarCompiler
from mlx_agent_llm.constrain.closing.closing import Closing
from mlx_agent_llm.constrain.closing.spelling import Spelling
from mlx_agent_llm.constrain.distinct import DistinctConstraint, TokenTexts
from mlx_agent_llm.constrain.grammars import read_constraint
from mlx_agent_llm.constrain.single_flight import SingleFlight
from mlx_agent_llm.errors import ConstraintError, EngineClosedError
from mlx_agent_llm.languages.context_free import ContextFreeGrammar, has_distinct
from mlx_agent_llm.request import CompiledGrammar
from mlx_agent_llm.request.constraints import CheckedKeywords, Constraint, JSONSchema

NUM_KEPT = 256
NUM_NAMED = 10  # of the keywords that enforce nothing, in the log
_NUM_THREADS = 2
_LOGGER = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """A constraint that may be asked for: how its texts are completed, and the grammar that is being compiled.

    checked: the (pointer, keyword) pairs that the grammar leaves out.
    """

    closing: Closing
    checked: CheckedKeywords
    compiled: Future[CompiledGrammar]


class ConstraintService:
    """Checks and compiles constraints for one vocabulary, from any thread; the NUM_KEPT latest used are kept."""

    def __init__(self, compiler: GrammarCompiler, spelling: Spelling) -> None:
        self._compiler = compiler
        self._spelling = spelling
        self._entries = SingleFlight[_Entry](NUM_KEPT)
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="mlx-agent-compile")

    def check(self, constraint: Constraint) -> CheckedKeywords:
        """What the grammar of a constraint leaves out; raises UnsupportedSchemaError or ConstraintError."""
        return self._entry_of(constraint).checked

    def prepare(self, constraint: Constraint) -> Prepared:
        """Check a constraint and begin to compile it; raises UnsupportedSchemaError or ConstraintError.

        What only the compilation finds wrong is the error of the future, and so of every request that waits for it.
        """
        if not self._compiler.has_end_token:
            raise ConstraintError("a constraint needs a tokenizer with an end token: there would be no way to finish")
        entry = self._entry_of(constraint)
        with entry.lock:
            if entry.prepared is None or _has_failed(entry.prepared.compiled):
                entry.prepared = self._begin(entry)
            return entry.prepared

    def close(self) -> None:
        """Begin no more compilations."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _entry_of(self, constraint: Constraint) -> _Entry:
        def check() -> _Entry:
            read = read_constraint(constraint)
            _log_ignored(constraint)
            return _Entry(read.grammar, read.checked)

        return self._entries.get(constraint.key, check)

    def _begin(self, entry: _Entry) -> Prepared:
        closing = Closing(entry.grammar, self._spelling)
        try:
            compiled = self._threads.submit(self._compile, entry.grammar, closing)
        except RuntimeError:
            raise EngineClosedError("the engine is closed") from None
        return Prepared(closing, entry.checked, compiled)

    def _compile(self, grammar: ContextFreeGrammar, closing: Closing) -> CompiledGrammar:
        closing.find_reserve()  # or the engine's thread would have to, at the first token
        compiled = self._compiler.compile(grammar)
        return DistinctConstraint(compiled, grammar, closing, self._tokens) if has_distinct(grammar) else compiled

    @cached_property
    def _tokens(self) -> TokenTexts:
        return TokenTexts(self._compiler.token_texts)


@dataclass(eq=False)
class _Entry:
    """What is kept of one constraint: its grammar, and from the first request on all that requests need."""

    grammar: ContextFreeGrammar
    checked: CheckedKeywords
    prepared: Prepared | None = None  # written under the lock
    lock: threading.Lock = field(default_factory=threading.Lock)


def _log_ignored(constraint: Constraint) -> None:
    """Say once a schema what of it enforces nothing."""
    if isinstance(constraint, JSONSchema) and (ignored := constraint.ignored_keywords):
        places = ", ".join(f"{keyword!r} at {pointer or 'the root'}" for pointer, keyword in ignored[:NUM_NAMED])
        rest = f" and {len(ignored) - NUM_NAMED} more" if len(ignored) > NUM_NAMED else ""
        _LOGGER.info("a JSON schema has keywords that enforce nothing: %s%s", places, rest)


def _has_failed(compiled: Future[CompiledGrammar]) -> bool:
    return compiled.cancelled() or (compiled.done() and compiled.exception() is not None)
