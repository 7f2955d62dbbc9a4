"""ModernBERT: norms before each sublayer, rotations, gates, and layers that see a window (arXiv:2412.13663)."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_llm.models.embedders.encoder import rotate
from mlx_agent_llm.models.embedders.functions import ACTIVATIONS, Functions, bias_of_window
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
    """A TextBatch (B, L) -> hidden states (B, L, hidden_size), or of the first num_read tokens of each text."""

    def __init__(self, shape: ModernShape, functions: Functions) -> None:
        super().__init__()
        self._shape = shape
        self.num_heads = shape.num_heads
        self.num_biases = 1  # arrays (L, L) that scores get
        self.word_embeddings = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.embeddings_norm = _norm(shape)
        self.layers = [_Layer(shape, functions, index) for index in range(len(shape.are_local))]
        self.final_norm = _norm(shape)

    def __call__(self, texts: TextBatch, num_read: int | None = None) -> mx.array:
        """See the class."""
        hidden = self.embeddings_norm(self.word_embeddings(texts.tokens))
        real = texts.real_keys
        window = bias_of_window(texts.tokens.shape[1], self._shape.reach)
        windows = [window if is_local else None for is_local in self._shape.are_local]
        for layer, each in zip(self.layers[:-1], windows[:-1], strict=True):
            hidden = layer(hidden, real, each)
        normed: mx.array = self.final_norm(self.layers[-1](hidden, real, windows[-1], num_read))
        return normed


class _Layer(nn.Module):
    def __init__(self, shape: ModernShape, functions: Functions, index: int) -> None:
        super().__init__()
        size = shape.hidden_size
        self.attention_norm = nn.Identity() if index == 0 else _norm(shape)  # the embeddings' norm stands before it
        self.qkv = nn.Linear(size, 3 * size, shape.attention_bias)
        self.attention_out = nn.Linear(size, size, shape.attention_bias)
        self.mlp_norm = _norm(shape)
        self.up_and_gate = nn.Linear(size, 2 * shape.intermediate_size, shape.mlp_bias)
        self.down = nn.Linear(shape.intermediate_size, size, shape.mlp_bias)
        self._num_heads = shape.num_heads
        self._base = shape.local_base if shape.are_local[index] else shape.global_base
        self._attention = functions.attend
        self._activation = ACTIVATIONS[shape.activation] or functions.gelu

    def __call__(
        self, hidden: mx.array, real: mx.array | None, window: mx.array | None, num_read: int | None = None
    ) -> mx.array:
        hidden = hidden[:, :num_read] + self._attend(self.attention_norm(hidden), real, window, num_read)
        up, gate = mx.split(self.up_and_gate(self.mlp_norm(hidden)), 2, axis=-1)
        output: mx.array = hidden + self.down(self._activation(up) * gate)
        return output

    def _attend(
        self, hidden: mx.array, real: mx.array | None, window: mx.array | None, num_read: int | None
    ) -> mx.array:
        batch, num_tokens, _ = hidden.shape
        qkv = self.qkv(hidden).reshape(batch, num_tokens, 3, self._num_heads, -1)
        query, key, value = qkv.transpose(2, 0, 3, 1, 4)
        query, window = query[:, :, :num_read], None if window is None else window[:, :, :num_read]
        attended = self._attention(rotate(query, self._base), rotate(key, self._base), value, real, window)
        projected: mx.array = self.attention_out(attended.transpose(0, 2, 1, 3).flatten(2))
        return projected


def _norm(shape: ModernShape) -> nn.LayerNorm:
    return nn.LayerNorm(shape.hidden_size, shape.norm_eps, bias=shape.norm_bias)
