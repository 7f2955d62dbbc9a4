"""A pytest plugin for other packages' own tests: their chat model classes are ChatMLXAgent over one engine.

It runs in a process of its own, in which `tests` is the other package's folder: nothing of ours is imported from there.
"""

from __future__ import annotations

import sys
import types
import warnings
from functools import cache
from typing import Any

from langchain_mlx_agent import ChatMLXAgent
from mlx_agent_llm import Engine, EngineConfig
from mlx_agent_llm.testing import ByteTokenizer, RandomLogitsModel, ScriptedModel

CONFIG = EngineConfig(kv_cache_tokens=65536, max_num_seqs=16, device="cpu", seed=1)
# What those tests give to a client of a server.
CLIENT = frozenset({"model", "model_name", "api_key", "base_url", "use_responses_api", "num_ctx"})
THINKING = "{% for message in messages %}[{{ message.role }}]{{ message.content }}{% endfor %}[assistant]" + (
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)


@cache
def random_engine() -> Engine:
    model = RandomLogitsModel()
    return Engine.from_parts(model, model.tokenizer, CONFIG)


class ThinkingTokenizer(ByteTokenizer):
    """A byte tokenizer whose template has a switch for reasoning."""

    chat_template = THINKING

    def apply_chat_template(self, messages: Any, **options: Any) -> str:
        from jinja2 import Template

        return Template(THINKING).render(messages=messages, **options)


@cache
def thinking_engine() -> Engine:
    tokenizer = ThinkingTokenizer()

    def reply(prompt: str) -> str:
        return "27." if prompt.endswith("</think>\n\n") else "<think>Three times three times three.</think>27."

    return Engine.from_parts(ScriptedModel(reply), tokenizer, CONFIG)


class ForeignChat(ChatMLXAgent):
    """A chat model by any name, with a random model behind it; one whose name says that it reasons thinks."""

    def __init__(self, **parameters: Any) -> None:
        name = str(parameters.get("model", ""))
        engine = thinking_engine() if name.startswith("deepseek-r1") else random_engine()
        own = {key: parameters[key] for key in parameters.keys() - CLIENT}
        if not own.keys() & {"max_tokens", "max_completion_tokens"}:
            own["max_tokens"] = 400
        own = {"temperature": 1, "seed": 1, **own}
        super().__init__(engine=engine, **own)


def pytest_configure(config: Any) -> None:
    """Put the classes where those tests import theirs from."""
    warnings.simplefilter("ignore")
    for package, names in {"langchain_openai": ["ChatOpenAI"], "langchain_ollama": ["ChatOllama"]}.items():
        module = types.ModuleType(package)
        for name in names:
            setattr(module, name, type(name, (ForeignChat,), {}))
        sys.modules[package] = module
    ollama = types.ModuleType("ollama")
    ollama.ResponseError = type("ResponseError", (Exception,), {})  # type: ignore[attr-defined]
    sys.modules["ollama"] = ollama


def pytest_unconfigure() -> None:
    """Stop what was started."""
    for make in (random_engine, thinking_engine):
        if make.cache_info().currsize:
            make().close()
