"""Models and a tokenizer for testing agents offline and without weights, through the real engine and grammar.

model = ScriptedModel(["<tool_call>...</tool_call>", "It is 4."])
engine = Engine.from_parts(model, model.tokenizer)
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import mlx_lm.models.base
import numpy as np
import numpy.typing as npt
from mlx.utils import tree_map_with_path

from mlx_agent_kernels import backend
from mlx_agent_llm.core.batch.batch import Batch
from mlx_agent_llm.core.forward.layers.full import PagedLayer
from mlx_agent_llm.errors import RequestError

_SPECIAL_TOKENS = ("<|im_start|>", "<|im_end|>")


class ByteTokenizer:
    """One token a byte, and two special tokens: <|im_start|> and <|im_end|>, which ends an output. ChatML template."""

    vocab_size = 256 + len(_SPECIAL_TOKENS)
    special_token_texts: Mapping[int, str] = MappingProxyType(dict(enumerate(_SPECIAL_TOKENS, 256)))
    eos_token_ids = frozenset([257])
    strip_leading_space = False
    chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )

    @cached_property
    def token_bytes(self) -> Sequence[bytes]:
        """Token id -> the bytes that it adds to the text."""
        return [bytes([byte]) for byte in range(256)] + [b""] * len(_SPECIAL_TOKENS)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The bytes of `text`; special tokens that are written out in it become their ids."""
        token_ids: list[int] = []
        for part in re.split(f"({'|'.join(map(re.escape, _SPECIAL_TOKENS))})", text):
            token_ids += [256 + _SPECIAL_TOKENS.index(part)] if part in _SPECIAL_TOKENS else part.encode()
        return token_ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of `token_ids` without special tokens."""
        return b"".join(self.token_bytes[token_id] for token_id in token_ids).decode(errors="replace")

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> str:
        """Render ChatML."""
        if tools:
            raise RequestError("the byte tokenizer's chat template knows no tools")
        turns = [f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in messages]
        return "".join(turns) + ("<|im_start|>assistant\n" if add_generation_prompt else "")


class ScriptedModel(nn.Module):
    """Says what it is told to, by its logits: sampling, grammar, paging and batching are the engine's own.

    replies: the i-th text is the i-th assistant turn of whatever conversation is asked for (so many conversations can
    run at once); or a function from the rendered prompt to the reply. Where the grammar forbids the next byte of a
    reply, the sampler takes another one. A prompt is read back through the block tables, so that a fault in the paging
    shows as a wrong reply.
    """

    reads_values = True  # while the graph is built

    def __init__(self, replies: Sequence[str] | Callable[[str], str]) -> None:
        super().__init__()
        self.args = _FakeArgs()
        self.tokenizer = ByteTokenizer()
        self.model = _ScriptReader(replies, self.tokenizer)

    @property
    def layers(self) -> list[nn.Module]:
        """The one layer."""
        return self.model.layers

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        """(T, 1) token ids -> (S, 1, V) logits, with all the mass on the scripted token."""
        wanted: mx.array = self.model(inputs, cache)
        return mx.where(mx.arange(self.tokenizer.vocab_size) == wanted, 100.0, 0.0)


class RandomLogitsModel(nn.Module):
    """Logits without sense: a fixed random function of the last token and its position. Every token is likely.

    What it writes under a constraint shows what the constraint guarantees, whatever a model wants to say.
    """

    def __init__(self, vocab_size: int = ByteTokenizer.vocab_size, *, seed: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        self.args = _FakeArgs()
        self.tokenizer = ByteTokenizer()
        self.model = _RandomFeatures(vocab_size, seed)
        self._head = mx.random.normal((_NUM_FEATURES, vocab_size), key=mx.random.key(seed + 1)) * scale

    @property
    def layers(self) -> list[nn.Module]:
        """The one layer."""
        return self.model.layers

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        """(T, 1) token ids -> (S, 1, V) logits."""
        features: mx.array = self.model(inputs, cache)
        return features @ self._head


def tiny_model(model_type: str = "llama", *, seed: int = 0, **overrides: Any) -> nn.Module:
    """Make an mlx-lm model of the given type with random weights, small enough for thousands of tests.

    overrides: fields of the model's config. The vocabulary is ByteTokenizer's unless vocab_size says otherwise.
    """
    config = {
        "model_type": model_type,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8 if backend() == "reference" else 64,  # the smallest that the kernels serve
        "rms_norm_eps": 1e-5,
        "vocab_size": ByteTokenizer.vocab_size,
        "max_position_embeddings": 4096,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
    }
    module = importlib.import_module(f"mlx_lm.models.{model_type}")
    model: nn.Module = module.Model(module.ModelArgs.from_dict(config | overrides))
    keys = iter(mx.random.split(mx.random.key(seed), 1000))

    def random_weight(path: str, weight: mx.array) -> mx.array:
        if weight.ndim < 2:
            return weight
        random: mx.array = mx.random.normal(weight.shape, key=next(keys)) / weight.shape[-1] ** 0.5
        return random

    model.update(tree_map_with_path(random_weight, model.parameters()))
    mx.eval(model.parameters())
    return model


_NUM_FEATURES = 16


class _FakeAttention(nn.Module):
    """A layer that takes part in paging as a real one does, and whose output nobody uses."""

    def __call__(self, inputs: mx.array, cache: Any) -> mx.array:
        shape = (*inputs.shape, 1, 1 if backend() == "reference" else 64)  # the smallest that the kernels serve
        states = mx.broadcast_to(inputs[:, :, None, None].astype(mx.float32), shape)
        keys, values = cache.update_and_fetch(states, states)
        attend: Callable[..., mx.array] = mlx_lm.models.base.scaled_dot_product_attention
        return attend(states, keys, values, cache, scale=1.0, mask=None)


class _FakeArgs(NamedTuple):
    max_position_embeddings: int = 8192


class _FakeInner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers: list[nn.Module] = [_FakeAttention()]


class _RandomFeatures(_FakeInner):
    def __init__(self, vocab_size: int, seed: int) -> None:
        super().__init__()
        self._tokens = mx.random.normal((vocab_size, _NUM_FEATURES), key=mx.random.key(seed))

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        ignored: mx.array = self.layers[0](inputs, cache[0]).sum() * 0
        positions = mx.array(cache[0].offset).reshape(-1, 1, 1)
        return self._tokens[inputs] + mx.sin(positions * mx.arange(1, _NUM_FEATURES + 1)) + ignored


class _ScriptReader(_FakeInner):
    """(T, 1) token ids -> (T, 1, 1), the token that each sampled row should be followed by."""

    def __init__(self, replies: Sequence[str] | Callable[[str], str], tokenizer: ByteTokenizer) -> None:
        super().__init__()
        self._replies = replies
        self._tokenizer = tokenizer
        self._slots: dict[int, int] = {}  # which token lies in which slot of the pool

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        ignored: mx.array = self.layers[0](inputs, cache[0]).sum() * 0
        wanted = np.zeros((inputs.shape[0], 1, 1), dtype=np.int32)
        if isinstance(cache[0], PagedLayer):
            self._read(inputs[:, 0], cache[0].current_batch, cache[0].block_size, wanted[:, 0, 0])
        return mx.array(wanted) + ignored

    def _read(self, token_ids: mx.array, batch: Batch, block_size: int, wanted: npt.NDArray[np.int32]) -> None:
        if batch.copies is not None:
            sources, targets = _integers(batch.copies.sources), _integers(batch.copies.targets)
            contents = [self._slots.get(source) for source in sources]
            self._slots.update((t, token) for t, token in zip(targets, contents, strict=True) if token is not None)
        self._slots.update(zip(_integers(batch.tokens.slot_mapping), _integers(token_ids), strict=True))
        positions = _integers(batch.tokens.positions)
        for row, request in zip(_integers(batch.tokens.sampled_rows), batch.sampled, strict=True):
            slots = [
                request.kv.block_table[position // block_size] * block_size + position % block_size
                for position in range(positions[row] + 1)
            ]
            wanted[row] = self._next_token([self._slots[slot] for slot in slots], request.num_prompt_tokens)

    def _next_token(self, token_ids: list[int], num_prompt_tokens: int) -> int:
        reply = self._tokenizer.encode(self._reply(token_ids[:num_prompt_tokens]))
        index = len(token_ids) - num_prompt_tokens
        return reply[index] if index < len(reply) else min(self._tokenizer.eos_token_ids)

    def _reply(self, prompt: list[int]) -> str:
        text = "".join(_SPECIAL_TOKENS[i - 256] if i >= 256 else chr(i) for i in prompt)
        text = text.encode("latin-1").decode(errors="replace")
        if callable(self._replies):
            return self._replies(text)
        turn = max(text.count("<|im_start|>assistant\n") - 1, 0)
        if turn >= len(self._replies):
            raise IndexError(f"replies holds {len(self._replies)} texts, and assistant turn {turn + 1} was asked for")
        return self._replies[turn]


def _integers(array: mx.array) -> list[int]:
    values: Any = array.tolist()
    return list(values)
