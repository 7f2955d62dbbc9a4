"""MLXAgentLLM: LangChain's completion model over the engine of a chat model; prompts are run as they stand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.language_models import BaseLLM, LangSmithParams
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from pydantic import Field, PrivateAttr, SecretStr, model_validator

from langchain_mlx_agent.answers import PROVIDER
from langchain_mlx_agent.errors import langchain_errors
from langchain_mlx_agent.remote import AnyEngine, remote_engines
from mlx_agent_llm import Engine, EngineConfig, RequestError, RequestOutput, SamplingParams
from mlx_agent_llm.chat.foreign_names import with_own_names
from mlx_agent_llm.chat.sampling import SAMPLING_OPTIONS, openai_sampling_params
from mlx_agent_llm.engine.registry import SHARED_ENGINES, EngineHolder
from mlx_agent_llm.request import Delta

if TYPE_CHECKING:
    from mlx_agent_llm.remote import RemoteEngines

_OPTIONS = SAMPLING_OPTIONS | {"n"}


class MLXAgentLLM(BaseLLM):
    """A completion model over an engine, here or a server's: a prompt is run as it stands, without a chat template.

    model: as of ChatMLXAgent, with which it shares the engine. engine: a running engine instead.
    model_kwargs: fields of SamplingParams beside those that are fields here; a call can give each.
    """

    model: str = ""
    engine: Engine | None = Field(default=None, exclude=True, repr=False)
    """A running engine; it stays its owner's to close."""
    engine_config: EngineConfig | None = None
    """How an engine that is loaded here is set up."""
    base_url: str | None = None
    """Where `mlx-agent serve` listens, as in ChatMLXAgent."""
    api_key: SecretStr | None = None
    """The key that the server asks for."""
    temperature: float | None = None
    """0 takes the most probable token."""
    max_tokens: int | None = None
    """Most new tokens of an answer."""
    stop: list[str] | None = None
    """Texts that end an answer; a call's own replace them."""
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further fields of SamplingParams."""

    _holder: EngineHolder = PrivateAttr(default_factory=EngineHolder)
    _remote: RemoteEngines | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _name_the_model(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("base_url") is not None:
            return {"model": "default", **values}
        engine = values.get("engine") if isinstance(values, dict) else None
        return {"model": engine.model_name, **values} if isinstance(engine, Engine) else values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.model:
            raise ValueError("model='' must be the name of a model, or engine must be given")
        self._params(None, {})
        self._remote = remote_engines(self.base_url, self.api_key, self.engine, self.engine_config)
        return self

    def close(self) -> None:
        """Give back the engine that was loaded for this model; the next call loads again. Leaves `engine` alone."""
        SHARED_ENGINES.release(self._holder)

    @property
    def _llm_type(self) -> str:
        return "mlx-agent"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        params = asdict(self._params(None, {}))
        if self.base_url is not None:
            return {"model": self.model, "base_url": self.base_url, **params}
        return {"model": self.model, "engine_config": asdict(self.engine_config or EngineConfig()), **params}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return {**super()._get_ls_params(stop=stop, **kwargs), "ls_provider": PROVIDER}

    def get_token_ids(self, text: str) -> list[int]:
        """The tokens of a text, without any that the tokenizer would put around it."""
        return self._open().tokenizer.encode(text, add_special_tokens=False)

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        with langchain_errors():
            params = self._params(stop, kwargs, run_manager)
            return self._result(self._open().generate(prompts, params), params.n)

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        with langchain_errors():
            params = self._params(stop, kwargs, run_manager)
            engine = await asyncio.to_thread(self._open)
            return self._result(await engine.agenerate(prompts, params), params.n)

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        with langchain_errors():
            stream = self._open().stream(prompt, self._params(stop, kwargs, run_manager))
            with closing(cast(Any, stream)) as deltas:
                for delta in deltas:
                    yield self._chunk(delta)

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        with langchain_errors():
            engine = await asyncio.to_thread(self._open)
            async with aclosing(cast(Any, engine.astream(prompt, self._params(stop, kwargs, run_manager)))) as deltas:
                async for delta in deltas:
                    yield self._chunk(delta)

    def _open(self) -> AnyEngine:
        if self._remote is not None:
            return self._remote.open(self.model)
        return self.engine or SHARED_ENGINES.acquire(self._holder, self.model, self.engine_config or EngineConfig())

    def _params(
        self, stop: list[str] | None, options: dict[str, Any], run: BaseRunManager | None = None
    ) -> SamplingParams:
        own = {"temperature": self.temperature, "max_tokens": self.max_tokens, "stop": self.stop, **self.model_kwargs}
        own["trace_id"] = None if run is None else str(run.run_id)
        set_here = {name: value for name, value in own.items() if value is not None}
        given = {**with_own_names(set_here), **with_own_names(options), **({} if stop is None else {"stop": stop})}
        if unknown := given.keys() - _OPTIONS:
            raise RequestError(f"unknown option {sorted(unknown)[0]!r}; known: {', '.join(sorted(_OPTIONS))}")
        return openai_sampling_params(given)

    def _chunk(self, delta: Delta) -> GenerationChunk:
        info = None if delta.finish_reason is None else self._info(delta.finish_reason)
        return GenerationChunk(text=delta.text, generation_info=info)

    def _info(self, finish_reason: str) -> dict[str, Any]:
        return {"finish_reason": finish_reason, "model": self.model}

    def _result(self, outputs: list[RequestOutput], n: int) -> LLMResult:
        generations = [Generation(text=one.text, generation_info=self._info(one.finish_reason)) for one in outputs]
        prompt_tokens = sum(output.usage.prompt_tokens for output in outputs[::n])
        completion_tokens = sum(output.usage.completion_tokens for output in outputs)
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        return LLMResult(
            generations=[list(generations[index : index + n]) for index in range(0, len(generations), n)],
            llm_output={"token_usage": usage | {"total_tokens": sum(usage.values())}, "model_name": self.model},
        )
