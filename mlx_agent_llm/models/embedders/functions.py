"""What an encoder computes with, as a kind of device offers it; knows no encoder."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_llm.models.embedders.text_batch import TextBatch

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")
"""By the names of transformers."""
Values = Any
"""A row of numbers a token: MLX's (B, L, width), or numpy's (T, width) of the tokens that are no padding."""
Layout = Any
"""Where the tokens of a batch are in its values."""


class Heads(NamedTuple):
    """How attention divides its values: heads of queries, and as many or fewer of keys, in order.

    scale: what scores are multiplied by. rotary_base: queries and keys are rotated by their positions.
    reach: a token sees those at most so far away; None for all. There is no bias beside it.
    """

    num_heads: int
    num_kv_heads: int
    scale: float
    rotary_base: float | None = None
    reach: int | None = None


class Functions(Protocol):
    """Values in, new ones out; only activate and attend may write over an argument."""

    def lay_out(self, texts: TextBatch) -> Layout:
        """What enter, attend and leave need to know of a batch."""

    def enter(self, embedded: mx.array, layout: Layout) -> Values:
        """The values of (B, L, width)."""

    def leave(self, values: Values, layout: Layout, only_first: bool = False) -> mx.array:
        """Values as (B, L, width), those of padding any; what `first` gave, which is only_first, as (B, 1, width)."""

    def end_layer(self, values: Values, layout: Layout) -> None:
        """Called with what a layer computes: no more layers are under way than memory should hold."""

    def first(self, values: Values, layout: Layout) -> Values:
        """Those of each text's first token."""

    def bias(self, bias: mx.array) -> Values:
        """What attend takes to add it to scores, of (1, 1 or heads, L, L)."""

    def linear(self, module: nn.Linear, x: Values) -> Values:
        """A product with its bias, if it has one."""

    def layer_norm(self, module: nn.LayerNorm, x: Values) -> Values:
        """A norm by mean and variance."""

    def rms_norm(self, weight: mx.array, x: Values, eps: float) -> Values:
        """A norm of the last axis by its root mean square."""

    def activate(self, name: str, x: Values) -> Values:
        """One of ACTIVATIONS."""

    def attend(
        self, query: Values, key: Values, value: Values, layout: Layout, heads: Heads, bias: Values | None
    ) -> Values:
        """Attention of each text's tokens to all of its tokens; query may be written over."""
