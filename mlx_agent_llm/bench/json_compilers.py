"""Three ways from a JSON schema to masks: ours, and the converters that the two grammar libraries have themselves.

Those of the libraries are as they come: with their own forms of JSON, limits and blanks.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

from mlx_agent_llm.constrain.backends import GrammarCompiler
from mlx_agent_llm.constrain.backends.cursor import Bitmask, LLGuidanceCursor, XGrammarCursor
from mlx_agent_llm.constrain.closing.spelling import Spelling
from mlx_agent_llm.constrain.service import ConstraintService
from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.models.tokenizer import Tokenizer
from mlx_agent_llm.request import Matcher
from mlx_agent_llm.request.constraints import JSONSchema

Side = Literal["ours", "llguidance", "xgrammar"]
SIDES: tuple[Side, ...] = ("ours", "llguidance", "xgrammar")


class Reader(Protocol):
    """Where one text stands in what a side made of a schema, as GrammarCursor has it."""

    def accept(self, token_id: int) -> bool:
        """Advance by a token; False when it may not follow."""

    def fill(self, row: Bitmask) -> None:
        """Write the tokens that may follow into a (1, ceil(vocab / 32)) bitmask."""

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here; asked last."""


MakeReader = Callable[[], Reader]
Compile = Callable[[dict[str, Any]], MakeReader]


class Vocabulary(NamedTuple):
    """The tokens of a model, as they can be sent to another process."""

    name: str
    token_bytes: list[bytes]
    vocab_size: int  # the width of the logits
    end: list[int]
    special: dict[int, str]


def vocabulary_of(name: str, tokenizer: Tokenizer, vocab_size: int) -> Vocabulary:
    """The vocabulary of a tokenizer, for logits of this width."""
    end, special = sorted(tokenizer.eos_token_ids), dict(tokenizer.special_token_texts)
    return Vocabulary(name, list(tokenizer.token_bytes), vocab_size, end, special)


def compiler_of(side: Side, vocabulary: Vocabulary) -> Compile:
    """What compiles a schema anew; what a side refuses is an error of any kind."""
    return _MAKERS[side](vocabulary)


def _ours(vocabulary: Vocabulary) -> Compile:
    tokens = vocabulary.token_bytes, vocabulary.special, vocabulary.end
    compiler = GrammarCompiler(vocabulary.token_bytes, vocabulary.vocab_size, vocabulary.end, vocabulary.special)
    service = ConstraintService(compiler, Spelling(*tokens))

    def compile_schema(schema: dict[str, Any]) -> MakeReader:
        compiled = service.prepare(JSONSchema(schema)).compiled.result()
        return lambda: _OurReader(compiled.matcher(), vocabulary.end[0])

    return compile_schema


def _llguidance(vocabulary: Vocabulary) -> Compile:
    import llguidance

    tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_TokenTable(vocabulary)), eos_token=vocabulary.end)

    def compile_schema(schema: dict[str, Any]) -> MakeReader:
        grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema))
        matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise ConstraintError(matcher.get_error())
        return lambda: LLGuidanceCursor(matcher.deep_copy())

    return compile_schema


def _xgrammar(vocabulary: Vocabulary) -> Compile:
    import xgrammar

    tokens, size, end = _texts(vocabulary), vocabulary.vocab_size, vocabulary.end
    info = xgrammar.TokenizerInfo(tokens, xgrammar.VocabType.RAW, vocab_size=size, stop_token_ids=end)
    compiler = xgrammar.GrammarCompiler(info, max_threads=2, cache_enabled=False)

    def compile_schema(schema: dict[str, Any]) -> MakeReader:
        compiled = compiler.compile_json_schema(json.dumps(schema))
        return lambda: XGrammarCursor(xgrammar.GrammarMatcher(compiled))

    return compile_schema


_MAKERS: dict[Side, Callable[[Vocabulary], Compile]] = {"ours": _ours, "llguidance": _llguidance, "xgrammar": _xgrammar}


def _texts(vocabulary: Vocabulary) -> list[bytes]:
    """What each id writes; control tokens, which the libraries have to keep out themselves, write their names."""
    texts = [*vocabulary.token_bytes, *[b""] * (vocabulary.vocab_size - len(vocabulary.token_bytes))]
    for token_id, text in vocabulary.special.items():
        texts[token_id] = text.encode()
    return texts


class _TokenTable:
    """What llguidance asks of a tokenizer."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens = _texts(vocabulary)
        self.special_token_ids = list(vocabulary.special)
        self.eos_token_id = vocabulary.end[0]
        self._spelling = Spelling(vocabulary.token_bytes, {}, vocabulary.end)

    def __call__(self, text: bytes | str) -> list[int]:
        return self._spelling.fewest_tokens(text.encode() if isinstance(text, str) else text, ())


class _OurReader:
    """A request's matcher as a Reader, which is over once it was asked whether the text is complete."""

    def __init__(self, matcher: Matcher, end: int) -> None:
        self._matcher = matcher
        self._end = end

    def accept(self, token_id: int) -> bool:
        return self._matcher.accept(token_id)

    def fill(self, row: Bitmask) -> None:
        self._matcher.fill_mask(row, 0)

    @property
    def is_complete(self) -> bool:
        return self._matcher.accept(self._end)
