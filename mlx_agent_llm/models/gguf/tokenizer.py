"""The tokenizer that a GGUF file carries in its metadata: byte-level BPE ("gpt2") or SentencePiece BPE ("llama")."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from mlx_agent_llm.errors import ModelLoadError, UnsupportedModelError
from mlx_agent_llm.models.gguf.file import GGUFFile
from mlx_agent_llm.models.tokenizer import HFTokenizer

_PREFIX = "tokenizer.ggml"
_SPACE_MARK = "\u2581"


class TokenType(IntEnum):
    """The kinds of tokens in tokenizer.ggml.token_type."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def build_tokenizer(gguf: GGUFFile) -> HFTokenizer:
    """Build the tokenizer with its special tokens, end tokens and chat template."""
    kind = gguf.require(f"{_PREFIX}.model", str)
    if kind not in ("gpt2", "llama"):
        raise UnsupportedModelError(
            f"{gguf.path}: {_PREFIX}.model={kind!r} is not supported: 'gpt2' (byte-level BPE) and 'llama' "
            "(SentencePiece BPE) are"
        )
    tokens = gguf.require_texts(f"{_PREFIX}.tokens")
    types = _token_types(gguf, tokens)
    try:
        backend = _byte_level(gguf, tokens, types) if kind == "gpt2" else _sentence_piece(gguf, tokens, types)
        return _wrap(gguf, backend, tokens, types, kind)
    except (ModelLoadError, MemoryError):
        raise
    except Exception as error:  # the tokenizers library raises bare Exception for a vocabulary that is inconsistent
        raise ModelLoadError(f"{gguf.path}: the tokenizer cannot be built: {error}") from error


def _byte_level(gguf: GGUFFile, tokens: list[str], types: list[TokenType]) -> Backend:
    name = gguf.require(f"{_PREFIX}.pre", str)
    splitters = _splitters()
    if name not in splitters:
        raise UnsupportedModelError(
            f"{gguf.path}: {_PREFIX}.pre={name!r} is not supported: {', '.join(map(repr, splitters))} are"
        )
    merges = [_merge(gguf, line) for line in gguf.require_texts(f"{_PREFIX}.merges")]
    # Llama 3 takes a word that is a token as it is, whatever its merges are.
    backend = Backend(models.BPE(_vocabulary(gguf, tokens, types), merges, ignore_merges=name == "llama-bpe"))
    if name == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = splitters[name]()
    backend.decoder = decoders.ByteLevel()
    return backend


def _splitters() -> Mapping[str, Callable[[], pre_tokenizers.PreTokenizer]]:
    """tokenizer.ggml.pre -> how text is cut into words before merging."""
    words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    rest = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

    def by_pattern(digits: str) -> pre_tokenizers.PreTokenizer:
        split = pre_tokenizers.Split(Regex(words + digits + rest), behavior="isolated")
        return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])

    def gpt2() -> pre_tokenizers.PreTokenizer:
        return pre_tokenizers.ByteLevel(add_prefix_space=False)

    def smollm() -> pre_tokenizers.PreTokenizer:
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2()])

    return {
        "gpt-2": gpt2,
        "default": gpt2,
        "smollm": smollm,
        "llama-bpe": lambda: by_pattern(r"\p{N}{1,3}"),
        "qwen2": lambda: by_pattern(r"\p{N}"),
    }


def _sentence_piece(gguf: GGUFFile, tokens: list[str], types: list[TokenType]) -> Backend:
    scores = gguf.require(f"{_PREFIX}.scores", list)
    if len(scores) != len(tokens) or not all(isinstance(score, float) for score in scores):
        raise ModelLoadError(f"{gguf.path}: {_PREFIX}.scores must be {len(tokens)} floats, one a token")
    unknown = _token(gguf, "unknown_token_id", tokens)
    merges = _merges_by_score(tokens, types, scores)
    vocabulary = _vocabulary(gguf, tokens, types)
    backend = Backend(models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    has_prefix = gguf.get(f"{_PREFIX}.add_space_prefix", bool) is not False
    marks: list[normalizers.Normalizer] = [normalizers.Prepend(_SPACE_MARK)] if has_prefix else []
    backend.normalizer = normalizers.Sequence([*marks, normalizers.Replace(" ", _SPACE_MARK)])
    strip: list[decoders.Decoder] = [decoders.Strip(" ", 1, 0)] if has_prefix else []
    steps = [decoders.Replace(_SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    backend.decoder = decoders.Sequence(steps)
    return backend


def _merges_by_score(tokens: list[str], types: list[TokenType], scores: list[float]) -> list[tuple[str, str]]:
    """Turn scores (SentencePiece joins the neighbours whose union scores best) into a ranked list of merges."""
    score_of = {
        token: score for token, kind, score in zip(tokens, types, scores, strict=True) if kind is TokenType.NORMAL
    }
    ranked = sorted(score_of, key=lambda piece: -score_of[piece])
    cuts = ((piece[:at], piece[at:]) for piece in ranked for at in range(1, len(piece)))
    return [(left, right) for left, right in cuts if left in score_of and right in score_of]


def _wrap(gguf: GGUFFile, backend: Backend, tokens: list[str], types: list[TokenType], kind: str) -> HFTokenizer:
    typed = list(zip(tokens, types, strict=True))
    backend.add_tokens([AddedToken(token, normalized=False) for token, of in typed if of is TokenType.USER_DEFINED])
    special = [token for token, of in typed if of in (TokenType.CONTROL, TokenType.UNKNOWN)]
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    bos, eos = (_token(gguf, name, tokens) for name in ("bos_token_id", "eos_token_id"))
    _add_ends(gguf, backend, bos, eos, kind)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=gguf.get("tokenizer.chat_template", str),
        clean_up_tokenization_spaces=False,
        bos_token=bos,
        eos_token=eos,
    )
    end_of_turn = _token_id(gguf, "eot_token_id", tokens)
    return HFTokenizer(wrapped, [] if end_of_turn is None else [end_of_turn])


def _add_ends(gguf: GGUFFile, backend: Backend, bos: str | None, eos: str | None, kind: str) -> None:
    """Begin (and end) every encoded text with the tokens that the metadata asks for."""
    by_default = kind == "llama" or gguf.get(f"{_PREFIX}.pre", str) == "llama-bpe"
    add_bos = gguf.get(f"{_PREFIX}.add_bos_token", bool)
    add_bos = by_default if add_bos is None else add_bos
    add_eos = gguf.get(f"{_PREFIX}.add_eos_token", bool) or False
    for name, is_added, token in (("bos", add_bos, bos), ("eos", add_eos, eos)):
        if is_added and token is None:
            raise ModelLoadError(f"{gguf.path}: {_PREFIX}.add_{name}_token is on, but there is no {name}_token_id")
    parts = [bos if add_bos else None, "$A", eos if add_eos else None]
    ends = {token: backend.token_to_id(token) for token in (parts[0], parts[2]) if token is not None}
    if ends:
        template = [part for part in parts if part is not None]
        backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=list(ends.items()))


def _token_types(gguf: GGUFFile, tokens: list[str]) -> list[TokenType]:
    """The type of each token; the ones that the metadata names as beginning or end are control tokens."""
    numbers = gguf.require(f"{_PREFIX}.token_type", list)
    if len(numbers) != len(tokens):
        raise ModelLoadError(f"{gguf.path}: {_PREFIX}.token_type has {len(numbers)} entries for {len(tokens)} tokens")
    try:
        types = [TokenType(number) for number in numbers]
    except ValueError as error:
        raise ModelLoadError(f"{gguf.path}: {_PREFIX}.token_type: {error}") from error
    for name in ("bos_token_id", "eos_token_id", "eot_token_id"):
        token_id = _token_id(gguf, name, tokens)
        if token_id is not None:
            types[token_id] = TokenType.CONTROL
    return types


def _vocabulary(gguf: GGUFFile, tokens: list[str], types: list[TokenType]) -> dict[str, int]:
    """Map token -> id; unused tokens are left out, so that no text becomes one of them."""
    vocabulary = dict[str, int]()
    for token_id, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if token in vocabulary:
            raise ModelLoadError(
                f"{gguf.path}: {_PREFIX}.tokens: {token!r} has the ids {vocabulary[token]} and {token_id}"
            )
        if kind is not TokenType.UNUSED:
            vocabulary[token] = token_id
    return vocabulary


def _merge(gguf: GGUFFile, line: str) -> tuple[str, str]:
    left, _, right = line.partition(" ")
    if not left or not right or " " in right:
        raise ModelLoadError(f"{gguf.path}: {_PREFIX}.merges: {line!r} must be two tokens with one space between them")
    return left, right


def _token(gguf: GGUFFile, name: str, tokens: list[str]) -> str | None:
    """The text of the token that a key names by its id; None when the key is absent."""
    token_id = _token_id(gguf, name, tokens)
    return None if token_id is None else tokens[token_id]


def _token_id(gguf: GGUFFile, name: str, tokens: list[str]) -> int | None:
    token_id = gguf.get(f"{_PREFIX}.{name}", int)
    if token_id is not None and not 0 <= token_id < len(tokens):
        raise ModelLoadError(f"{gguf.path}: {_PREFIX}.{name}={token_id} must be between 0 and {len(tokens) - 1}")
    return token_id
