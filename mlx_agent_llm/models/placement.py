"""Which device a model runs on, and its weights in the form that this device computes with.

On a CPU, MLX's quantized and half-precision products run at a few GFLOP/s whatever BLAS is loaded, so everything
becomes float32 there. Weights keep their (out, in) order: measured with MKL on a 135M llama, storing them as (in, out)
makes a forward of 4, 16 and 64 rows 7 to 23 % slower; only the output layer of a single row gains.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map_with_path
from mlx_lm.utils import dequantize_model

from mlx_agent_llm.config import Device, DType
from mlx_agent_llm.errors import ModelLoadError, UnsupportedModelError
from mlx_agent_llm.models.progress import loading_bar
from mlx_agent_llm.process.default_device import default_device


def resolve_device(device: Device) -> mx.Device:
    """The MLX device that `device` stands for; "gpu" without one is a ModelLoadError."""
    if device == "gpu" and not mx.is_available(mx.Device(mx.gpu)):
        raise ModelLoadError("device='gpu', but MLX finds no GPU here: use 'auto' or 'cpu'")
    if device == "auto":
        return default_device.own
    return mx.Device(mx.gpu if device == "gpu" else mx.cpu)


def place_weights(
    model: nn.Module,
    device: mx.Device,
    dtype: DType,
    own_dtype: mx.Dtype | None = None,
    label: str = "weights",
) -> None:
    """Cast, dequantize and evaluate the parameters in place, one after the other, so that no two forms of all are held.

    own_dtype is what "auto" means on a GPU; None leaves every parameter there as it was stored. label: what a
    terminal shows the progress of.
    """
    on_cpu = device.type == mx.cpu
    target = weight_dtype(device, dtype, own_dtype)
    if target is not None:
        # The scales first: quantized weights are then expanded in the target's precision, not rounded to the scales'.
        _cast(model, target)
    if on_cpu:
        _dequantize(model)
        assert target is not None
        _cast(model, target)
    arrays: dict[str, mx.array] = tree_flatten(model.parameters(), destination={})  # type: ignore[assignment]
    with loading_bar(label, sum(array.nbytes for array in arrays.values())) as advance:
        for array in arrays.values():
            mx.eval(array)
            advance(array.nbytes)


def weight_bytes(model: nn.Module, device: mx.Device, dtype: DType, own_dtype: mx.Dtype | None = None) -> int:
    """What the parameters will take after place_weights, by their shapes alone: none needs to be read."""
    target = weight_dtype(device, dtype, own_dtype)
    arrays: dict[str, mx.array] = tree_flatten(model.parameters(), destination={})  # type: ignore[assignment]
    num_bytes = {path: cast_weight(model, path, array, target or array.dtype).nbytes for path, array in arrays.items()}
    if device.type == mx.cpu:
        assert target is not None
        num_bytes |= _expanded_bytes(model, target)
    return sum(num_bytes.values())


def _expanded_bytes(model: nn.Module, target: mx.Dtype) -> dict[str, int]:
    """Of quantized layers: their weights as dequantized, and no scales and biases."""
    expanded = dict[str, int]()
    for path, module in model.named_modules():
        if "scales" in module and hasattr(module, "bits"):
            expanded |= {f"{path}.scales": 0, f"{path}.biases": 0}
            expanded[f"{path}.weight"] = module["weight"].size * 32 // module.bits * target.size
    return expanded


def weight_dtype(device: mx.Device, dtype: DType, own_dtype: mx.Dtype | None = None) -> mx.Dtype | None:
    """What floating-point weights become; None leaves each as it was stored."""
    on_cpu = device.type == mx.cpu
    by_name = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
    return by_name.get(dtype, mx.float32 if on_cpu else own_dtype)


def _cast(model: nn.Module, target: mx.Dtype) -> None:
    model.update(tree_map_with_path(lambda path, array: cast_weight(model, path, array, target), model.parameters()))


def cast_weight(model: nn.Module, path: str, array: mx.array, target: mx.Dtype) -> mx.array:
    """Cast a floating parameter; mlx-lm's models say by `cast_predicate` which ones never leave float32."""
    may_cast = getattr(model, "cast_predicate", lambda _: True)
    is_free = mx.issubdtype(array.dtype, mx.floating) and (target == mx.float32 or may_cast(path))
    return array.astype(target) if is_free else array


def _dequantize(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if "global_scale" in module:
            raise UnsupportedModelError(f"the layer {path!r} is quantized with a global scale: not supported on a CPU")
    dequantize_model(model)
