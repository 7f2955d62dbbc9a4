"""The small model that drafts for an engine's own."""

from __future__ import annotations

import mlx.nn as nn

from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.errors import UnsupportedModelError
from mlx_agent_llm.models import LoadedModel, UnreadModel, inspect_model, load_model, materialize


def load_draft_model(loaded: LoadedModel, config: EngineConfig) -> nn.Module | None:
    """The model that the configuration names; one of another vocabulary is an UnsupportedModelError."""
    if config.draft_model is None:
        return None
    draft = load_model(config.draft_model, device=config.device, dtype=config.dtype)
    check_same_vocabulary(loaded, draft)
    materialize(draft.model)
    return draft.model


def inspect_draft_model(config: EngineConfig) -> UnreadModel | None:
    """What load_draft_model would read, without its weights."""
    if config.draft_model is None:
        return None
    return inspect_model(config.draft_model, device=config.device, dtype=config.dtype)


def check_same_vocabulary(loaded: LoadedModel, draft: LoadedModel) -> None:
    """Raise an UnsupportedModelError that names the first token that is another one in the draft model."""
    own, other = _texts(loaded), _texts(draft)
    if own == other:
        return
    size = min(len(own), len(other))
    first = next((i for i in range(size) if own[i] != other[i]), size)
    tokens = (repr(table[first]) if first < len(table) else "none" for table in (other, own))
    raise UnsupportedModelError(
        f"draft_model={draft.name!r} has another vocabulary than {loaded.name!r}: token {first} is "
        f"{' there and '.join(tokens)} here"
    )


def _texts(loaded: LoadedModel) -> list[bytes | str]:
    """What each token says, or the name of one that says nothing."""
    names = loaded.tokenizer.special_token_texts
    return [text or names.get(token_id, "") for token_id, text in enumerate(loaded.tokenizer.token_bytes)]
