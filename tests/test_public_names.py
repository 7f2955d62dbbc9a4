"""The names that users build on: a change here is a change of the interface, and needs a line in the CHANGELOG."""

import ast
from pathlib import Path

import mlx_agent_kernels
import mlx_agent_llm
from mlx_agent_llm import errors, testing

NAMES = [
    "CapacityError",
    "ChatDelta",
    "ChatOutput",
    "Choice",
    "ConstraintError",
    "ContextLengthError",
    "Delta",
    "Embedder",
    "Engine",
    "EngineClosedError",
    "EngineConfig",
    "EngineStats",
    "FinishReason",
    "ForkedProcessError",
    "GenerationError",
    "Grammar",
    "Handle",
    "InvalidOutputError",
    "InvalidToolCall",
    "JSONSchema",
    "KVTierError",
    "MLXAgentError",
    "MemoryLedger",
    "ModelLoadError",
    "ModelMemory",
    "PinnedPrompt",
    "QueueFullError",
    "RankedDocument",
    "Regex",
    "RequestError",
    "RequestOutput",
    "RequestTimeout",
    "Reranker",
    "SamplingDefaults",
    "SamplingParams",
    "Timings",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "ToolChoiceError",
    "UnsupportedModelError",
    "UnsupportedSchemaError",
    "Usage",
    "memory_ledger",
]


def defined_in(module_file: str) -> set[str]:
    tree = ast.parse(Path(module_file).read_text())
    names = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    return {name for name in names if not name.startswith("_")}


def test_the_package_exports_these_names_and_no_others() -> None:
    assert mlx_agent_llm.__all__ == NAMES


def test_the_exported_names_are_sorted_and_exist() -> None:
    for module in (mlx_agent_llm, mlx_agent_kernels):
        assert sorted(module.__all__) == list(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)


def test_the_kernels_export_these_names_and_no_others() -> None:
    assert mlx_agent_kernels.__all__ == [
        "HeadOptions",
        "Norm",
        "QuantizedWeight",
        "SharedLevel",
        "UnsupportedKernelError",
        "Weight",
        "Writes",
        "apply_token_bitmask",
        "backend",
        "chunk_attention",
        "has_product_kernel",
        "paged_attention",
        "project",
        "rotate_and_write",
        "shared_prefix_attention",
        "swiglu",
        "write_kv",
        "write_pools",
    ]


def test_the_test_models_are_these() -> None:
    assert testing.__file__ is not None
    assert defined_in(testing.__file__) == {"ByteTokenizer", "RandomLogitsModel", "ScriptedModel", "tiny_model"}


def test_every_error_is_exported_and_stands_in_the_drawn_tree() -> None:
    assert errors.__file__ is not None and errors.__doc__ is not None
    for name in defined_in(errors.__file__):
        assert name in NAMES
        assert name in errors.__doc__
        assert issubclass(getattr(errors, name), errors.MLXAgentError)


def test_errors_can_be_caught_as_the_builtin_ones_they_are() -> None:
    assert issubclass(errors.RequestError, ValueError)
    assert issubclass(errors.RequestTimeout, TimeoutError)
    for name in ("ContextLengthError", "ConstraintError", "UnsupportedSchemaError", "ToolChoiceError"):
        assert issubclass(getattr(errors, name), errors.RequestError)
