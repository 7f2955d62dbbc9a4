"""Gemma 3 that sees both ways (EmbeddingGemma, arXiv:2509.20354): norms around each sublayer, and few heads of keys."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_llm.models.embedders.encoder import rotate
from mlx_agent_llm.models.embedders.functions import ACTIVATIONS, Functions, bias_of_window
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
    """A TextBatch (B, L) -> hidden states (B, L, hidden_size), or of the first num_read tokens of each text."""

    def __init__(self, shape: GemmaShape, functions: Functions) -> None:
        super().__init__()
        self._shape = shape
        self.num_heads = shape.num_heads
        self.num_biases = 1  # arrays (L, L) that scores get
        self.word_embeddings = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = [_Layer(shape, functions, is_local) for is_local in shape.are_local]
        self.final_norm = _Norm(shape.hidden_size, shape.norm_eps)

    def __call__(self, texts: TextBatch, num_read: int | None = None) -> mx.array:
        """See the class."""
        hidden = self.word_embeddings(texts.tokens)
        hidden = hidden * mx.array(self._shape.hidden_size**0.5, hidden.dtype)
        real = texts.real_keys
        window = bias_of_window(texts.tokens.shape[1], self._shape.reach)
        windows = [window if is_local else None for is_local in self._shape.are_local]
        for layer, each in zip(self.layers[:-1], windows[:-1], strict=True):
            hidden = layer(hidden, real, each)
        normed: mx.array = self.final_norm(self.layers[-1](hidden, real, windows[-1], num_read))
        return normed


class _Layer(nn.Module):
    def __init__(self, shape: GemmaShape, functions: Functions, is_local: bool) -> None:
        super().__init__()
        size, heads_size = shape.hidden_size, shape.num_heads * shape.head_dim
        kv_size, has_bias = shape.num_kv_heads * shape.head_dim, shape.attention_bias
        self.query = nn.Linear(size, heads_size, has_bias)
        self.key, self.value = (nn.Linear(size, kv_size, has_bias) for _ in range(2))
        self.attention_out = nn.Linear(heads_size, size, has_bias)
        self.query_norm, self.key_norm = (_Norm(shape.head_dim, shape.norm_eps) for _ in range(2))
        self.before_attention, self.after_attention = (_Norm(size, shape.norm_eps) for _ in range(2))
        self.before_mlp, self.after_mlp = (_Norm(size, shape.norm_eps) for _ in range(2))
        self.gate, self.up = (nn.Linear(size, shape.intermediate_size, bias=False) for _ in range(2))
        self.down = nn.Linear(shape.intermediate_size, size, bias=False)
        self._shape = shape
        self._base = shape.local_base if is_local else shape.global_base
        self._attention = functions.attend
        self._activation = ACTIVATIONS[shape.activation] or functions.gelu

    def __call__(
        self, hidden: mx.array, real: mx.array | None, window: mx.array | None, num_read: int | None = None
    ) -> mx.array:
        attended = self._attend(self.before_attention(hidden), real, window, num_read)
        hidden = hidden[:, :num_read] + self.after_attention(attended)
        normed = self.before_mlp(hidden)
        output: mx.array = hidden + self.after_mlp(self.down(self._activation(self.gate(normed)) * self.up(normed)))
        return output

    def _attend(
        self, hidden: mx.array, real: mx.array | None, window: mx.array | None, num_read: int | None
    ) -> mx.array:
        batch, num_tokens, _ = hidden.shape
        query, key, value = (
            project(hidden).reshape(batch, num_tokens, -1, self._shape.head_dim).transpose(0, 2, 1, 3)
            for project in (self.query, self.key, self.value)
        )
        query, key = rotate(self.query_norm(query), self._base), rotate(self.key_norm(key), self._base)
        query = query * (self._shape.head_dim / self._shape.query_scalar) ** 0.5  # attend divides by head_dim's root
        key, value = (mx.repeat(x, self._shape.num_heads // self._shape.num_kv_heads, axis=1) for x in (key, value))
        query, window = query[:, :, :num_read], None if window is None else window[:, :, :num_read]
        attended = self._attention(query, key, value, real, window)
        projected: mx.array = self.attention_out(attended.transpose(0, 2, 1, 3).flatten(2))
        return projected


class _Norm(nn.Module):
    """By the root mean square; its weights are what is added to 1."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = mx.zeros((size,))
        self._eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.rms_norm(x, 1.0 + self.weight, self._eps)
