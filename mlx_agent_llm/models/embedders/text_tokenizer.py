"""Texts as token ids, cut to the length that an encoder was made for; any number of threads at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoTokenizer

from mlx_agent_llm.errors import ModelLoadError, RequestError, UnsupportedModelError
from mlx_agent_llm.models.embedders.layout import TextOptions


class TokenizedTexts(NamedTuple):
    """The ids of each text or pair, with those that the model puts around it, and the places of those that were cut.

    num_first: how many of each one's ids are of the first token type; those of a pair's second text may be of another.
    """

    token_ids: list[list[int]]
    num_first: list[int]
    truncated: list[int]


class TextTokenizer:
    """A fast tokenizer of transformers, with truncation set once: setting it at each call is no business of threads."""

    def __init__(self, path: Path, max_tokens: int, vocab_size: int, options: TextOptions) -> None:
        tokenizer = _read(path)
        self._backend: Any = tokenizer.backend_tokenizer
        self._num_embeddings = vocab_size
        self._has_more_tokens = _check_vocabulary(path, self._backend, vocab_size)
        self.max_tokens: int = min(max_tokens, options.max_seq_length or max_tokens, tokenizer.model_max_length)
        self._lower_case = options.lower_case
        self._has_types = "token_type_ids" in tokenizer.model_input_names
        self._backend.no_padding()
        self._backend.enable_truncation(self.max_tokens)

    def tokenize(self, texts: Sequence[str]) -> TokenizedTexts:
        """Tokenize texts; those that are too long lose their end, as in sentence-transformers."""
        return self._tokenize([text.lower() for text in texts] if self._lower_case else list(texts))

    def tokenize_pairs(self, pairs: Sequence[tuple[str, str]]) -> TokenizedTexts:
        """Tokenize two texts as one each; of a pair that is too long, the longer one of both loses its end."""
        return self._tokenize([(a.lower(), b.lower()) for a, b in pairs] if self._lower_case else list(pairs))

    def _tokenize(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> TokenizedTexts:
        encodings = self._backend.encode_batch(texts)
        token_ids = [encoding.ids for encoding in encodings]
        if self._has_more_tokens:
            self._check_known(token_ids)
        num_first = [each.type_ids.count(0) if self._has_types else len(each.ids) for each in encodings]
        return TokenizedTexts(token_ids, num_first, [index for index, each in enumerate(encodings) if each.overflowing])

    def _check_known(self, token_ids: Sequence[list[int]]) -> None:
        for index, ids in enumerate(token_ids):
            if (last := max(ids, default=0)) >= self._num_embeddings:
                token = self._backend.id_to_token(last)
                raise RequestError(f"text {index} holds {token!r}, a token that the model has no embedding of")

    def count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text; of one that is cut, those of all its pieces."""
        encodings = self._backend.encode_batch([text.lower() for text in texts] if self._lower_case else list(texts))
        return [sum(len(piece.ids) for piece in (each, *each.overflowing)) for each in encodings]


def _check_vocabulary(path: Path, backend: Any, vocab_size: int) -> bool:
    """Whether there are tokens without an embedding: markup that a model of text alone lacks, and nothing else."""
    num_words = backend.get_vocab_size(with_added_tokens=False)
    if num_words > vocab_size:
        raise ModelLoadError(f"{path}: {num_words} tokens, but embeddings for {vocab_size} only")
    return bool(max(backend.get_vocab(with_added_tokens=True).values()) >= vocab_size)


def _read(path: Path) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:  # any code of any tokenizer class of transformers runs in there
        raise ModelLoadError(f"{path}: the tokenizer cannot be read: {type(error).__name__}: {error}") from error
    if not tokenizer.is_fast:
        raise UnsupportedModelError(f"{path}: {type(tokenizer).__name__} has no fast form in tokenizers")
    return tokenizer
