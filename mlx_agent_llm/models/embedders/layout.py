"""The layout of sentence-transformers: modules.json and a folder for each module after the encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mlx_agent_llm.errors import ModelLoadError, UnsupportedModelError
from mlx_agent_llm.models.embedders.pooling import POOLINGS
from mlx_agent_llm.models.json_file import read_json, read_json_object

# Older files have a switch for each mode; several that are on stand side by side in this order.
_POOLING_SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")


class TextOptions(NamedTuple):
    """How texts are changed before they are computed; max_seq_length is None where the encoder's own length holds."""

    max_seq_length: int | None
    lower_case: bool


@dataclass(frozen=True)
class Layout:
    """What a directory says of its model; `heads` are folders of Dense modules, None a Normalize, in order.

    prompts: what is written before a text, by name; "query" and "document" are always there, empty if the model has
    none.
    """

    encoder: Path
    pooling: tuple[str, ...]
    heads: tuple[Path | None, ...]
    prompts: Mapping[str, str]
    default_prompt_name: str | None
    text_options: TextOptions


def read_layout(path: Path) -> Layout:
    """Read modules.json and what it points at; a module or pooling that is not known is an UnsupportedModelError."""
    if not (path / "modules.json").is_file():
        raise UnsupportedModelError(
            f"{path}: no modules.json: only sentence-transformers' layout says how texts are pooled"
        )
    kinds, folders = _read_modules(path)
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise UnsupportedModelError(f"{path}/modules.json: {' + '.join(kinds)} must begin with Transformer + Pooling")
    for kind in kinds[2:]:
        if kind not in ("Dense", "Normalize"):
            raise UnsupportedModelError(f"{path}/modules.json: the module {kind!r} is not supported")
    heads = tuple(folder if kind == "Dense" else None for kind, folder in zip(kinds[2:], folders[2:], strict=True))
    prompts, default = _read_prompts(path)
    return Layout(folders[0], _read_pooling(folders[1]), heads, prompts, default, read_text_options(folders[0]))


def read_text_options(folder: Path) -> TextOptions:
    """Read sentence_bert_config.json, if it is there."""
    options = _read_optional(folder / "sentence_bert_config.json")
    return TextOptions(options.get("max_seq_length"), bool(options.get("do_lower_case", False)))


def _read_modules(path: Path) -> tuple[list[str], list[Path]]:
    modules = read_json(path / "modules.json")
    try:
        return [module["type"].rpartition(".")[2] for module in modules], [path / module["path"] for module in modules]
    except (TypeError, KeyError, AttributeError) as error:
        raise ModelLoadError(f"{path}/modules.json: must hold a list of objects with 'type' and 'path'") from error


def _read_pooling(folder: Path) -> tuple[str, ...]:
    config = read_json_object(folder / "config.json")
    if not config.get("include_prompt", True):
        raise UnsupportedModelError(f"{folder}: include_prompt=false is not supported")
    named = config.get("pooling_mode")
    switched = [mode for switch, mode in _POOLING_SWITCHES.items() if config.get(switch, False)]
    modes = tuple([named] if isinstance(named, str) else named or switched)
    if not modes:
        raise ModelLoadError(f"{folder}: config.json names no pooling: one of {', '.join(POOLINGS)}")
    for mode in modes:
        if mode not in POOLINGS:
            raise UnsupportedModelError(f"{folder}: pooling_mode={mode!r} must be one of {', '.join(POOLINGS)}")
    return modes


def _read_prompts(path: Path) -> tuple[dict[str, str], str | None]:
    config = _read_optional(path / "config_sentence_transformers.json")
    prompts: dict[str, str] = dict(config.get("prompts") or {})
    document = next((prompts[name] for name in _DOCUMENT_PROMPTS if name in prompts), "")
    default: str | None = config.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise ModelLoadError(f"{path}: default_prompt_name={default!r} is none of the prompts {_listed(prompts)}")
    return {"query": "", "document": document, **prompts}, default


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.is_file() else {}


def _listed(names: Sequence[str] | Mapping[str, str]) -> str:
    return ", ".join(map(repr, names)) or "(none)"
