"""A model and a tokenizer that are in memory already, as a LoadedModel."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tokenizer_utils import TokenizerWrapper
from transformers import PreTrainedTokenizerBase

from mlx_agent_llm.models.configuration import context_length
from mlx_agent_llm.models.loading import LoadedModel, logits_width
from mlx_agent_llm.models.tokenizer import HFTokenizer, Tokenizer


def from_parts(model: nn.Module, tokenizer: Any) -> LoadedModel:
    """Take an mlx-lm model and its tokenizer: mlx-lm's wrapper, a fast one of transformers, or one of our own kind.

    The context is what the model's args, or those of its language model, name as such.
    """
    args: Any = getattr(model, "args", None)
    context = context_length(args, getattr(args, "text_config", None))
    materialize(model)
    return LoadedModel(
        model, _as_tokenizer(tokenizer), type(model).__module__.rpartition(".")[2], context, logits_width(model)
    )


def materialize(model: nn.Module) -> None:
    """Evaluate every array that the model holds, private ones too: only its own thread can compute a lazy one."""
    modules: list[nn.Module] = model.modules()
    mx.eval([array for module in modules for array in module.values() if isinstance(array, mx.array)])


def _as_tokenizer(tokenizer: Any) -> Tokenizer:
    if isinstance(tokenizer, TokenizerWrapper):
        return HFTokenizer(tokenizer._tokenizer, tokenizer.eos_token_ids)
    if isinstance(tokenizer, PreTrainedTokenizerBase):
        return HFTokenizer(tokenizer)
    own: Tokenizer = tokenizer
    return own
