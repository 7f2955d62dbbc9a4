"""ModernBERT: norms before each sublayer, rotations, gates, and layers that see a window (arXiv:2412.13663)."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_llm.models.embedders.functions import Functions, Heads, Layout, Values
from mlx_agent_llm.models.embedders.text_batch import TextBatch


@dataclass(frozen=True, kw_only=True)
class ModernShape:
    """The sizes of an encoder. are_local: which layers see the tokens at most `reach` away alone."""

    vocab_size: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    max_tokens: int
    are_local: tuple[bool, ...]
    reach: int
    local_base: float
    global_base: float
    norm_eps: float
    norm_bias: bool
    attention_bias: bool
    mlp_bias: bool
    activation: str


class ModernEncoder(nn.Module):
    """A TextBatch (B, L) -> hidden states (B, L, hidden_size), or (B, 1, hidden_size) of the first tokens only."""

    def __init__(self, shape: ModernShape, functions: Functions) -> None:
        super().__init__()
        self._shape = shape
        self.num_heads = shape.num_heads
        self.num_biases, self.num_windows = 0, 1  # arrays (L, L) that scores get, and that a GPU makes of windows
        self.word_embeddings = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.embeddings_norm = _norm(shape)
        self.layers = [_Layer(shape, functions, index) for index in range(len(shape.are_local))]
        self.final_norm = _norm(shape)
        self._functions = functions

    def __call__(self, texts: TextBatch, only_first: bool = False) -> mx.array:
        """See the class."""
        functions = self._functions
        layout = functions.lay_out(texts)
        hidden = functions.enter(self.embeddings_norm(self.word_embeddings(texts.tokens)), layout)
        for layer in self.layers[:-1]:
            hidden = layer(hidden, layout)
            functions.end_layer(hidden, layout)
        hidden = functions.layer_norm(self.final_norm, self.layers[-1](hidden, layout, only_first))
        return functions.leave(hidden, layout, only_first)


class _Layer(nn.Module):
    def __init__(self, shape: ModernShape, functions: Functions, index: int) -> None:
        super().__init__()
        size = shape.hidden_size
        if index > 0:  # before the first one stands the embeddings' norm
            self.attention_norm = _norm(shape)
        self.qkv = nn.Linear(size, 3 * size, shape.attention_bias)
        self.attention_out = nn.Linear(size, size, shape.attention_bias)
        self.mlp_norm = _norm(shape)
        self.up_and_gate = nn.Linear(size, 2 * shape.intermediate_size, shape.mlp_bias)
        self.down = nn.Linear(shape.intermediate_size, size, shape.mlp_bias)
        is_local = shape.are_local[index]
        base, reach = (shape.local_base, shape.reach) if is_local else (shape.global_base, None)
        self._heads = Heads(shape.num_heads, shape.num_heads, (size // shape.num_heads) ** -0.5, base, reach)
        self._activation = shape.activation
        self._functions = functions

    def __call__(self, hidden: Values, layout: Layout, only_first: bool = False) -> Values:
        functions = self._functions
        normed = functions.layer_norm(self.attention_norm, hidden) if "attention_norm" in self else hidden
        attended = self._attend(normed, layout)
        if only_first:
            hidden, attended = functions.first(hidden, layout), functions.first(attended, layout)
        hidden = hidden + functions.linear(self.attention_out, attended)
        both = functions.linear(self.up_and_gate, functions.layer_norm(self.mlp_norm, hidden))
        middle = both.shape[-1] // 2
        widened = functions.activate(self._activation, both[..., :middle]) * both[..., middle:]
        return hidden + functions.linear(self.down, widened)

    def _attend(self, hidden: Values, layout: Layout) -> Values:
        size, qkv = hidden.shape[-1], self._functions.linear(self.qkv, hidden)
        query, key, value = (qkv[..., start : start + size] for start in (0, size, 2 * size))
        return self._functions.attend(query, key, value, layout, self._heads, None)


def _norm(shape: ModernShape) -> nn.LayerNorm:
    return nn.LayerNorm(shape.hidden_size, shape.norm_eps, bias=shape.norm_bias)
