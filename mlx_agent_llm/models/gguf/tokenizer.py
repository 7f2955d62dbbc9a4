"""The tokenizer that a GGUF file carries in its metadata: byte-level BPE, SentencePiece or WordPiece."""

from __future__ import annotations

from tokenizers import AddedToken, decoders, models, processors
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from mlx_agent_llm.errors import ModelLoadError, UnsupportedModelError
from mlx_agent_llm.models.gguf.file import GGUFFile
from mlx_agent_llm.models.gguf.sentence_piece import by_merges, by_score
from mlx_agent_llm.models.gguf.vocabulary import PREFIX, Vocabulary, read_vocabulary
from mlx_agent_llm.models.gguf.word_piece import word_piece
from mlx_agent_llm.models.gguf.words import WORDS
from mlx_agent_llm.models.tokenizer import HFTokenizer

_KINDS = {
    "gpt2": "byte-level BPE",
    "llama": "SentencePiece BPE by scores",
    "gemma4": "SentencePiece BPE by merges",
    "bert": "WordPiece",
}


def build_tokenizer(gguf: GGUFFile) -> HFTokenizer:
    """Build the tokenizer with its special tokens, end tokens and chat template."""
    kind = gguf.require(f"{PREFIX}.model", str)
    if kind not in _KINDS:
        known = ", ".join(f"{name!r} ({meaning})" for name, meaning in _KINDS.items())
        raise UnsupportedModelError(f"{gguf.path}: {PREFIX}.model={kind!r} is not supported: {known} are")
    vocabulary = read_vocabulary(gguf)
    try:
        backend = _backend(gguf, kind, vocabulary)
        return _wrap(gguf, backend, vocabulary, kind)
    except (ModelLoadError, MemoryError):
        raise
    except Exception as error:  # the tokenizers library raises bare Exception for a vocabulary that is inconsistent
        raise ModelLoadError(f"{gguf.path}: the tokenizer cannot be built: {error}") from error


def _backend(gguf: GGUFFile, kind: str, vocabulary: Vocabulary) -> Backend:
    match kind:
        case "gpt2":
            return _byte_level(gguf, vocabulary)
        case "llama":
            has_prefix = gguf.get(f"{PREFIX}.add_space_prefix", bool) is not False
            return by_score(vocabulary, _scores(gguf, vocabulary), has_prefix=has_prefix)
        case "gemma4":
            return by_merges(vocabulary, _merges(gguf))
        case _:
            return word_piece(vocabulary, lowercase=_is_lowercase(vocabulary))


def _byte_level(gguf: GGUFFile, vocabulary: Vocabulary) -> Backend:
    name = gguf.require(f"{PREFIX}.pre", str)
    words = WORDS.get(name)
    if words is None:
        raise UnsupportedModelError(
            f"{gguf.path}: {PREFIX}.pre={name!r} is not supported: {', '.join(map(repr, WORDS))} are"
        )
    backend = Backend(models.BPE(vocabulary.ids, _merges(gguf), ignore_merges=words.takes_words))
    words.apply(backend)
    backend.decoder = decoders.ByteLevel()
    return backend


def _is_lowercase(vocabulary: Vocabulary) -> bool:
    """The format does not say it: a cased vocabulary has words with capitals."""
    return all(token == token.lower() for token in vocabulary.words)


def _scores(gguf: GGUFFile, vocabulary: Vocabulary) -> list[float]:
    scores = gguf.require(f"{PREFIX}.scores", list)
    if len(scores) != len(vocabulary.tokens) or not all(isinstance(score, float) for score in scores):
        raise ModelLoadError(f"{gguf.path}: {PREFIX}.scores must be {len(vocabulary.tokens)} floats, one a token")
    return scores


def _merges(gguf: GGUFFile) -> list[tuple[str, str]]:
    return [_merge(gguf, line) for line in gguf.require_texts(f"{PREFIX}.merges")]


def _merge(gguf: GGUFFile, line: str) -> tuple[str, str]:
    """Two tokens with a space between them."""
    left, _, right = line.partition(" ")
    if not left or not right or " " in right:
        raise ModelLoadError(f"{gguf.path}: {PREFIX}.merges: {line!r} must be two tokens with one space between them")
    return left, right


def _wrap(gguf: GGUFFile, backend: Backend, vocabulary: Vocabulary, kind: str) -> HFTokenizer:
    backend.add_tokens([AddedToken(token, normalized=False) for token in vocabulary.user_defined])
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in vocabulary.markup])
    _add_ends(gguf, backend, vocabulary, kind)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=gguf.get("tokenizer.chat_template", str),
        clean_up_tokenization_spaces=False,
        bos_token=vocabulary.named("bos"),
        eos_token=vocabulary.named("eos"),
    )
    ends = [vocabulary.special[name] for name in ("eot", "eom") if name in vocabulary.special]
    return HFTokenizer(wrapped, ends)


def _add_ends(gguf: GGUFFile, backend: Backend, vocabulary: Vocabulary, kind: str) -> None:
    """Begin (and end) every encoded text with the tokens that the metadata asks for."""
    first, last = ("cls", "sep") if kind == "bert" else ("bos", "eos")
    words = WORDS.get(gguf.get(f"{PREFIX}.pre", str) or "") if kind == "gpt2" else None
    adds_bos = gguf.get(f"{PREFIX}.add_bos_token", bool)
    adds_eos = gguf.get(f"{PREFIX}.add_eos_token", bool)
    if adds_bos is None:
        adds_bos = words.adds_bos if words is not None else kind != "gpt2"
    if adds_eos is None:
        adds_eos = kind == "bert"
    names = [name for name, is_added in ((first, adds_bos), (last, adds_eos)) if is_added]
    for name in names:
        if name not in vocabulary.special:
            raise ModelLoadError(f"{gguf.path}: {PREFIX}.add_{name}_token is on, but there is no {name}_token_id")
    if names:
        ends = {name: vocabulary.tokens[vocabulary.special[name]] for name in names}
        template = [*([ends[first]] if adds_bos else []), "$A", *([ends[last]] if adds_eos else [])]
        special = [(token, backend.token_to_id(token)) for token in dict.fromkeys(ends.values())]
        backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
