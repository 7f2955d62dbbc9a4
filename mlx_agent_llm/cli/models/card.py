"""What one model is like: layers, context, memory, tools. No weight is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from mlx_agent_llm.chat import found_format
from mlx_agent_llm.cli.models.fit import CONTEXTS, Size, num_agents
from mlx_agent_llm.cli.options import console_beside, write_json
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.kv.layer_shape import KVShape, LayerShape, as_computed, state_bytes, token_bytes
from mlx_agent_llm.models import inspect_model, resolve_device
from mlx_agent_llm.process.device_memory import GIB, device_bytes, usable_bytes


def show_card(name: str, json_file: Path | None) -> None:
    """Print the card, or the error that loading the model would end with."""
    card = card_of(name)
    table = Table(show_header=False, title=name, title_justify="left")
    for row in _rows(card):
        table.add_row(*row)
    console_beside(json_file).print(table)
    write_json(json_file, card)


def card_of(name: str) -> dict[str, Any]:
    """All that is known of a model before its weights are read, as --json has it; sizes are in bytes."""
    device = resolve_device("auto")
    unread = inspect_model(name)
    shape = probe_model(unread.model)
    layers = as_computed(shape.layers, unread.dtype)
    context = unread.max_model_len
    size = size_of(layers, unread.num_bytes)
    tools = found_format(unread.tokenizer)
    memory = usable_bytes(device)
    return {
        "model": name,
        "type": type(unread.model).__module__.rpartition(".")[2],
        "layers": [{"kind": kind, "number": number} for kind, number in Counter(map(_kind, layers)).items()],
        "vocabulary": shape.vocab_size,
        "context": context,
        "weight_bytes": unread.num_bytes,
        "kv_bytes_per_token": size.token_bytes,
        "bytes_per_sequence": size.sequence_bytes,
        "device": device.type.name,
        "memory_bytes": device_bytes(device),
        "fits": unread.num_bytes < memory,
        "agents": {str(length): num_agents(size, memory, length) for length in _contexts(context)},
        "tool_format": tools.tool_format.name,
        "tool_format_source": tools.source,
        "tool_format_warning": tools.warning,
    }


def size_of(layers: Sequence[LayerShape], weight_bytes: int) -> Size:
    """What layers of these shapes take; windows are counted as full, as far as a sequence is concerned."""
    unbounded = [layer for layer in layers if isinstance(layer, KVShape) and layer.window is None]
    windows = [layer for layer in layers if isinstance(layer, KVShape) and layer.window is not None]
    of_sequence = state_bytes(layers) + sum(layer.num_bytes * (layer.window or 0) for layer in windows)
    return Size(weight_bytes, weight_bytes, token_bytes(unbounded), of_sequence)


def _kind(layer: LayerShape) -> str:
    if not isinstance(layer, KVShape):
        return "state of a recurrent layer"
    heads = "latent" if layer.is_latent else f"{layer.kv_heads} KV heads of {layer.key_dim}"
    return f"{heads}, {'all tokens' if layer.window is None else f'window of {layer.window}'}"


def _contexts(context: int | None) -> list[int]:
    fitting = [length for length in CONTEXTS if context is None or length <= context]
    return fitting if fitting or context is None else [context]


def _rows(card: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "type", card["type"]
    for layers in card["layers"]:
        yield f"{layers['number']} layers", layers["kind"]
    yield "context", "not named" if card["context"] is None else f"{card['context']:,} tokens"
    yield "weights on this device", f"{card['weight_bytes'] / GIB:.2f} GiB"
    yield "KV of a token", f"{card['kv_bytes_per_token'] / 1024:.1f} KiB"
    if card["bytes_per_sequence"]:
        yield "windows and states of an agent", f"{card['bytes_per_sequence'] / 2**20:.1f} MiB"
    yield "memory", f"{card['memory_bytes'] / GIB:.1f} GiB of the {card['device'].upper()}"
    if not card["fits"]:
        yield "fits", "no: the weights alone take more"
    for length, number in card["agents"].items():
        yield f"agents of {int(length):,} tokens", f"{number:,} with nothing in common; more where they share prefixes"
    if card["device"] == "cpu":
        yield "KV pool", "1 GiB by default on a CPU: EngineConfig's kv_cache_bytes takes more"
    yield "tool format", f"{card['tool_format']} ({card['tool_format_source']})"
    if card["tool_format_warning"]:
        yield "warning", card["tool_format_warning"]
