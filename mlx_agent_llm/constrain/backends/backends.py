"""The two grammar libraries, each for one vocabulary; the first compilation imports them, which takes seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

from mlx_agent_llm.constrain.backends.cursor import GrammarCursor, LLGuidanceCursor, XGrammarCursor
from mlx_agent_llm.constrain.backends.ebnf import ebnf_text
from mlx_agent_llm.constrain.backends.lark import lark_text
from mlx_agent_llm.constrain.backends.lexemes import has_clear_lexemes, in_lexemes
from mlx_agent_llm.constrain.backends.lexing import is_read_exactly, is_recursive
from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.languages.context_free import ContextFreeGrammar
from mlx_agent_llm.languages.context_free.joined import joined
from mlx_agent_llm.languages.context_free.reduced import reduced

if TYPE_CHECKING:
    import llguidance
    import xgrammar

BackendName = Literal["llguidance", "xgrammar"]
BACKEND_NAMES: tuple[BackendName, ...] = ("llguidance", "xgrammar")
MakeCursor = Callable[[], GrammarCursor]


class Backends:
    """Compiles grammars for one vocabulary, from any thread.

    token_texts: the bytes of every token id, of control tokens their texts, of end tokens b"".
    """

    def __init__(self, token_texts: Sequence[bytes], end: Sequence[int]) -> None:
        self._token_texts = list(token_texts)
        self._end = list(end)
        self._lock = threading.Lock()

    def compile(self, grammar: ContextFreeGrammar, backend: BackendName | None = None) -> MakeCursor:
        """What makes cursors at the start of a grammar, in the library that reads it.

        llguidance, which compiles in a millisecond, reads what it can read exactly: grammars where the longest match of
        its lexer is always right, and others without recursion as one regular expression. xgrammar, which has no
        lexer, reads the rest. Raises ConstraintError for a grammar that is too large, or where xgrammar, an extra, is
        missing and would be needed. backend: the library to take instead, whether it reads the grammar exactly or not.
        """
        form = _exact_form(grammar) if backend is None else _form_for(grammar, backend)
        if form.backend == "xgrammar":
            return self._compile_with_xgrammar(ebnf_text(form.grammar))
        return self._compile_with_llguidance(lark_text(form.grammar, has_lexemes=form.has_lexemes))

    def _compile_with_llguidance(self, lark: str) -> MakeCursor:
        import llguidance

        with self._lock:
            tokenizer = self._llguidance
        # Far above its own: a mask of 100 ms once in a while is better than a request that fails half-way.
        limits = llguidance.LLParserLimits(
            initial_lexer_fuel=10_000_000, step_lexer_fuel=2_000_000, step_max_items=500_000, max_lexer_states=1_000_000
        )
        start = llguidance.LLMatcher(tokenizer, lark, limits=limits, log_level=0)
        if start.is_error():
            reason = start.get_error().partition("\n")[0]
            raise ConstraintError(f"the constraint is too complex: {reason}")
        return lambda: LLGuidanceCursor(start.deep_copy())

    def _compile_with_xgrammar(self, ebnf: str) -> MakeCursor:
        try:
            import xgrammar
        except ModuleNotFoundError as error:
            install = "pip install 'mlx-agent-llm[xgrammar]'"
            raise ConstraintError(
                f"the constraint is none that llguidance can read, as xgrammar can: {install}"
            ) from error

        with self._lock:
            compiler = self._xgrammar
        compiled = compiler.compile_grammar(ebnf)
        return lambda: XGrammarCursor(xgrammar.GrammarMatcher(compiled))

    @cached_property
    def _xgrammar(self) -> xgrammar.GrammarCompiler:
        import xgrammar

        info = xgrammar.TokenizerInfo(
            self._token_texts,
            xgrammar.VocabType.RAW,
            vocab_size=len(self._token_texts),
            stop_token_ids=self._end,
            add_prefix_space=False,
        )
        return xgrammar.GrammarCompiler(info, max_threads=2, cache_enabled=False)

    @cached_property
    def _llguidance(self) -> llguidance.LLTokenizer:
        import llguidance

        table = _TokenTable(self._token_texts, self._end)
        return llguidance.LLTokenizer(llguidance.TokenizerWrapper(table), eos_token=self._end)


class _Form(NamedTuple):
    """An equal grammar for one of the libraries; has_lexemes: its leaves are lexemes, or else the whole is one."""

    grammar: ContextFreeGrammar
    backend: BackendName
    has_lexemes: bool = True


def _exact_form(grammar: ContextFreeGrammar) -> _Form:
    """One that llguidance reads exactly, or else one for xgrammar; one without rules is short, or a choice of texts."""
    if grammar.rules and has_clear_lexemes(lexemes := reduced(in_lexemes(grammar))):
        return _Form(lexemes, "llguidance")
    whole = reduced(grammar)
    if not is_recursive(whole):
        return _Form(whole, "llguidance", has_lexemes=False)
    if is_read_exactly(whole):
        return _Form(whole, "llguidance")
    longer = joined(whole)
    return _Form(longer, "llguidance" if is_read_exactly(longer) else "xgrammar")


def _form_for(grammar: ContextFreeGrammar, backend: BackendName) -> _Form:
    whole = reduced(grammar)
    return _Form(whole, backend, is_recursive(whole))


class _TokenTable:
    """What llguidance asks of a tokenizer; it never gets any text to encode."""

    bos_token_id = None
    special_token_ids = ()

    def __init__(self, tokens: list[bytes], end: list[int]) -> None:
        self.tokens = tokens
        self.eos_token_id = end[0]

    def __call__(self, text: bytes) -> list[int]:
        raise NotImplementedError
