"""Loading: a hub id, a local directory, a .gguf file or "demo" becomes a model, a tokenizer and their sizes."""

from mlx_agent_llm.models.loading import LoadedModel, UnreadModel, inspect_model, load_model
from mlx_agent_llm.models.parts import from_parts, materialize
from mlx_agent_llm.models.placement import resolve_device
from mlx_agent_llm.models.tokenizer import HFTokenizer, Tokenizer

__all__ = [
    "HFTokenizer",
    "LoadedModel",
    "Tokenizer",
    "UnreadModel",
    "from_parts",
    "inspect_model",
    "load_model",
    "materialize",
    "resolve_device",
]
