r"""How text is cut into words before byte-level BPE merges, by the name in tokenizer.ggml.pre.

Patterns: the tokenizer files of the models, in the syntax of Oniguruma, which the tokenizers library runs. In another
library \s and \p{...} may mean other characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tokenizers import Regex, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend


class Words(NamedTuple):
    """Cuts, one after the other, and what else the name stands for.

    patterns: each match is a word of its own, and so is what lies between. by_gpt2: GPT-2's own cuts come last.
    digits: each digit is a word of its own, before all else. takes_words: a word that is a token stays whole whatever
    its merges are. adds_bos: where the file does not say otherwise. composes: text is normalized to NFC.
    """

    patterns: tuple[str, ...] = ()
    by_gpt2: bool = False
    digits: bool = False
    punctuation: bool = False
    takes_words: bool = False
    adds_bos: bool = False
    composes: bool = False

    def apply(self, backend: Backend) -> None:
        """Set the normalizer and the pre-tokenizer of a byte-level BPE tokenizer."""
        if self.composes:
            backend.normalizer = normalizers.NFC()
        steps: list[pre_tokenizers.PreTokenizer] = []
        if self.punctuation:
            steps.append(pre_tokenizers.Punctuation("contiguous"))
        if self.digits:
            steps.append(pre_tokenizers.Digits(individual_digits=True))
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=self.by_gpt2)
        splits = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in self.patterns]
        # Falcon's pattern is for what GPT-2's cuts leave; the others stand in their place.
        steps += [byte_level, *splits] if self.by_gpt2 else [*splits, byte_level]
        backend.pre_tokenizer = pre_tokenizers.Sequence(steps)


_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"


def _like_llama3(digits: str) -> str:
    return rf"{_CONTRACTIONS}|{_BEFORE}\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"


def _by_case(ending: str, digits: str) -> str:
    """A word may begin in capitals, and what follows is small; `ending` may follow both."""
    words = f"{_BEFORE}{_UPPER}*{_LOWER}+{ending}|{_BEFORE}{_UPPER}+{_LOWER}*{ending}"
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"


_GPT2 = Words(by_gpt2=True)
_BY_DIGIT = Words(by_gpt2=True, digits=True)
_LLAMA3 = Words((_like_llama3(r"\p{N}{1,3}"),))
_QWEN2 = Words((_like_llama3(r"\p{N}"),))
_QWEN35 = Words(
    (rf"{_CONTRACTIONS}|{_BEFORE}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}",)
)
# Scripts with upper and lower case, as DeepSeek's first tokenizers list them.
_CASED = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-"
    "\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec"
    "\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-"
    "\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3"
    "\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17"
    "\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-"
    "\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_HAN_AND_HANGUL = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_DEEPSEEK_LLM = Words(
    (
        r"[\r\n]",
        rf"\s?[{_CASED}]+",
        "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
        r"\s+$",
        _HAN_AND_HANGUL,
        r"\p{N}",
    )
)
_DEEPSEEK_CODER = Words((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN_AND_HANGUL, r"\p{N}"))
_DEEPSEEK_V3 = Words(
    (
        r"\p{N}{1,3}",
        "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
        rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}",
    )
)
_GPT_4O = Words((_by_case(f"{_CONTRACTIONS}?", r"\p{N}{1,3}"),))

WORDS: Mapping[str, Words] = {
    **dict.fromkeys(("gpt-2", "default", "phi-2", "olmo", "jais", "trillion", "granite-docling"), _GPT2),
    "mpt": _GPT2._replace(composes=True),
    **dict.fromkeys(("starcoder", "refact", "smollm", "codeshell", "exaone", "minerva-7b"), _BY_DIGIT),
    "command-r": _BY_DIGIT._replace(composes=True),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2"),
        _LLAMA3._replace(takes_words=True, adds_bos=True),
    ),
    "glm4": _LLAMA3._replace(takes_words=True),
    **dict.fromkeys(("dbrx", "smaug-bpe", "chatglm-bpe"), _LLAMA3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), _QWEN2._replace(composes=True)),
    **dict.fromkeys(("stablelm2", "hunyuan", "megrez"), _QWEN2),
    "qwen35": _QWEN35,
    "falcon": Words(("[0-9][0-9][0-9]",), by_gpt2=True, punctuation=True),
    "deepseek-llm": _DEEPSEEK_LLM,
    "deepseek-coder": _DEEPSEEK_CODER,
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense"), _DEEPSEEK_V3),
    "tekken": Words((_by_case("", r"\p{N}"),), takes_words=True, adds_bos=True),
    **dict.fromkeys(("gpt-4o", "llama4", "minimax-m2"), _GPT_4O._replace(takes_words=True)),
}
