"""The parameters of a completion, and what they ask the engine for."""

from __future__ import annotations

from typing import Any, Literal

from mlx_agent_llm.engine.prompt import Prompt
from mlx_agent_llm.request import SamplingParams
from mlx_agent_llm.server.api_error import invalid
from mlx_agent_llm.server.sampling_fields import SamplingFields
from mlx_agent_llm.server.settings import ServerSettings


class CompletionRequest(SamplingFields):
    """OpenAI's parameters of completions, and vLLM's for the sampler; prompts are texts or the model's token ids."""

    model: str
    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int | None = None
    logprobs: int | None = None

    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    suffix: Literal[""] | None = None
    user: str | None = None

    def prompts(self) -> list[Prompt]:
        """Each prompt of the request."""
        if not self.prompt:
            raise invalid(f"prompt={self.prompt!r} must hold at least one prompt", "prompt")
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)

    def samples(self, default_max_tokens: int, settings: ServerSettings) -> list[SamplingParams]:
        """The parameters of each sample of a prompt; the i-th has seed + i."""
        n = 1 if self.n is None else self.n
        if not 1 <= n * len(self.prompts()) <= settings.max_n * 8 or n > settings.max_n:
            raise invalid(f"n={n} must be between 1 and {settings.max_n}, and all samples {settings.max_n * 8}", "n")
        fields: dict[str, Any] = {**self.sampling(), "logprobs": self.logprobs}
        fields["max_tokens"] = default_max_tokens if self.max_tokens is None else self.max_tokens
        if self.structured_outputs is not None:
            fields["constraint"] = self.structured_outputs.constraint()
        seed = SamplingParams(**fields, n=n).seed
        return [SamplingParams(**{**fields, "seed": None if seed is None else seed + index}) for index in range(n)]
