"""How an engine is set up: one frozen value, checked when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Device = Literal["auto", "cpu", "gpu"]
DType = Literal["auto", "float32", "float16", "bfloat16"]
SpeculationSetting = Literal["auto", "off"] | int

MAX_DRAFT_TOKENS = 64


@dataclass(frozen=True)
class EngineConfig:
    """Settings of an Engine; a bad value is a ValueError that names field, value and bound.

    max_num_seqs: requests that run at the same time; further ones wait.
    max_tokens_per_step: token rows of one forward, decode rows and prompt chunks together.
    max_slowdown: about how many times as long a step with running streams may take because of the prompts beside them;
        the prompts get what fits into that of max_tokens_per_step, at least a block. Where any prompt takes longer than
        that, however short it is, they get what doubles its time. math.inf gives them all of max_tokens_per_step: where
        nobody reads the streams as they come, all requests are done sooner.
    block_size: tokens of a KV block.
    kv_cache_tokens, kv_cache_bytes: size of the KV pool, at most one of the two; by default it follows the device.
    max_model_len: longest prompt plus output of a request, in tokens; by default the model's own context.
    max_queue: requests that may wait before submit raises QueueFullError; generate lets more prompts wait for room.
    prefix_cache: keep the KV of finished requests for later prompts that begin alike.
    kv_tier: a folder where the KV of prompts outlives the process, for engines of the same model to find; "auto" is one
        in the user's cache, and where that cannot be used the engine runs without it. kv_tier_bytes: of the folder.
    state_snapshot_tokens, max_state_snapshots: every how many tokens of a prompt, in whole blocks, the states of
        recurrent layers (Mamba, linear attention) are kept for later prompts that begin alike, beside those where
        prompts end or part; and how many are kept in all.
    device, dtype: "auto" takes the GPU when there is one, and float32 on the CPU, the weights' own type elsewhere.
    adapter_path: a folder with a LoRA or DoRA adapter in mlx-lm's format, added to the model when it is loaded.
    compile: on a GPU, trace the forward of decode rows once for each of few shapes; a CPU has nothing to gain by it.
    check_model: at load, compute some tokens as mlx-lm does, too, and refuse a model whose logits differ.
    jump_forward: tokens that a grammar leaves no choice about are computed at once, not sampled one by one.
    speculation: how many tokens of a request are computed ahead, where its text, SamplingParams.draft_text or its
        grammar say what they may be; no token of the output is another one for that. "auto" computes those that are
        worth it by the measured cost of a row and how often this request's were right; "off" none, a number that many.
    draft_model: a small model with the same vocabulary, by the names that Engine.load takes, which says how requests
        may go on whose text does not; for speculation="auto" or a number.
    tool_format: how tools are called in chats, a name of mlx_agent_llm.chat.TOOL_FORMATS; "auto" finds it from the
        model's chat template.
    seed: the seed of requests that bring none is drawn from a generator seeded with this.
    """

    max_num_seqs: int = 32
    max_tokens_per_step: int = 512
    max_slowdown: float = 1.6
    block_size: int = 16
    kv_cache_tokens: int | None = None
    kv_cache_bytes: int | None = None
    max_model_len: int | None = None
    max_queue: int = 1024
    prefix_cache: bool = True
    kv_tier: str | None = None
    kv_tier_bytes: int = 16 * 2**30
    state_snapshot_tokens: int = 512
    max_state_snapshots: int = 64
    device: Device = "auto"
    dtype: DType = "auto"
    adapter_path: str | None = None
    compile: bool = True
    check_model: bool = True
    jump_forward: bool = True
    speculation: SpeculationSetting = "off"
    draft_model: str | None = None
    tool_format: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("max_num_seqs", self.max_num_seqs, 1)
        check_range("max_tokens_per_step", self.max_tokens_per_step, 1)
        check_range("max_slowdown", self.max_slowdown, 1.05, math.inf, integer=False)
        check_range("block_size", self.block_size, 1, 256)
        check_range("max_queue", self.max_queue, 1)
        check_range("max_state_snapshots", self.max_state_snapshots, 0)
        check_range("state_snapshot_tokens", self.state_snapshot_tokens, 1)
        for name in ("compile", "check_model", "jump_forward"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r} must be True or False")
        if self.speculation not in ("auto", "off"):
            if isinstance(self.speculation, str):
                raise ValueError(f"speculation={self.speculation!r} must be 'auto', 'off' or a number of tokens")
            check_range("speculation", self.speculation, 1, MAX_DRAFT_TOKENS)
        if self.draft_model is not None:
            if not isinstance(self.draft_model, str) or not self.draft_model:
                raise ValueError(f"draft_model={self.draft_model!r} must be the name of a model or None")
            if self.speculation == "off":
                raise ValueError(f"draft_model={self.draft_model!r} needs speculation='auto' or a number of tokens")
        check_range("seed", self.seed, 0, 2**32 - 1)
        if self.adapter_path is not None and (not isinstance(self.adapter_path, str) or not self.adapter_path):
            raise ValueError(f"adapter_path={self.adapter_path!r} must be a path or None")
        if self.kv_tier is not None and (not isinstance(self.kv_tier, str) or not self.kv_tier):
            raise ValueError(f"kv_tier={self.kv_tier!r} must be a path, 'auto' or None")
        check_range("kv_tier_bytes", self.kv_tier_bytes, 1)
        if self.kv_tier is not None and not self.prefix_cache:
            raise ValueError(f"kv_tier={self.kv_tier!r} needs prefix_cache=True: it keeps what that one finds")
        if not isinstance(self.tool_format, str):
            raise ValueError(f"tool_format={self.tool_format!r} must be 'auto' or the name of a tool format")
        if self.max_tokens_per_step < self.max_num_seqs:
            raise ValueError(
                f"max_tokens_per_step={self.max_tokens_per_step} must be at least max_num_seqs={self.max_num_seqs}: "
                "every running request decodes one token a step"
            )
        for name in ("kv_cache_tokens", "kv_cache_bytes", "max_model_len"):
            if getattr(self, name) is not None:
                check_range(name, getattr(self, name), 1)
        if self.kv_cache_tokens is not None and self.kv_cache_bytes is not None:
            raise ValueError("kv_cache_tokens and kv_cache_bytes both set the pool's size: give one of them")
        if self.device not in ("auto", "cpu", "gpu"):
            raise ValueError(f"device={self.device!r} must be 'auto', 'cpu' or 'gpu'")
        if self.dtype not in ("auto", "float32", "float16", "bfloat16"):
            raise ValueError(f"dtype={self.dtype!r} must be 'auto', 'float32', 'float16' or 'bfloat16'")


def check_range(name: str, value: object, low: float, high: float | None = None, *, integer: bool = True) -> None:
    """Raise a ValueError that names field, value and bound unless low <= value <= high; NaN is out of every range."""
    kind = int if integer else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind):
        raise ValueError(f"{name}={value!r} must be {'an integer' if integer else 'a number'}")
    if not (low <= value and (high is None or value <= high)):
        bound = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"{name}={value!r} must be {bound}")
