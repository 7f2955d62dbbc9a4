from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models
from transformers import PreTrainedTokenizerFast

from mlx_agent_llm.errors import ModelLoadError, RequestError, UnsupportedModelError
from mlx_agent_llm.models import HFTokenizer
from mlx_agent_llm.models.gguf.file import read_gguf
from mlx_agent_llm.models.gguf.tokenizer import build_tokenizer
from mlx_agent_llm.models.source import find_demo
from tests.support import gguf_files as files
from tests.support.search import examples

TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60)
WORD_TEXTS = st.text(alphabet=" abthe\u00e9\U0001f600\n\u4e2d", max_size=30)


@pytest.fixture(scope="module")
def demo() -> HFTokenizer:
    path = find_demo()
    if path is None:
        pytest.skip("the demo model is not installed")
    return build_tokenizer(read_gguf(path))


def built(folder: Path, changes: dict[str, object] | None = None) -> HFTokenizer:
    spec = files.Spec(files.llama_spec(changes=changes).metadata)
    return build_tokenizer(read_gguf(files.write(folder / "tokenizer.gguf", spec)))


def pieces() -> tuple[list[str], list[float], list[int]]:
    """A SentencePiece vocabulary: markup, all bytes, then pieces with distinct scores; some pieces overlap."""
    learned = [
        "th",
        "he",
        "the",
        "\u2581the",
        "\u2581t",
        "at",
        "\u2581a",
        "ab",
        "aba",
        "\u2581\u2581",
        "bab",
        "the\u2581",
    ]
    characters = ["\u2581", "t", "h", "e", "a", "b", "\u00e9"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *learned, *characters, "<tool>"]
    scores = [0.0] * 259 + [-float(rank) for rank in range(len(learned) + len(characters))] + [0.0]
    types = [2, 3, 3, *[6] * 256, *[1] * (len(learned) + len(characters)), 4]
    return tokens, scores, types


def sentence_piece(folder: Path, **changes: object) -> HFTokenizer:
    tokens, scores, types = pieces()
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    metadata |= {f"tokenizer.ggml.{name}": value for name, value in changes.items()}
    return build_tokenizer(read_gguf(files.write(folder / "sp.gguf", files.Spec(metadata))))


def joined_by_score(text: str) -> list[int]:
    """SentencePiece's own procedure: join the leftmost best-scoring neighbours until none fits, then fall to bytes."""
    tokens, scores, _ = pieces()
    learned = dict(zip(tokens[259:-1], scores[259:-1], strict=True))
    symbols = list(("\u2581" + text if text else "").replace(" ", "\u2581"))
    while True:
        candidates = [(learned.get(a + b), i) for i, (a, b) in enumerate(pairwise(symbols))]
        fitting = [(-score, i) for score, i in candidates if score is not None]
        if not fitting:
            break
        _, index = min(fitting)
        symbols[index : index + 2] = [symbols[index] + symbols[index + 1]]
    ids = list[int]()
    for symbol in symbols:
        known = symbol in learned
        ids.extend([tokens.index(symbol)] if known else [3 + byte for byte in symbol.encode()])
    return ids


@settings(max_examples=examples(150))
@given(text=TEXTS)
def test_the_bytes_of_the_tokens_are_the_bytes_of_the_text(demo: HFTokenizer, text: str) -> None:
    """A few bytes have no token in this vocabulary, and its tokenizer drops them; control tokens are no text."""
    assume(not any(special in text for special in demo.special_token_texts.values()))
    known = {token[0] for token in demo.token_bytes if len(token) == 1}
    kept = bytes(byte for byte in text.encode() if byte in known)
    token_ids = demo.encode(text, add_special_tokens=False)
    assert b"".join(demo.token_bytes[token_id] for token_id in token_ids) == kept
    assert demo.decode(token_ids) == text or kept != text.encode()


def test_special_tokens_in_the_text_are_parsed_and_have_no_bytes(demo: HFTokenizer) -> None:
    token_ids = demo.encode("<|im_start|>user\n")
    assert token_ids[0] == 1 and demo.token_bytes[1] == b""
    assert demo.decode(token_ids) == "user\n"


def test_the_demo_tokenizer_says_what_its_metadata_says(demo: HFTokenizer) -> None:
    assert demo.vocab_size == 49152 == len(demo.token_bytes)
    assert demo.eos_token_ids == {2}
    assert demo.special_token_texts.keys() == set(range(17))
    assert demo.special_token_texts[1] == "<|im_start|>"
    assert demo.strip_leading_space is False
    assert demo.encode("12") == [*demo.encode("1"), *demo.encode("2")]
    every_byte = {byte for token in demo.token_bytes for byte in token}
    assert every_byte >= set("the quick brown fox \u00fc\U0001f600".encode())


def test_the_chat_template_is_rendered_with_its_own_default_system_message(demo: HFTokenizer) -> None:
    prompt = demo.apply_chat_template([{"role": "user", "content": "Hi"}])
    assert prompt.startswith("<|im_start|>system\nYou are a helpful AI assistant")
    assert prompt.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    without = demo.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=False)
    assert prompt == without + "<|im_start|>assistant\n"


def test_tools_and_further_arguments_reach_the_template(tmp_path: Path) -> None:
    template = "{{ tools[0].name }} {{ mood }} {{ messages[0].content }}"
    tokenizer = built(tmp_path, {"tokenizer.chat_template": template})
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tools=[{"name": "f"}], mood="calm")
    assert prompt == "f calm x" and tokenizer.chat_template == template


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].content + 1 }}", "refuses these messages"),
        ("{% if %}", "refuses these messages"),
    ],
)
def test_a_template_that_fails_is_a_request_error(tmp_path: Path, template: str, message: str) -> None:
    tokenizer = built(tmp_path, {"tokenizer.chat_template": template})
    with pytest.raises(RequestError, match=message):
        tokenizer.apply_chat_template([{"role": "user", "content": "x"}])


def test_messages_without_a_chat_template_are_a_request_error(tmp_path: Path) -> None:
    tokenizer = built(tmp_path, {"tokenizer.chat_template": None})
    assert tokenizer.chat_template is None
    with pytest.raises(RequestError, match="none"):
        tokenizer.apply_chat_template([{"role": "user", "content": "x"}])


@pytest.mark.parametrize(
    ("pre", "words"),
    [
        ("gpt-2", ["a", "\u0120123", "\u0120I", "'m"]),
        ("smollm", ["a", "\u0120", "1", "2", "3", "\u0120I", "'m"]),
        ("llama-bpe", ["a", "\u0120", "123", "\u0120I", "'m"]),
        ("qwen2", ["a", "\u0120", "1", "2", "3", "\u0120I", "'m"]),
    ],
)
def test_each_pre_tokenizer_cuts_numbers_its_own_way(tmp_path: Path, pre: str, words: list[str]) -> None:
    """Every character of the text may merge into the words below, so that only the cuts keep them apart."""
    whole = ["a", *(f"\u0120{digits}" for digits in ("1", "12", "123")), "12", "123", "\u0120I", "'m", "a\u0120", "I'"]
    tokens = [*files.byte_vocabulary()[:-1], *(word for word in whole if len(word) > 1)]
    merges = ["\u0120 1", "\u01201 2", "\u012012 3", "1 2", "12 3", "\u0120 I", "' m", "a \u0120", "I '"]
    changes: dict[str, object] = {
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, 3, *[1] * (len(tokens) - 3)],
        "tokenizer.ggml.merges": merges,
    }
    tokenizer = built(tmp_path, changes)
    assert [tokens[i] for i in tokenizer.encode("a 123 I'm", add_special_tokens=False)] == words


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [3]),
        ({"tokenizer.ggml.add_bos_token": True}, [0, 3]),
        ({"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}, [0, 3, 1]),
        ({"tokenizer.ggml.pre": "llama-bpe"}, [0, 3]),
        ({"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.add_bos_token": False}, [3]),
    ],
)
def test_begin_and_end_tokens_follow_the_metadata(
    tmp_path: Path, changes: dict[str, object], expected: list[int]
) -> None:
    tokenizer = built(tmp_path, changes)
    assert tokenizer.encode("!") == expected
    assert tokenizer.encode("!", add_special_tokens=False) == [3]


def test_the_end_of_turn_token_ends_only_where_the_metadata_names_it(tmp_path: Path) -> None:
    assert built(tmp_path).eos_token_ids == {1}
    assert built(tmp_path, {"tokenizer.ggml.eot_token_id": 2}).eos_token_ids == {1, 2}


def test_an_unused_token_is_never_produced_and_has_no_bytes(tmp_path: Path) -> None:
    tokens = [*files.byte_vocabulary(), "[PAD]"]
    types = [3, 3, 3, *[1] * (len(tokens) - 4), 5]
    tokenizer = built(tmp_path, {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types})
    token_ids = tokenizer.encode("[PAD]")
    assert len(token_ids) == 5 and tokenizer.decode(token_ids) == "[PAD]"


def test_a_token_that_appears_twice_is_named(tmp_path: Path) -> None:
    tokens = [*files.byte_vocabulary()[:-1], "a"]
    with pytest.raises(ModelLoadError, match="'a' has the ids"):
        built(tmp_path, {"tokenizer.ggml.tokens": tokens})


@settings(max_examples=examples(300))
@given(text=WORD_TEXTS)
def test_sentence_piece_merges_equal_the_procedure_over_scores(sp: HFTokenizer, text: str) -> None:
    token_ids = sp.encode(text, add_special_tokens=False)
    assert token_ids == joined_by_score(text)
    assert sp.decode(token_ids) == text
    if text:
        assert b"".join(sp.token_bytes[token_id] for token_id in token_ids).decode() == " " + text


@pytest.fixture(scope="module")
def sp(tmp_path_factory: pytest.TempPathFactory) -> HFTokenizer:
    return sentence_piece(tmp_path_factory.mktemp("sp"))


def test_sentence_piece_begins_with_bos_and_strips_the_first_space(sp: HFTokenizer) -> None:
    assert sp.strip_leading_space is True
    assert sp.encode("the") == [1, pieces()[0].index("\u2581the")]
    assert sp.token_bytes[3 + 0x0A] == b"\n" and sp.token_bytes[1] == b""


def test_a_user_defined_token_is_text_and_is_found_in_text(sp: HFTokenizer) -> None:
    tool = len(pieces()[0]) - 1
    assert tool in sp.encode("a<tool>b") and tool not in sp.special_token_texts
    assert sp.token_bytes[tool] == b"<tool>"


def test_sentence_piece_without_the_space_prefix_keeps_the_text_as_it_is(tmp_path: Path) -> None:
    tokenizer = sentence_piece(tmp_path, add_space_prefix=False)
    assert tokenizer.strip_leading_space is False
    token_ids = tokenizer.encode(" the", add_special_tokens=False)
    assert token_ids == [pieces()[0].index("\u2581the")] and tokenizer.decode(token_ids) == " the"


def test_scores_that_do_not_fit_the_tokens_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"scores must be \d+ floats"):
        sentence_piece(tmp_path, scores=[0.0])


def test_a_decoder_of_another_kind_is_named() -> None:
    backend = Backend(models.BPE({"a": 0}, []))
    backend.decoder = decoders.WordPiece()
    with pytest.raises(UnsupportedModelError, match="WordPiece"):
        HFTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend))


def test_an_end_token_outside_the_vocabulary_is_refused(demo: HFTokenizer) -> None:
    backend = Backend(models.BPE({"a": 0}, []))
    backend.decoder = decoders.ByteLevel()
    with pytest.raises(ModelLoadError, match="eos_token_id=7 must be between 0 and 0"):
        HFTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend), [7])


def test_prompts_are_not_cut_or_padded_whatever_the_tokenizer_file_asks_for() -> None:
    backend = Backend(models.BPE({"a": 0}, []))
    backend.decoder = decoders.ByteLevel()
    backend.enable_truncation(2)
    backend.enable_padding(length=9)
    assert HFTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend)).encode("aaaa") == [0, 0, 0, 0]
