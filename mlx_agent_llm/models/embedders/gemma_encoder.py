"""Gemma 3 that sees both ways (EmbeddingGemma, arXiv:2509.20354): norms around each sublayer, and few heads of keys."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_llm.models.embedders.functions import Functions, Heads, Layout, Values
from mlx_agent_llm.models.embedders.text_batch import TextBatch


@dataclass(frozen=True, kw_only=True)
class GemmaShape:
    """The sizes of an encoder. are_local: which layers see the tokens at most `reach` away alone."""

    vocab_size: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    max_tokens: int
    are_local: tuple[bool, ...]
    reach: int
    local_base: float
    global_base: float
    norm_eps: float
    query_scalar: float  # scores are divided by its root
    attention_bias: bool
    activation: str


class GemmaEncoder(nn.Module):
    """A TextBatch (B, L) -> hidden states (B, L, hidden_size), or (B, 1, hidden_size) of the first tokens only."""

    def __init__(self, shape: GemmaShape, functions: Functions) -> None:
        super().__init__()
        self._shape = shape
        self.num_heads = shape.num_heads
        self.num_biases, self.num_windows = 0, 1  # arrays (L, L) that scores get, and that a GPU makes of windows
        self.word_embeddings = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = [_Layer(shape, functions, is_local) for is_local in shape.are_local]
        self.final_norm = _Norm(shape.hidden_size, shape.norm_eps, functions)
        self._functions = functions

    def __call__(self, texts: TextBatch, only_first: bool = False) -> mx.array:
        """See the class."""
        hidden = self.word_embeddings(texts.tokens)
        hidden = hidden * mx.array(self._shape.hidden_size**0.5, hidden.dtype)
        layout = self._functions.lay_out(texts)
        values = self._functions.enter(hidden, layout)
        for layer in self.layers[:-1]:
            values = layer(values, layout)
            self._functions.end_layer(values, layout)
        values = self.final_norm(self.layers[-1](values, layout, only_first))
        return self._functions.leave(values, layout, only_first)


class _Layer(nn.Module):
    def __init__(self, shape: GemmaShape, functions: Functions, is_local: bool) -> None:
        super().__init__()
        size, heads_size = shape.hidden_size, shape.num_heads * shape.head_dim
        kv_size, has_bias = shape.num_kv_heads * shape.head_dim, shape.attention_bias
        self.query = nn.Linear(size, heads_size, has_bias)
        self.key, self.value = (nn.Linear(size, kv_size, has_bias) for _ in range(2))
        self.attention_out = nn.Linear(heads_size, size, has_bias)
        self.query_norm, self.key_norm = (_Norm(shape.head_dim, shape.norm_eps, functions) for _ in range(2))
        self.before_attention, self.after_attention = (_Norm(size, shape.norm_eps, functions) for _ in range(2))
        self.before_mlp, self.after_mlp = (_Norm(size, shape.norm_eps, functions) for _ in range(2))
        self.gate, self.up = (nn.Linear(size, shape.intermediate_size, bias=False) for _ in range(2))
        self.down = nn.Linear(shape.intermediate_size, size, bias=False)
        base, reach = (shape.local_base, shape.reach) if is_local else (shape.global_base, None)
        self._heads = Heads(shape.num_heads, shape.num_kv_heads, shape.query_scalar**-0.5, base, reach)
        self._activation = shape.activation
        self._functions = functions

    def __call__(self, hidden: Values, layout: Layout, only_first: bool = False) -> Values:
        functions = self._functions
        attended = self._attend(self.before_attention(hidden), layout)
        if only_first:
            hidden, attended = functions.first(hidden, layout), functions.first(attended, layout)
        hidden = hidden + self.after_attention(functions.linear(self.attention_out, attended))
        normed = self.before_mlp(hidden)
        gate = functions.activate(self._activation, functions.linear(self.gate, normed))
        return hidden + self.after_mlp(functions.linear(self.down, gate * functions.linear(self.up, normed)))

    def _attend(self, hidden: Values, layout: Layout) -> Values:
        functions = self._functions
        query, key, value = (functions.linear(project, hidden) for project in (self.query, self.key, self.value))
        query, key = _of_heads(self.query_norm, query), _of_heads(self.key_norm, key)
        return functions.attend(query, key, value, layout, self._heads, None)


class _Norm(nn.Module):
    """By the root mean square; its weights are what is added to 1."""

    def __init__(self, size: int, eps: float, functions: Functions) -> None:
        super().__init__()
        self.weight = mx.zeros((size,))
        self._eps = eps
        self._functions = functions

    def __call__(self, x: Values) -> Values:
        return self._functions.rms_norm(1.0 + self.weight, x, self._eps)


def _of_heads(norm: _Norm, x: Values) -> Values:
    """Norm each head's values by themselves."""
    return norm(x.reshape(*x.shape[:-1], -1, len(norm.weight))).reshape(x.shape)
