"""The chat templates that model families ship, each behind a tokenizer of bytes with its marks as control tokens."""

from __future__ import annotations

import re
from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mlx_agent_llm.models.tokenizer import HFTokenizer, byte_level_alphabet
from tests.support.corpora import FOLDER, corpus

_TEMPLATES = "vendor/llama.cpp/models/templates"
_MARK = re.compile(
    r"<[|｜][^<>\s'\"{}]+[|｜]>|<\|[a-z_]+>|<[a-z_]+\|>|\[/?[A-Z_]+\]|<[A-Z]+_[0-9]+>"
    r"|\[e~\[|\]~b\]|\]~!b\[|\]<\]minimax\[>\["
)
_ENDS = frozenset(
    "<|im_end|> <|eot_id|> <|eom_id|> <|eot|> <|eom|> <|call|> <|calls|> <|return|> <｜end▁of▁sentence｜> <|end|> "
    "<|end_of_text|> <|role_end|> <|END_OF_TURN_TOKEN|> <|assistant_end|> <|end_of_msg|> "
    "</s> <turn|> <|tool_response> <end_of_turn> <seed:eos> [e~[".split()
)


def template_names() -> list[str]:
    """The names of the templates that were fetched, sorted."""
    return sorted(path.stem for path in (FOLDER / "llama-cpp-python" / _TEMPLATES).glob("*.jinja"))


def template_source(name: str) -> str:
    """The source of a template; skips the test where it was not fetched."""
    return (corpus("llama-cpp-python") / _TEMPLATES / f"{name}.jinja").read_text()


@cache
def tokenizer_of(name: str) -> HFTokenizer:
    """A tokenizer with a template of that name."""
    return byte_tokenizer(template_source(name))


def byte_tokenizer(template: str | dict[str, str]) -> HFTokenizer:
    """One token a byte, and what looks like a control token in the template; its ends of turns end replies."""
    backend = Tokenizer(models.BPE({char: byte for char, byte in byte_level_alphabet().items()}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    sources = template if isinstance(template, str) else "".join(template.values())
    marks = ["<s>", "</s>", *dict.fromkeys(_MARK.findall(sources))]
    backend.add_special_tokens([AddedToken(mark, normalized=False) for mark in marks])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = template
    inner = {"<|end|>"} if {"<|return|>", "<|calls|>"} & set(marks) else set()  # there it ends a part of a reply
    inner |= {"<|eom|>"} if {"<|eom|>", "<|eot|>"} <= set(marks) else set()
    ends = [backend.token_to_id(mark) for mark in dict.fromkeys(marks) if mark in _ENDS - inner]
    return HFTokenizer(tokenizer, ends)
