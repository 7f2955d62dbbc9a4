"""Options as Ollama and OpenAI name them, by the names they have here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx_agent_llm.errors import RequestError

REASONING_OPTIONS: Mapping[str, str] = {"reasoning": "enable_thinking", "max_reasoning_tokens": "max_reasoning_tokens"}
"""How the engine calls what a framework's model or a call may set about reasoning."""

_SAME: Mapping[str, str] = {
    "num_predict": "max_tokens",
    "max_new_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "repeat_penalty": "repetition_penalty",
    "reasoning_effort": "reasoning",
    "think": "reasoning",
    "stop_sequences": "stop",
    "format": "response_format",
}
_OTHERWISE: Mapping[str, str] = {
    "num_ctx": "EngineConfig(max_model_len=...) bounds the context, which is the model's own by default",
    "num_gpu": "EngineConfig(device=...) chooses the device",
    "num_thread": "MLX uses the machine's cores; the MKL_NUM_THREADS variable bounds them on a CPU",
    "keep_alive": "an engine stays loaded until its last chat model is closed: close() unloads it",
    "stream_options": "stream_usage=True or False says whether a stream counts tokens",
    "prompt_cache_key": "prefixes are shared by themselves; cache_salt keeps them apart",
    "prediction": "draft_text is a text that the answer may quote",
    "service_tier": "priority orders requests",
    "api_base": "base_url is the address of a server, where the model does not run in this process",
    "user": "nothing leaves this process; cache_salt keeps the prefixes of users apart",
    "store": "nothing leaves this process",
    "options": "give each option by its own name",
    "extra_body": "give each option by its own name",
    "best_of": "n gives as many answers, with logprobs beside them",
    "use_beam_search": "n gives as many answers, with logprobs beside them",
    "functions": "tools takes them",
    "function_call": "tool_choice takes the name",
    "guided_json": "response_format takes a schema",
    "guided_regex": "constraint=Regex(...)",
    "guided_choice": "constraint=Choice(...)",
    "guided_grammar": "constraint=Grammar(...)",
    "thinking": "reasoning=True or False is the switch, max_reasoning_tokens bounds it",
    "thinking_budget": "max_reasoning_tokens bounds the reasoning",
    "cache_control": "prefixes are shared by themselves; cache_salt keeps them apart",
    "typical_p": "min_p and top_p bound the choice of tokens",
    "mirostat": "min_p and top_p bound the choice of tokens",
    "mirostat_eta": "min_p and top_p bound the choice of tokens",
    "mirostat_tau": "min_p and top_p bound the choice of tokens",
    "tfs_z": "min_p and top_p bound the choice of tokens",
    "repeat_last_n": "repetition_penalty looks at the whole text",
}
_VALUES: Mapping[tuple[str, str], Any] = {
    ("format", "json"): {"type": "json_object"},
    ("reasoning_effort", "none"): False,
}


def with_own_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, those that mean the same under their names here; a RequestError says what stands for others."""
    named: dict[str, Any] = {}
    for name, value in options.items():
        own = _SAME.get(name, name)
        if own in named:
            raise RequestError(f"{name}={value!r} and {own}={named[own]!r} mean the same: give one of them")
        if own in _OTHERWISE:
            raise RequestError(f"{name}={value!r} is not known here: {_OTHERWISE[own]}")
        named[own] = _VALUES.get((name, value), value) if isinstance(value, str) else value
    return named


def with_reasoning_named(message: str) -> str:
    """A message of the engine with the name that frameworks have for the switch."""
    return message.replace("enable_thinking", "reasoning")


def advice_on(name: str) -> str | None:
    """What to write instead of an option of another library; None for one that nobody has."""
    return _OTHERWISE.get(name)
