"""What a model's vocabulary and context allow a request to ask for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.constrain.closing.closing import Closing
from mlx_agent_llm.errors import ContextLengthError, ModelLoadError, RequestError
from mlx_agent_llm.request import SamplingParams


@dataclass(frozen=True)
class Limits:
    """The bounds of one model; max_model_len: tokens of prompt and output together."""

    vocab_size: int
    eos_token_ids: Collection[int]
    max_model_len: int

    def check(self, num_prompt_tokens: int, params: SamplingParams, closing: Closing | None) -> None:
        """Raise RequestError or ContextLengthError for parameters beyond them; closing: of their constraint."""
        if closing is not None:
            self._check_budget(closing, num_prompt_tokens, params.max_tokens)
        self._check_vocabulary(params)
        if num_prompt_tokens + params.min_tokens > self.max_model_len:
            raise ContextLengthError(
                f"prompt of {num_prompt_tokens} tokens + min_tokens={params.min_tokens} must be at most "
                f"max_model_len={self.max_model_len}"
            )

    def _check_budget(self, closing: Closing, num_prompt_tokens: int, max_tokens: int) -> None:
        """Raise unless the shortest text of the constraint fits."""
        if not closing.fits_into(max_tokens):
            raise RequestError(
                f"max_tokens={max_tokens} must be at least {closing.minimum}: "
                "so many tokens has the shortest text that satisfies the constraint"
            )
        num_left = self.max_model_len - num_prompt_tokens
        if not closing.fits_into(num_left):
            raise ContextLengthError(
                f"prompt of {num_prompt_tokens} tokens leaves {num_left} of max_model_len={self.max_model_len}, "
                f"but the constraint needs at least {closing.minimum}"
            )

    def _check_vocabulary(self, params: SamplingParams) -> None:
        for name, token_ids in (("stop_token_ids", params.stop_token_ids), ("logit_bias token id", params.logit_bias)):
            for token_id in token_ids:
                if token_id >= self.vocab_size:
                    raise RequestError(f"{name}={token_id} must be below the vocabulary's size, {self.vocab_size}")
        if params.logprobs is not None and params.logprobs > self.vocab_size:
            raise RequestError(f"logprobs={params.logprobs} must be at most the vocabulary's size, {self.vocab_size}")
        ends = {*params.stop_token_ids, *(() if params.ignore_eos else self.eos_token_ids)}
        if params.min_tokens and all(token_id in ends for token_id in range(self.vocab_size)):
            raise RequestError(
                f"min_tokens={params.min_tokens} must be 0 where every token of the vocabulary is an end token"
            )


def find_max_model_len(name: str, context: int | None, config: EngineConfig) -> int:
    """The length that is asked for, or else the model's context; None of both is a ModelLoadError."""
    wanted = config.max_model_len
    if context is None and wanted is None:
        raise ModelLoadError(f"{name}: its configuration names no context length: set EngineConfig.max_model_len")
    if context is not None and wanted is not None and wanted > context:
        raise ValueError(f"max_model_len={wanted} must be at most the model's context, {context}")
    length = wanted or context
    assert length is not None
    return length
