"""What an MLXAgentLLM is made of: its fields, checked, and the engine that they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from llama_index.core.base.llms.generic_utils import messages_to_prompt as default_messages_to_prompt
from llama_index.core.llms.llm import default_completion_to_prompt
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, model_validator

from llama_index.llms.mlx_agent.request import SETTINGS, completion_options, own_settings
from llama_index.llms.mlx_agent.structured import SchemaDecodingLLM
from mlx_agent_llm import Engine, EngineClosedError, EngineConfig
from mlx_agent_llm.chat.sampling import SAMPLING_OPTIONS
from mlx_agent_llm.engine.registry import SHARED_ENGINES, EngineHolder, EngineRegistry

if TYPE_CHECKING:
    from mlx_agent_llm.remote import RemoteEngine


class EngineLLM(SchemaDecodingLLM):
    """The parameters of an LLM, and the engine that it opens; what it answers is for the subclass."""

    model_config = ConfigDict(extra="forbid")
    engines: ClassVar[EngineRegistry] = SHARED_ENGINES

    model: str = Field(default="", description="What Engine.load takes; with an engine, that engine's model.")
    engine: Engine | None = Field(default=None, exclude=True, repr=False, description="A running engine.")
    engine_config: EngineConfig | None = Field(default=None, description="How an engine that is loaded is set up.")
    base_url: str | None = Field(default=None, description="Where `mlx-agent serve` listens, whose engine answers.")
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False, description="The server's.")
    temperature: float | None = Field(default=None, description="0 takes the most probable token.")
    max_tokens: int | None = Field(default=None, description="Most new tokens of an answer.")
    top_p: float | None = Field(default=None, description="Keep the smallest set of tokens with this probability mass.")
    top_k: int | None = Field(default=None, description="Keep this many most probable tokens; 0 keeps all.")
    min_p: float | None = Field(
        default=None, description="Keep tokens at least this many times as probable as the best."
    )
    seed: int | None = Field(default=None, description="Answers are a function of messages, parameters and seed.")
    stop: list[str] | None = Field(default=None, description="Texts that end an answer; a call's own replace them.")
    timeout: float | None = Field(default=None, description="Seconds after which a call fails with RequestTimeout.")
    reasoning: bool | Literal["low", "medium", "high"] | None = Field(
        default=None, description="The chat template's switch for thinking, or a level of it; None leaves it as it is."
    )
    max_reasoning_tokens: int | None = Field(
        default=None, ge=0, description="Then the end of the reasoning is written."
    )
    logprobs: bool | None = Field(default=None, description="Whether responses have log-probabilities.")
    top_logprobs: int | None = Field(default=None, description="How many of the most probable tokens beside each.")
    json_mode: bool = Field(default=False, description="Chats answer with a JSON object unless a call says otherwise.")
    context_window: int | None = Field(default=None, description="Most tokens of a prompt that LlamaIndex packs.")
    additional_kwargs: dict[str, Any] = Field(default_factory=dict, description="Further fields of SamplingParams.")

    _holder: EngineHolder = PrivateAttr(default_factory=EngineHolder)
    _running: Engine | RemoteEngine | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _name_the_model(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        named = own_settings(values)
        further = {name: named.pop(name) for name in SAMPLING_OPTIONS & named.keys() - cls.model_fields.keys()}
        if further:
            named["additional_kwargs"] = {**named.get("additional_kwargs", {}), **further}
        if named.get("base_url") is not None:
            return {"model": "default", **named}
        engine = values.get("engine")
        return {"model": engine.model_name, **named} if isinstance(engine, Engine) else named

    @model_validator(mode="after")
    def _check_and_load(self) -> Self:
        if not self.model:
            raise ValueError("model='' must be the name of a model, or engine must be given")
        if self.engine is not None and self.model != self.engine.model_name:
            raise ValueError(f"model={self.model!r} is not what engine serves: {self.engine.model_name!r}")
        if self.engine is not None and self.engine_config is not None:
            raise ValueError("engine_config sets up an engine that is loaded here: it cannot be combined with engine")
        if self.base_url is not None and (self.engine is not None or self.engine_config is not None):
            raise ValueError(f"base_url={self.base_url!r} has an engine of its own: it cannot be combined with one")
        extra = SAMPLING_OPTIONS - type(self).model_fields.keys() - {"constraint"}  # which is no setting but a call's
        if unknown := self.additional_kwargs.keys() - extra:
            raise ValueError(f"additional_kwargs holds {sorted(unknown)[0]!r}; known: {', '.join(sorted(extra))}")
        completion_options(self._settings, {})
        self._running = self._open()
        if self.context_window is not None and not 1 <= self.context_window <= self._engine.max_model_len:
            bound = self._engine.max_model_len
            self.close()
            raise ValueError(f"context_window={self.context_window} must be between 1 and the model's {bound}")
        if self._is_chat_model and (idle := self._prompt_writers()):
            self.close()
            raise ValueError(f"{idle[0]} would have no effect: the chat template of {self.model!r} writes the prompts")
        return self

    def _open(self) -> Engine | RemoteEngine:
        if self.base_url is None:
            config = self.engine_config or EngineConfig()
            return self.engine or self.engines.acquire(self._holder, self.model, config)
        from mlx_agent_llm.remote import RemoteEngine, RemoteServer

        api_key = None if self.api_key is None else self.api_key.get_secret_value()
        return RemoteEngine(RemoteServer(self.base_url, api_key), self.model)

    def _prompt_writers(self) -> list[str]:
        """Names of the given settings by which LlamaIndex writes prompts for models without a chat template."""
        given = {
            "messages_to_prompt": self.messages_to_prompt not in (None, default_messages_to_prompt),
            "completion_to_prompt": self.completion_to_prompt not in (None, default_completion_to_prompt),
            "query_wrapper_prompt": self.query_wrapper_prompt is not None,
        }
        return [name for name, is_given in given.items() if is_given]

    def close(self) -> None:
        """Give back the engine loaded for this LLM, which is of no use afterwards. Leaves `engine` alone."""
        self._running = None
        self.engines.release(self._holder)

    def __reduce__(self) -> tuple[Any, ...]:
        # LlamaIndex's own way deletes what cannot be pickled, the engine, from this object too.
        return type(self).from_dict, (self.to_dict(),)

    @property
    def _engine(self) -> Engine | RemoteEngine:
        if self._running is None:
            raise EngineClosedError(f"this MLXAgentLLM of {self.model!r} is closed")
        return self._running

    @property
    def _is_chat_model(self) -> bool:
        return self._engine.tokenizer.chat_template is not None

    @property
    def _settings(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in SETTINGS & type(self).model_fields.keys()}
        return {name: value for name, value in {**own, **self.additional_kwargs}.items() if value is not None}
