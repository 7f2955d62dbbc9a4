"""Grammars compiled for one vocabulary."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from mlx_agent_llm.constrain.backends.backends import BackendName, Backends, MakeCursor
from mlx_agent_llm.constrain.backends.deadline import call_within
from mlx_agent_llm.constrain.backends.matcher import GrammarMatcher, TokenSets
from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.languages.context_free import ContextFreeGrammar

COMPILE_TIMEOUT = 30.0  # seconds


class CompiledConstraint:
    """A grammar compiled for one vocabulary; any number of matchers share it."""

    def __init__(self, make_cursor: MakeCursor, token_sets: TokenSets) -> None:
        self._make_cursor = make_cursor
        self._token_sets = token_sets

    def matcher(self) -> GrammarMatcher:
        """A new matcher at the start of the grammar."""
        return GrammarMatcher(self._make_cursor(), self._token_sets)


class GrammarCompiler:
    """Compiles grammars for one vocabulary, from any thread.

    token_bytes: the bytes of every token, b"" for special ones. vocab_size: the width of the logits, which may be more;
    ids beyond token_bytes are never allowed. special_token_texts: id -> text of the control tokens; one is allowed only
    where it is an end token, or where the grammar names its text as a marker. token_texts: what a token writes.
    """

    def __init__(
        self,
        token_bytes: Sequence[bytes],
        vocab_size: int,
        eos_token_ids: Collection[int],
        special_token_texts: Mapping[int, str],
    ) -> None:
        assert len(token_bytes) <= vocab_size, "every token has a logit"
        self._end = frozenset(eos_token_ids)
        self._special = dict(special_token_texts)
        self._vocab_size = vocab_size
        self._ordinary = {token_id for token_id, data in enumerate(token_bytes) if data} - self._special.keys()
        self.token_texts = self._token_texts(token_bytes)
        self._backends = Backends(self.token_texts, sorted(self._end))

    @property
    def has_end_token(self) -> bool:
        """Whether a matcher can ever be told that its text is over."""
        return bool(self._end)

    def compile(self, grammar: ContextFreeGrammar, backend: BackendName | None = None) -> CompiledConstraint:
        """Compile a grammar with the library that reads it, or with `backend`, to compare the two.

        Raises ConstraintError for a grammar that is too large, and after COMPILE_TIMEOUT seconds.
        """
        try:
            make_cursor = call_within(COMPILE_TIMEOUT, lambda: self._backends.compile(grammar, backend))
        except TimeoutError:
            raise ConstraintError(f"the constraint was not compiled within {COMPILE_TIMEOUT} s") from None
        except RecursionError:
            raise ConstraintError("the constraint is nested too deeply") from None
        return CompiledConstraint(make_cursor, self._token_sets(grammar.markers))

    def _token_texts(self, token_bytes: Sequence[bytes]) -> list[bytes]:
        """What the backends read of each token: nothing of those that end the text, or are none."""
        texts = [*token_bytes, *[b""] * (self._vocab_size - len(token_bytes))]
        for token_id, text in self._special.items():
            texts[token_id] = text.encode()
        for token_id in self._end:
            texts[token_id] = b""
        return texts

    def _token_sets(self, markers: Collection[str]) -> TokenSets:
        marked = {token_id for token_id, text in self._special.items() if text in markers}
        return TokenSets(self._vocab_size, self._ordinary | marked | self._end, self._end)
