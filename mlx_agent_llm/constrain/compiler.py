"""Constraints to compiled grammars, once per content and vocabulary."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from mlx_agent_llm.constrain.backends import BackendName, Backends, MakePlace
from mlx_agent_llm.constrain.backends.matcher import GrammarMatcher, TokenSets
from mlx_agent_llm.constrain.deadline import call_within
from mlx_agent_llm.constrain.grammars import constraint_grammar
from mlx_agent_llm.constrain.single_flight import SingleFlight
from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.languages.context_free import ContextFreeGrammar
from mlx_agent_llm.request.constraints import Constraint


class CompiledConstraint:
    """A grammar compiled for one vocabulary; any number of matchers share it. backend: the library that reads it."""

    def __init__(
        self, grammar: ContextFreeGrammar, backend: BackendName, make_place: MakePlace, token_sets: TokenSets
    ) -> None:
        self.grammar = grammar
        self.backend = backend
        self._make_place = make_place
        self._token_sets = token_sets

    def matcher(self) -> GrammarMatcher:
        """Return a new matcher at the start of the grammar."""
        return GrammarMatcher(self._make_place(), self._token_sets)


class GrammarCompiler:
    """Compiles constraints for one vocabulary, from any thread; the `cache_size` latest used are kept.

    token_bytes: the bytes of every token, b"" for special ones. vocab_size: the width of the logits, which may be more;
    ids beyond token_bytes are never allowed. special_token_texts: id -> text of the control tokens; one is allowed only
    where it is an end token, or where the grammar names its text as a marker. compile_timeout: seconds that one
    compilation may take. backend: the library to compare with the other one, instead of the better one.
    """

    def __init__(
        self,
        token_bytes: Sequence[bytes],
        vocab_size: int,
        eos_token_ids: Collection[int],
        special_token_texts: Mapping[int, str],
        *,
        cache_size: int = 256,
        compile_timeout: float = 30.0,
        backend: BackendName | None = None,
    ) -> None:
        assert len(token_bytes) <= vocab_size, "every token has a logit"
        self._end = frozenset(eos_token_ids)
        self._special = dict(special_token_texts)
        self._vocab_size = vocab_size
        self._ordinary = {token_id for token_id, data in enumerate(token_bytes) if data} - self._special.keys()
        self._backends = Backends(self._token_texts(token_bytes), sorted(self._end))
        self._compile_timeout = compile_timeout
        self._backend = backend
        self._grammars = SingleFlight[ContextFreeGrammar](cache_size)
        self._compiled = SingleFlight[CompiledConstraint](cache_size)

    def grammar(self, constraint: Constraint) -> ContextFreeGrammar:
        """Check a constraint and return its grammar; raises UnsupportedSchemaError or ConstraintError."""
        if not self._end:
            raise ConstraintError("a constraint needs a tokenizer with an end token: there would be no way to finish")
        return self._grammars.get(constraint.key, lambda: constraint_grammar(constraint))

    def compile(self, constraint: Constraint) -> CompiledConstraint:
        """Check and compile a constraint; raises UnsupportedSchemaError or ConstraintError."""
        return self._compiled.get(constraint.key, lambda: self._compile(constraint))

    def _compile(self, constraint: Constraint) -> CompiledConstraint:
        grammar = self.grammar(constraint)
        try:
            backend, make_place = call_within(
                self._compile_timeout, lambda: self._backends.compile(grammar, self._backend)
            )
        except TimeoutError:
            raise ConstraintError(
                f"the constraint was not compiled within compile_timeout={self._compile_timeout} s"
            ) from None
        except RecursionError:
            raise ConstraintError("the constraint is nested too deeply") from None
        return CompiledConstraint(grammar, backend, make_place, self._token_sets(grammar.markers))

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
