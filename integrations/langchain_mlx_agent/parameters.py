"""What a ChatMLXAgent is made of: its fields, checked, and the engine that they stand for."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Set
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from langchain_core.language_models import BaseChatModel, ModelProfile
from pydantic import AliasChoices, Field, PrivateAttr, SecretStr, model_validator

from langchain_mlx_agent.errors import langchain_errors
from langchain_mlx_agent.profile import model_profile
from langchain_mlx_agent.remote import AnyEngine, remote_engines
from langchain_mlx_agent.request import OWN_OPTIONS
from mlx_agent_llm import Engine, EngineConfig
from mlx_agent_llm.chat.foreign_names import REASONING_OPTIONS, advice_on, with_own_names
from mlx_agent_llm.chat.sampling import openai_sampling_params
from mlx_agent_llm.closing import Closing
from mlx_agent_llm.engine.registry import SHARED_ENGINES, EngineHolder, EngineRegistry
from mlx_agent_llm.models.context import context_length

if TYPE_CHECKING:
    from mlx_agent_llm.remote import RemoteEngines

_ALIASES = frozenset({"model_name", "stop_sequences"})
_OF_CALLS = frozenset({"format", "response_format", "tools", "tool_choice", "parallel_tool_calls"})


class EngineChatModel(Closing, BaseChatModel):
    """The parameters of a chat model, and the engines that it opens; what it answers is for the subclass."""

    engines: ClassVar[EngineRegistry] = SHARED_ENGINES

    model: str = Field(default="", validation_alias=AliasChoices("model", "model_name"))
    """What Engine.load takes; with an engine, that engine's model."""
    engine: Engine | None = Field(default=None, exclude=True, repr=False)
    """A running engine."""
    engine_config: EngineConfig | None = None
    """How an engine that is loaded here is set up."""
    base_url: str | None = None
    """Where `mlx-agent serve` listens, whose engine answers then; model is one of its names, by default the first."""
    api_key: SecretStr | None = None
    """The key that the server asks for."""
    temperature: float | None = None
    """0 takes the most probable token."""
    max_tokens: int | None = None
    """Most new tokens of an answer."""
    top_p: float | None = None
    """Keep the smallest set of tokens with this probability mass."""
    top_k: int | None = None
    """Keep this many most probable tokens; 0 keeps all."""
    min_p: float | None = None
    """Keep tokens at least this many times as probable as the best one."""
    seed: int | None = None
    """Answers are a function of messages, parameters and seed."""
    stop: list[str] | None = Field(default=None, validation_alias=AliasChoices("stop", "stop_sequences"))
    """Texts that end an answer; a call's own stop replaces them, and [] means none."""
    timeout: float | None = None
    """Seconds after which a call fails with RequestTimeout."""
    n: int | None = None
    """Answers of a call; invoke returns the first, generate all. A stream has one."""
    logprobs: bool | None = None
    """Whether response_metadata has the log-probability of every token."""
    top_logprobs: int | None = None
    """How many of the most probable tokens stand beside each; needs logprobs."""
    reasoning: bool | Literal["low", "medium", "high"] | None = None
    """The switch of the model's chat template for thinking before an answer, or a level of it where it has levels.

    None leaves it as it is, and so does False where there is no switch. What was thought stands in
    additional_kwargs["reasoning_content"] and in the reasoning blocks of content_blocks, never in the text.
    """
    max_reasoning_tokens: int | None = Field(default=None, ge=0)
    """After so many tokens of reasoning its end is written."""
    strict: bool | None = None
    """Whether schemas that no grammar enforces are refused, as they are by default, or checked afterwards."""
    stream_usage: bool = True
    """Whether the last chunk of a stream counts tokens."""
    streaming: bool | None = None
    """Whether invoke goes through stream, so that callbacks get tokens."""
    max_retries: int | None = None
    """Taken for the sake of code that sets it everywhere: an engine in this process is not retried."""
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further fields of SamplingParams, as stop_token_ids, priority or cache_salt."""

    _holder: EngineHolder = PrivateAttr(default_factory=EngineHolder)
    _remote: RemoteEngines | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _read_parameters(cls, values: Any) -> Any:
        """Take the model's name from the engine, and tell of parameters that nobody reads."""
        if not isinstance(values, dict):
            return values
        values = _with_own_names(values, cls.model_fields.keys())
        engine = values.get("engine")
        if {"model", "model_name"} & values.keys():
            return values
        if values.get("base_url") is not None:
            return {"model": "default", **values}
        return {"model": engine.model_name, **values} if isinstance(engine, Engine) else values

    @model_validator(mode="after")
    def _check_parameters(self) -> Self:
        if not self.model:
            raise ValueError("model='' must be the name of a model, or engine must be given")
        if self.engine is not None and self.model != self.engine.model_name:
            raise ValueError(f"model={self.model!r} is not what engine serves: {self.engine.model_name!r}")
        if self.engine is not None and self.engine_config is not None:
            raise ValueError("engine_config sets up an engine that is loaded here: it cannot be combined with engine")
        self._remote = remote_engines(self.base_url, self.api_key, self.engine, self.engine_config)
        extra = OWN_OPTIONS - type(self).model_fields.keys()
        if unknown := self.model_kwargs.keys() - extra:
            raise ValueError(f"model_kwargs holds {sorted(unknown)[0]!r}; known: {', '.join(sorted(extra))}")
        openai_sampling_params(self._sampling)
        return self

    def open(self) -> Self:
        """Load the engine now instead of at the first call; profile then has the length of its context."""
        with langchain_errors():
            self._open(self.model)
        return self

    def __enter__(self) -> Self:
        return self.open()

    def close(self) -> None:
        """Give back the engines loaded for this chat model; the next call loads again. Leaves `engine` alone."""
        self.engines.release(self._holder)

    @property
    def model_name(self) -> str:
        """The model, by the name that other chat models have for it."""
        return self.model

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """Everything that an answer depends on beside the messages: the key of LangChain's cache."""
        params = openai_sampling_params(self._sampling)
        sampling = {field.name: getattr(params, field.name) for field in fields(params)}
        sampling["constraint"] = params.constraint and params.constraint.key
        place = {"engine_config": asdict(self._config)} if self.base_url is None else {"base_url": self.base_url}
        return {"model": self.model, **place, "strict": self.strict, **self._reasoning, **sampling}

    def _resolve_model_profile(self) -> ModelProfile:
        """Say what the model can do; without an engine its files say how long its context is."""
        engine = self._find(self.model)
        if engine is not None:
            return model_profile(engine)
        if self._remote is not None:
            return model_profile(None)
        return model_profile(None, self._config.max_model_len or context_length(self.model))

    def _find(self, model: str) -> AnyEngine | None:
        """The engine that serves a model when it is there already."""
        if self._remote is not None:
            return self._remote.find(model)
        if self.engine is not None and model == self.engine.model_name:
            return self.engine
        return self.engines.find(model, self.engine_config or EngineConfig())

    def _open(self, model: str) -> AnyEngine:
        if self.engine is not None and model == self.engine.model_name:
            return self.engine
        engine = self._acquire(model) if self._remote is None else self._remote.open(model)
        if model == self.model and "reasoning_output" not in (self.profile or {}):
            self.profile = {**model_profile(engine), **(self.profile or {})}
        return engine

    def _acquire(self, model: str) -> Engine:
        return self.engines.acquire(self._holder, model, self.engine_config or EngineConfig())

    async def _aopen(self, model: str) -> AnyEngine:
        """Like _open; only an engine that is not there yet is worth a thread."""
        return await asyncio.to_thread(self._open, model) if self._find(model) is None else self._open(model)

    @property
    def _sampling(self) -> dict[str, Any]:
        own = OWN_OPTIONS & type(self).model_fields.keys()
        return {**{name: getattr(self, name) for name in own}, **self.model_kwargs}

    @property
    def _reasoning(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in REASONING_OPTIONS}

    @property
    def _config(self) -> EngineConfig:
        return self.engine.config if self.engine is not None else self.engine_config or EngineConfig()


def _with_own_names(values: dict[str, Any], fields: Set[str]) -> dict[str, Any]:
    """The parameters by their names here; those that nobody reads are told of, with what to write instead."""
    own = {name: value for name, value in values.items() if name in fields or name in _ALIASES}
    others = {name: value for name, value in values.items() if name not in own}
    unread = [name for name in others if _advice_on(name) is not None]
    others = with_own_names({name: value for name, value in others.items() if name not in unread})
    for name in sorted([*unread, *(others.keys() - fields - OWN_OPTIONS)]):
        advice = _advice_on(name)
        hint = f": {advice}" if advice else ""
        warnings.warn(f"ChatMLXAgent has no parameter {name!r}, which has no effect{hint}", stacklevel=5)
    if twice := own.keys() & others.keys():
        raise ValueError(f"{min(twice)} is given twice, under two names")
    further = {name: value for name, value in others.items() if name in OWN_OPTIONS - fields}
    kwargs = {"model_kwargs": {**(own.get("model_kwargs") or {}), **further}} if further else {}
    return {**own, **{name: value for name, value in others.items() if name in fields}, **kwargs}


def _advice_on(name: str) -> str | None:
    of_calls = "a call takes it, and bind, bind_tools and with_structured_output give it to all calls"
    return of_calls if name in _OF_CALLS else advice_on(name)
