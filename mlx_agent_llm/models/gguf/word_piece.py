"""BERT's WordPiece, as GGUF files hold it: the beginning of a word carries the mark, not its continuation."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from mlx_agent_llm.models.gguf.vocabulary import TokenType, Vocabulary

_WORD_MARK = "\u2581"


def word_piece(vocabulary: Vocabulary, *, lowercase: bool) -> Tokenizer:
    """The longest piece first, in words that are cut at spaces, punctuation and Chinese characters."""
    unknown = vocabulary.named("unknown") or "[UNK]"
    backend = Tokenizer(models.WordPiece(_with_berts_marks(vocabulary), unk_token=unknown))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=False)
    return backend


def _with_berts_marks(vocabulary: Vocabulary) -> dict[str, int]:
    ids = dict[str, int]()
    for token, token_id in vocabulary.ids.items():
        if vocabulary.types[token_id] is not TokenType.NORMAL:
            ids[token] = token_id
        elif token.startswith(_WORD_MARK):
            ids[token.removeprefix(_WORD_MARK)] = token_id
        else:
            ids[f"##{token}"] = token_id
    return ids
