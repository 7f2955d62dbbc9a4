"""A bidirectional transformer with its norms after each sublayer: BERT, RoBERTa, XLM-RoBERTa, MPNet and nomic-bert.

They differ in where positions start, in token types, in MPNet's relative position bias, and in nomic-bert's rotations
and gates. Knows nothing of files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_llm.models.embedders.functions import Functions, Heads, Layout, Values
from mlx_agent_llm.models.embedders.text_batch import TextBatch

_MAX_DISTANCE = 128  # beyond it all relative positions share a bucket (T5, section 2.1)


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """The sizes of an encoder; no token types and no position buckets are 0.

    rotary_base: queries and keys are rotated by their positions, and there are no position embeddings.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    num_positions: int  # rows of the position embeddings, if there are any
    first_position: int  # the row of a text's first token
    num_token_types: int
    num_position_buckets: int
    norm_eps: float
    activation: str
    rotary_base: float | None = None
    is_gated: bool = False
    has_biases: bool = True  # of the products

    @property
    def max_tokens(self) -> int:
        """The longest text."""
        return self.num_positions - self.first_position


class Encoder(nn.Module):
    """A TextBatch (B, L) -> hidden states (B, L, hidden_size), or (B, 1, hidden_size) of the first tokens only."""

    def __init__(self, shape: EncoderShape, functions: Functions) -> None:
        super().__init__()
        self._shape = shape
        self.num_heads = shape.num_heads
        self.num_biases = shape.num_heads if shape.num_position_buckets else 0  # arrays (L, L) that scores get
        self.num_windows = 0
        self.word_embeddings = nn.Embedding(shape.vocab_size, shape.hidden_size)
        if shape.rotary_base is None:
            self.position_embeddings = nn.Embedding(shape.num_positions, shape.hidden_size)
        if shape.num_token_types:
            self.token_type_embeddings = nn.Embedding(shape.num_token_types, shape.hidden_size)
        self.embeddings_norm = nn.LayerNorm(shape.hidden_size, shape.norm_eps)
        if shape.num_position_buckets:
            self.position_bias = nn.Embedding(shape.num_position_buckets, shape.num_heads)
        self.layers = [_Layer(shape, functions) for _ in range(shape.num_layers)]
        self._functions = functions

    def __call__(self, texts: TextBatch, only_first: bool = False) -> mx.array:
        """See the class."""
        layout = self._functions.lay_out(texts)
        hidden = self._functions.enter(self._embed(texts), layout)
        has_bias = self._shape.num_position_buckets > 0
        bias = self._functions.bias(self._bias(texts.tokens.shape[1])) if has_bias else None
        for layer in self.layers[:-1]:
            hidden = layer(hidden, layout, bias)
            self._functions.end_layer(hidden, layout)
        hidden = self.layers[-1](hidden, layout, bias, only_first)
        return self._functions.leave(hidden, layout, only_first)

    def _embed(self, texts: TextBatch) -> mx.array:
        embedded = self.word_embeddings(texts.tokens)
        if self._shape.rotary_base is None:
            first = self._shape.first_position
            embedded = embedded + self.position_embeddings(mx.arange(first, first + texts.tokens.shape[1]))
        if self._shape.num_token_types:
            embedded = embedded + self._type_embeddings(texts)
        normed: mx.array = self.embeddings_norm(embedded)
        return normed

    def _type_embeddings(self, texts: TextBatch) -> mx.array:
        types = self.token_type_embeddings.weight
        return types[0] if len(types) == 1 else mx.where(texts.are_first[..., None], types[0], types[1])

    def _bias(self, num_tokens: int) -> mx.array:
        """(1, H, L, L): what each head adds to a score for the distance between query and key."""
        positions = mx.arange(num_tokens)
        buckets = _position_buckets(positions[None] - positions[:, None], self._shape.num_position_buckets)
        bias: mx.array = self.position_bias(buckets)  # (L, L, H)
        return bias.transpose(2, 0, 1)[None]


class _Layer(nn.Module):
    def __init__(self, shape: EncoderShape, functions: Functions) -> None:
        super().__init__()
        size, inner, has_biases = shape.hidden_size, shape.intermediate_size, shape.has_biases
        self.query, self.key, self.value = (nn.Linear(size, size, has_biases) for _ in range(3))
        self.attention_out = nn.Linear(size, size, has_biases)
        self.attention_norm = nn.LayerNorm(size, shape.norm_eps)
        self.up = nn.Linear(size, inner, has_biases)
        if shape.is_gated:
            self.gate = nn.Linear(size, inner, has_biases)
        self.down = nn.Linear(inner, size, has_biases)
        self.output_norm = nn.LayerNorm(size, shape.norm_eps)
        self._heads = Heads(shape.num_heads, shape.num_heads, (size // shape.num_heads) ** -0.5, shape.rotary_base)
        self._activation = shape.activation
        self._is_gated = shape.is_gated
        self._functions = functions

    def __call__(self, hidden: Values, layout: Layout, bias: Values | None, only_first: bool = False) -> Values:
        functions = self._functions
        attended = self._attend(hidden, layout, bias)
        if only_first:
            hidden, attended = functions.first(hidden, layout), functions.first(attended, layout)
        attended = functions.linear(self.attention_out, attended)
        hidden = functions.layer_norm(self.attention_norm, hidden + attended)
        return functions.layer_norm(self.output_norm, hidden + functions.linear(self.down, self._widen(hidden)))

    def _widen(self, hidden: Values) -> Values:
        functions = self._functions
        up = functions.linear(self.up, hidden)
        if not self._is_gated:
            return functions.activate(self._activation, up)
        return functions.activate(self._activation, functions.linear(self.gate, hidden)) * up

    def _attend(self, hidden: Values, layout: Layout, bias: Values | None) -> Values:
        query, key, value = (self._functions.linear(project, hidden) for project in (self.query, self.key, self.value))
        return self._functions.attend(query, key, value, layout, self._heads, bias)


def _position_buckets(distance: mx.array, num_buckets: int) -> mx.array:
    """T5's buckets of key minus query position: half for each direction, exact for near ones, logarithmic beyond."""
    half = num_buckets // 2
    num_exact = half // 2
    far = mx.maximum(mx.abs(distance), 1).astype(mx.float32) / num_exact
    steps = mx.log(far) / math.log(_MAX_DISTANCE / num_exact) * (half - num_exact)
    logarithmic = mx.minimum(num_exact + steps.astype(mx.int32), half - 1)
    nearness = mx.abs(distance)
    return mx.where(nearness < num_exact, nearness, logarithmic) + mx.where(distance > 0, half, 0)
