"""A GGUF file as a model of mlx-lm, by the table of architectures.

What the file says is either used or refused: a metadata key of the architecture or a tensor that nobody asked for is an
UnsupportedModelError, because ignoring it would give wrong text. All checks come before any weight is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm import utils as mlx_lm_utils

from mlx_agent_llm.errors import ModelLoadError, UnsupportedModelError
from mlx_agent_llm.models.gguf.architectures import ARCHITECTURES, Architecture
from mlx_agent_llm.models.gguf.file import GGUFFile, TensorInfo
from mlx_agent_llm.models.gguf.metadata import Metadata
from mlx_agent_llm.models.gguf.orders import Orders
from mlx_agent_llm.models.gguf.packing import GROUP_SIZE, PACKED_FORMS
from mlx_agent_llm.models.gguf.rope import FactoredRoPE
from mlx_agent_llm.models.gguf.weights import Place, check_types, read_array
from mlx_agent_llm.models.placement import cast_weight

_ROPE_FACTORS = "rope_freqs.weight"


class GGUFModel(NamedTuple):
    """A model whose weights are not read yet; own_dtype is the one to compute with unless asked otherwise."""

    model: nn.Module
    max_model_len: int
    vocab_size: int
    own_dtype: mx.Dtype
    places: Mapping[str, Place]  # tensor -> where it goes

    def load_weights(self, gguf: GGUFFile, dtype: mx.Dtype) -> Iterator[int]:
        """Read one tensor after the other into the model, and say how many bytes of the file that were."""
        for name, place in self.places.items():
            tensor = gguf.tensors[name]
            read = read_array(tensor, place, dtype)
            arrays = {path: cast_weight(self.model, path, array, dtype) for path, array in read.items()}
            self.model.load_weights(list(arrays.items()), strict=False)
            mx.eval(arrays)
            yield tensor.num_bytes


def build_model(gguf: GGUFFile, *, packed: bool) -> GGUFModel:
    """The model that the file describes; packed: quantized layers stay quantized."""
    data = Metadata(gguf)
    architecture = _architecture(data)
    check_types(gguf)
    settings = architecture.read_settings(data)
    factors = data.take_floats(_ROPE_FACTORS, settings["head_dim"] // 2) if "head_dim" in settings else None
    data.check_all_used()
    _check_blocks(data, settings["num_hidden_layers"])
    model = _make(data, architecture.model_type, settings)
    if factors is not None:
        _replace_rope(model, settings, factors)
    places = _places(data, architecture, settings, model, packed)
    _quantize(model, gguf, places)
    model.eval()
    return GGUFModel(model, _context(settings), settings["vocab_size"], _own_dtype(gguf), places)


def read_gguf_context(gguf: GGUFFile) -> int:
    """The context of the model that the file describes, by its metadata alone."""
    data = Metadata(gguf)
    return _context(_architecture(data).read_settings(data))


def _context(settings: Mapping[str, Any]) -> int:
    return int(settings.get("max_model_len", settings["max_position_embeddings"]))


def _architecture(data: Metadata) -> Architecture:
    architecture = ARCHITECTURES.get(data.architecture)
    if architecture is None:
        raise UnsupportedModelError(
            f"{data.gguf.path}: the architecture {data.architecture!r} is not supported in GGUF files: "
            f"{', '.join(map(repr, ARCHITECTURES))} are"
        )
    return architecture


def _check_blocks(data: Metadata, num_layers: int) -> None:
    found = {name.split(".")[1] for name in data.gguf.tensors if name.startswith("blk.") and name.count(".") > 1}
    if len(found) != num_layers:
        raise ModelLoadError(f"{data.gguf.path}: {data.key('block_count')}={num_layers}, but {len(found)} have tensors")


def _make(data: Metadata, model_type: str, settings: dict[str, Any]) -> nn.Module:
    model_class, args_class = mlx_lm_utils._get_classes({"model_type": model_type})
    try:
        args = args_class.from_dict(settings | {"model_type": model_type})
        model: nn.Module = model_class(args)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RuntimeError) as error:
        raise ModelLoadError(f"{data.gguf.path}: the metadata describes no model: {error}") from error
    if hasattr(model, "lm_head") and not data.has_tensor("output.weight"):
        model.sanitize({})  # some models find out there that their head is the embedding
    return model


def _replace_rope(model: nn.Module, settings: Mapping[str, Any], factors: list[float]) -> None:
    if settings.get("rope_scaling") is not None:
        raise UnsupportedModelError(
            f"{_ROPE_FACTORS} together with rope.scaling={settings['rope_scaling']} is not supported"
        )
    rope = FactoredRoPE(settings["head_dim"], settings["rope_theta"], mx.array(factors))
    for layer in model.layers:
        if isinstance(layer.self_attn.rope, nn.RoPE):  # a layer without rotation keeps having none
            layer.self_attn.rope = rope


def _places(
    data: Metadata, architecture: Architecture, settings: dict[str, Any], model: nn.Module, packed: bool
) -> dict[str, Place]:
    """Where each tensor goes; the file must have exactly the model's, in exactly their shapes."""
    missing: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    modules = dict(model.named_modules())
    places = dict[str, Place]()
    for tensor in data.gguf.tensors.values():
        if tensor.name in data.taken_tensors:
            continue
        name = _model_name(architecture, tensor.name)
        array = missing.pop(name, None) if name is not None else None
        if array is None or name is None:
            raise UnsupportedModelError(
                f"{data.gguf.path}: the tensor {tensor.name!r} has no place in a {data.architecture} model"
            )
        _check_shape(data, tensor, array.shape)
        stays = packed and tensor.type in PACKED_FORMS and hasattr(modules.get(name[:-7]), "to_quantized")
        orders = _find(architecture.orders, tensor.name)
        rows, columns = Orders() if orders is None else orders(settings)
        stays = stays and (columns is None or settings["linear_value_head_dim"] % GROUP_SIZE == 0)
        values = _find(architecture.values, tensor.name)
        places[tensor.name] = Place(name, array.shape, rows, columns, values, is_packed=stays)
    if missing:
        first = min(missing)
        raise ModelLoadError(
            f"{data.gguf.path}: {len(missing)} tensors are missing, the first is {_file_name(architecture, first)!r}"
        )
    return places


def _check_shape(data: Metadata, tensor: TensorInfo, shape: tuple[int, ...]) -> None:
    """Convolutions have one dimension of 1 more in the model."""
    expected = tuple(size for size in shape if size != 1) if len(shape) == 3 else shape
    actual = tuple(size for size in tensor.shape if size != 1) if len(shape) == 3 else tensor.shape
    if actual != expected or prod(tensor.shape) != prod(shape):
        raise ModelLoadError(f"{data.gguf.path}: tensor {tensor.name!r} has shape {tensor.shape}, not {shape}")
    if len(tensor.shape) == 1 and tensor.type in PACKED_FORMS:
        raise UnsupportedModelError(f"{data.gguf.path}: the vector {tensor.name!r} is quantized as {tensor.type}")


def _quantize(model: nn.Module, gguf: GGUFFile, places: Mapping[str, Place]) -> None:
    """Turn the layers whose weights stay packed into quantized layers of their form."""
    forms = {
        place.name.removesuffix(".weight"): PACKED_FORMS[gguf.tensors[name].type]
        for name, place in places.items()
        if place.is_packed
    }

    def form_of(path: str, _: nn.Module) -> bool | dict[str, Any]:
        return forms[path]._asdict() | {"group_size": GROUP_SIZE} if path in forms else False

    if forms:
        nn.quantize(model, class_predicate=form_of)


def _own_dtype(gguf: GGUFFile) -> mx.Dtype:
    kind = gguf.tensors["token_embd.weight"].type
    return {"F32": mx.float32, "BF16": mx.bfloat16}.get(kind, mx.float16)


def _model_name(architecture: Architecture, name: str) -> str | None:
    """The name of the model's array, None where a tensor of this name has no place."""
    head, table = "", architecture.top
    part = name
    if name.startswith("blk.") and name.count(".") > 1:
        _, index, part = name.split(".", 2)
        head, table = f"model.layers.{index}.", architecture.layer
    stem, _, suffix = part.rpartition(".")
    if part in table:
        return f"{architecture.prefix}{head}{table[part]}"
    return f"{architecture.prefix}{head}{table[stem]}.{suffix}" if stem in table else None


def _file_name(architecture: Architecture, name: str) -> str:
    """The other way round, for a message: the tensor's name, or the model's own one where the table has none."""
    inner = name.removeprefix(f"{architecture.prefix}model.layers.")
    index, _, part = inner.partition(".") if inner != name else ("", "", name.removeprefix(architecture.prefix))
    table = architecture.layer if index else architecture.top
    head = f"blk.{index}." if index else ""
    stem, _, suffix = part.rpartition(".")
    found = {place: tensor for tensor, place in table.items()}
    if part in found:
        return f"{head}{found[part]}"
    return f"{head}{found[stem]}.{suffix}" if stem in found else name


def _find(table: Mapping[str, Any], name: str) -> Any:
    """The entry of a tensor, by its name in a layer with its suffix, or without."""
    part = name.split(".", 2)[2] if name.startswith("blk.") else name
    return table.get(part, table.get(part.rpartition(".")[0]))
