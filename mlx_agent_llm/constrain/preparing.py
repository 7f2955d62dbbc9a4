"""Constraints as the engine needs them: checked at once, compiled in the background while the prompt is computed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from mlx_agent_llm.constrain.closing.closing import Closing
from mlx_agent_llm.constrain.closing.spelling import Spelling
from mlx_agent_llm.constrain.compiler import GrammarCompiler
from mlx_agent_llm.constrain.grammars import checked_keywords
from mlx_agent_llm.constrain.single_flight import SingleFlight
from mlx_agent_llm.errors import EngineClosedError
from mlx_agent_llm.request import CompiledGrammar
from mlx_agent_llm.request.constraints import CheckedKeywords, Constraint

_NUM_THREADS = 2


class Prepared(NamedTuple):
    """A constraint that may be asked for: how its texts are completed, and the grammar that is being compiled.

    checked: the (pointer, keyword) pairs that the grammar leaves out.
    """

    closing: Closing
    checked: CheckedKeywords
    compiled: Future[CompiledGrammar]


class Preparer:
    """Prepares constraints for one vocabulary, from any thread; the `cache_size` latest used are kept."""

    def __init__(self, compiler: GrammarCompiler, spelling: Spelling, *, cache_size: int = 256) -> None:
        self._compiler = compiler
        self._spelling = spelling
        self._cache_size = cache_size
        self._checks = SingleFlight[tuple[Closing, CheckedKeywords]](cache_size)
        self._compiled: OrderedDict[str, Future[CompiledGrammar]] = OrderedDict()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="mlx-agent-compile")

    def prepare(self, constraint: Constraint) -> Prepared:
        """Check a constraint and begin to compile it; raises UnsupportedSchemaError or ConstraintError.

        What only the compilation finds wrong is the error of the future, and so of every request that waits for it.
        """
        closing, checked = self._checks.get(constraint.key, lambda: self._check(constraint))
        with self._lock:
            compiled = self._compiled.pop(constraint.key, None)
            if compiled is None or _has_failed(compiled):
                compiled = self._begin(constraint, closing)
            self._compiled[constraint.key] = compiled
            if len(self._compiled) > self._cache_size:
                self._compiled.popitem(last=False)
        return Prepared(closing, checked, compiled)

    def close(self) -> None:
        """Begin no more compilations."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _check(self, constraint: Constraint) -> tuple[Closing, CheckedKeywords]:
        return Closing(self._compiler.grammar(constraint), self._spelling), checked_keywords(constraint)

    def _begin(self, constraint: Constraint, closing: Closing) -> Future[CompiledGrammar]:
        try:
            return self._threads.submit(self._compile, constraint, closing)
        except RuntimeError:
            raise EngineClosedError("the engine is closed") from None

    def _compile(self, constraint: Constraint, closing: Closing) -> CompiledGrammar:
        closing.find_reserve()  # or the engine's thread would have to, at the first token
        return self._compiler.compile(constraint)


def _has_failed(compiled: Future[CompiledGrammar]) -> bool:
    return compiled.cancelled() or (compiled.done() and compiled.exception() is not None)
