"""A bidirectional transformer with its norms after each sublayer: BERT, RoBERTa, XLM-RoBERTa and MPNet.

They differ in where positions start, in token types, and in MPNet's relative position bias. Knows nothing of files.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_llm.models.embedders.functions import Functions

_MAX_DISTANCE = 128  # beyond it all relative positions share a bucket (T5, section 2.1)
ACTIVATIONS: dict[str, Callable[[mx.array], mx.array] | None] = {
    "gelu": None,  # the device's own
    "gelu_new": nn.gelu_approx,
    "gelu_pytorch_tanh": nn.gelu_approx,
    "relu": nn.relu,
    "silu": nn.silu,
}


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """The sizes of an encoder; no token types and no position buckets are 0."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    num_positions: int  # rows of the position embeddings
    first_position: int  # the row of a text's first token
    num_token_types: int
    num_position_buckets: int
    norm_eps: float
    activation: str

    @property
    def max_tokens(self) -> int:
        """The longest text."""
        return self.num_positions - self.first_position


class Encoder(nn.Module):
    """Token ids (B, L) and the number of real ones in each row (B,) -> hidden states (B, L, hidden_size).

    What stands behind a row's length is padding: any valid ids, which no real token sees.
    """

    def __init__(self, shape: EncoderShape, functions: Functions) -> None:
        super().__init__()
        self._shape = shape
        self.word_embeddings = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.position_embeddings = nn.Embedding(shape.num_positions, shape.hidden_size)
        if shape.num_token_types:
            self.token_type_embeddings = nn.Embedding(shape.num_token_types, shape.hidden_size)
        self.embeddings_norm = nn.LayerNorm(shape.hidden_size, shape.norm_eps)
        if shape.num_position_buckets:
            self.position_bias = nn.Embedding(shape.num_position_buckets, shape.num_heads)
        self.layers = [_Layer(shape, functions) for _ in range(shape.num_layers)]

    def __call__(self, tokens: mx.array, lengths: mx.array) -> mx.array:
        """See the class."""
        num_tokens = tokens.shape[1]
        hidden = self._embed(tokens)
        real = mx.arange(num_tokens)[None, None, None] < lengths[:, None, None, None]  # (B, 1, 1, L)
        bias = self._bias(num_tokens) if self._shape.num_position_buckets else None
        for layer in self.layers:
            hidden = layer(hidden, real, bias)
        return hidden

    def _embed(self, tokens: mx.array) -> mx.array:
        first = self._shape.first_position
        embedded = self.word_embeddings(tokens) + self.position_embeddings(mx.arange(first, first + tokens.shape[1]))
        if self._shape.num_token_types:
            embedded = embedded + self.token_type_embeddings.weight[0]  # a text alone is all of the first type
        normed: mx.array = self.embeddings_norm(embedded)
        return normed

    def _bias(self, num_tokens: int) -> mx.array:
        """(1, H, L, L): what each head adds to a score for the distance between query and key."""
        positions = mx.arange(num_tokens)
        buckets = _position_buckets(positions[None] - positions[:, None], self._shape.num_position_buckets)
        bias: mx.array = self.position_bias(buckets)  # (L, L, H)
        return bias.transpose(2, 0, 1)[None]


class _Layer(nn.Module):
    def __init__(self, shape: EncoderShape, functions: Functions) -> None:
        super().__init__()
        size = shape.hidden_size
        self.query, self.key, self.value = nn.Linear(size, size), nn.Linear(size, size), nn.Linear(size, size)
        self.attention_out = nn.Linear(size, size)
        self.attention_norm = nn.LayerNorm(size, shape.norm_eps)
        self.up = nn.Linear(size, shape.intermediate_size)
        self.down = nn.Linear(shape.intermediate_size, size)
        self.output_norm = nn.LayerNorm(size, shape.norm_eps)
        self._num_heads = shape.num_heads
        self._attention = functions.attend
        self._activation = ACTIVATIONS[shape.activation] or functions.gelu

    def __call__(self, hidden: mx.array, real: mx.array, bias: mx.array | None) -> mx.array:
        hidden = self.attention_norm(hidden + self._attend(hidden, real, bias))
        output: mx.array = self.output_norm(hidden + self.down(self._activation(self.up(hidden))))
        return output

    def _attend(self, hidden: mx.array, real: mx.array, bias: mx.array | None) -> mx.array:
        batch, num_tokens, size = hidden.shape
        head_size = size // self._num_heads
        query, key, value = (
            project(hidden).reshape(batch, num_tokens, self._num_heads, head_size).transpose(0, 2, 1, 3)
            for project in (self.query, self.key, self.value)
        )
        attended = self._attention(query, key, value, real, bias)
        projected: mx.array = self.attention_out(attended.transpose(0, 2, 1, 3).reshape(batch, num_tokens, size))
        return projected


def _position_buckets(distance: mx.array, num_buckets: int) -> mx.array:
    """T5's buckets of key minus query position: half for each direction, exact for near ones, logarithmic beyond."""
    half = num_buckets // 2
    num_exact = half // 2
    far = mx.maximum(mx.abs(distance), 1).astype(mx.float32) / num_exact
    steps = mx.log(far) / math.log(_MAX_DISTANCE / num_exact) * (half - num_exact)
    logarithmic = mx.minimum(num_exact + steps.astype(mx.int32), half - 1)
    nearness = mx.abs(distance)
    return mx.where(nearness < num_exact, nearness, logarithmic) + mx.where(distance > 0, half, 0)
