"""Tokenizers in the way of SentencePiece: a mark for a space, and bytes as tokens <0xNN> for what has no other."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from mlx_agent_llm.models.gguf.vocabulary import TokenType, Vocabulary

_SPACE_MARK = "\u2581"


def by_score(vocabulary: Vocabulary, scores: list[float], *, has_prefix: bool) -> Tokenizer:
    """SentencePiece's BPE, as Llama 2 has it: the neighbours whose union scores best are joined first.

    has_prefix: a text begins with a mark.
    """
    backend = Tokenizer(_model(vocabulary, _merges_by_score(vocabulary, scores)))
    marks: list[normalizers.Normalizer] = [normalizers.Prepend(_SPACE_MARK)] if has_prefix else []
    backend.normalizer = normalizers.Sequence([*marks, normalizers.Replace(" ", _SPACE_MARK)])
    backend.decoder = _decoder(has_prefix=has_prefix)
    return backend


def by_merges(vocabulary: Vocabulary, merges: list[tuple[str, str]]) -> Tokenizer:
    """The same vocabulary with an explicit list of merges, as Gemma 4 has it; line breaks stay apart."""
    backend = Tokenizer(_model(vocabulary, merges))
    backend.normalizer = normalizers.Replace(" ", _SPACE_MARK)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("[^\n]+|[\n]+"), behavior="isolated")
    backend.decoder = _decoder(has_prefix=False)
    return backend


def _model(vocabulary: Vocabulary, merges: list[tuple[str, str]]) -> models.BPE:
    unknown = vocabulary.named("unknown")
    return models.BPE(vocabulary.ids, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)


def _decoder(*, has_prefix: bool) -> decoders.Decoder:
    strip: list[decoders.Decoder] = [decoders.Strip(" ", 1, 0)] if has_prefix else []
    return decoders.Sequence([decoders.Replace(_SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])


def _merges_by_score(vocabulary: Vocabulary, scores: list[float]) -> list[tuple[str, str]]:
    """Turn scores into a ranked list of merges."""
    typed = zip(vocabulary.tokens, vocabulary.types, scores, strict=True)
    score_of = {token: score for token, kind, score in typed if kind is TokenType.NORMAL}
    ranked = sorted(score_of, key=lambda piece: -score_of[piece])
    cuts = ((piece[:at], piece[at:]) for piece in ranked for at in range(1, len(piece)))
    return [(left, right) for left, right in cuts if left in score_of and right in score_of]
