"""Schemas as the world writes them, those of pydantic models among them, and what becomes of each one."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Iterator
from functools import cache

from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError

from mlx_agent_llm.bench import real_schemas
from mlx_agent_llm.bench.real_schemas import NODE_SERVERS, PYTHON_SERVERS, Named
from mlx_agent_llm.constrain.backends import CompiledConstraint, GrammarCompiler
from mlx_agent_llm.constrain.schema import schema_grammar
from mlx_agent_llm.languages.context_free import ContextFreeGrammar
from tests.support.corpora import corpus


def check_jsonschema() -> Iterator[Named]:
    """The schemas of configuration files; skips the test when they are not there."""
    corpus("check-jsonschema")
    yield from real_schemas.check_jsonschema()


def kubernetes() -> Iterator[Named]:
    """Some of the schemas of Kubernetes; skips the test when they are not there."""
    corpus("kubernetes-validate")
    yield from real_schemas.kubernetes()


def mcp_tools() -> Iterator[Named]:
    """The tools of real MCP servers; skips the test when one is not there."""
    for name in (*PYTHON_SERVERS, *NODE_SERVERS):
        corpus(name)
    yield from real_schemas.mcp_tools()


def pydantic_models() -> Iterator[Named]:
    """The pydantic models among the public classes of langchain-core and llama-index-core, as pydantic writes them."""
    for package in ("langchain_core", "llama_index.core"):
        for kind in sorted(_models_in(package), key=lambda kind: f"{kind.__module__}.{kind.__qualname__}"):
            try:
                with warnings.catch_warnings(action="ignore"):  # defaults that are no JSON
                    schema = kind.model_json_schema()
            except (PydanticInvalidForJsonSchema, PydanticUserError, NotImplementedError, AttributeError, TypeError):
                continue  # it holds what is no JSON
            yield Named("pydantic", f"{kind.__module__}.{kind.__qualname__}", schema)


def _models_in(package: str) -> set[type[BaseModel]]:
    found: set[type[BaseModel]] = set()
    root = importlib.import_module(package)
    for info in pkgutil.walk_packages(root.__path__, f"{package}."):
        try:
            module = importlib.import_module(info.name)
        except Exception:
            continue
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, BaseModel) and kind.__module__.startswith(package) and not name.startswith("_"):
                found.add(kind)
    return found


CORPORA = {
    "tools": real_schemas.tools,
    "pydantic": pydantic_models,
    "mcp": mcp_tools,
    "check-jsonschema": check_jsonschema,
    "kubernetes": kubernetes,
}
# The share of each corpus that is compiled, at least.
LEAST_COMPILED = {"tools": 1, "pydantic": 0.99, "mcp": 1, "check-jsonschema": 0.76, "kubernetes": 1}


@cache
def _compiler() -> GrammarCompiler:
    """Of a vocabulary of bytes: whether a library reads a grammar does not depend on the tokens."""
    tokens = [*(bytes([byte]) for byte in range(256)), b""]
    return GrammarCompiler(tokens, len(tokens), {256}, {256: "<end>"})


def compile_schema(named: Named) -> CompiledConstraint:
    """What a schema with its documents is compiled to; raises for what is refused on the way."""
    return _compiler().compile(grammar_of(named))


def grammar_of(named: Named) -> ContextFreeGrammar:
    """The grammar of a schema with its documents; raises for what is refused."""
    return schema_grammar(named.schema, documents=named.documents).grammar
