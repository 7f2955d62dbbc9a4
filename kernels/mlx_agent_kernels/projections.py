"""A few rows times a matrix of weights, together with what a transformer's layer does right before and after it.

On CUDA each MLX operation costs the host some microseconds, and a product several times as many as our own kernel does
(docs/gpu.md), so for the rows of a decode step one launch does all of it. Everywhere else it is MLX's operations.
"""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx

from mlx_agent_kernels.checks import check_projection
from mlx_agent_kernels.elementwise import swiglu
from mlx_agent_kernels.loader import Body, Constants, backend, load_kernel

MAX_ROWS = 64  # of the kernel: after them a product is bound by arithmetic, and MLX's is better at that
PACKED_BITS = (4, 8)
PACKED_GROUP_SIZES = (32, 64, 128)
_HALF_TYPES = (mx.float16, mx.bfloat16)
_MAX_ROW_TILES = 2  # of 8 rows; more rows are another threadgroup's
_MAX_UNROLL = 4
_ENOUGH_GROUPS = 400  # threadgroups that keep a GPU busy with eight simdgroups each


class Norm(NamedTuple):
    """The RMS norm of a row: its (K,) weight and what is added to the mean square."""

    weight: mx.array
    eps: float


class QuantizedWeight(NamedTuple):
    """An (N, K) weight as MLX quantizes it: (N, K * bits / 32) packed integers, (N, K / group_size) scales and biases.

    mode: MLX's name of the form; only "affine" has biases, integer * scale + bias.
    """

    packed: mx.array
    scales: mx.array
    biases: mx.array | None
    group_size: int
    bits: int
    mode: str = "affine"

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        return self.packed.shape[0], self.packed.shape[1] * 32 // self.bits


Weight = mx.array | QuantizedWeight


def project(
    x: mx.array,
    weight: Weight,
    *,
    bias: mx.array | None = None,
    norm: Norm | None = None,
    residual: mx.array | None = None,
    is_gated: bool = False,
) -> mx.array:
    """Multiply rows by weight.T, on request of normalised rows, with a bias, gated, and added to a residual.

    x: (T, 1, K); weight: (N, K), quantized or not; bias: (N,); residual: (T, 1, N). With is_gated the first half of the
    N features are gates of the second half, silu(gate) * up, and N / 2 come out. Returns (T, 1, N) in the rows' type.
    Raises ValueError for arrays that do not fit each other.
    """
    check_projection(x, weight, bias, None if norm is None else norm.weight, residual, is_gated)
    if has_product_kernel(weight, x.dtype) and 1 <= len(x) <= MAX_ROWS:
        if norm is not None and x.dtype == mx.float16:  # what is not normalised yet may be too large for it
            x, norm = mx.fast.rms_norm(x, norm.weight, norm.eps), None
        return _launch(x, weight, bias, norm, residual, is_gated)
    return project_reference(x, weight, bias=bias, norm=norm, residual=residual, is_gated=is_gated)


def has_product_kernel(weight: Weight, dtype: mx.Dtype) -> bool:
    """Whether `project` multiplies a decode step's rows of this type by this weight in a kernel of ours.

    That is so on CUDA, in a half type, in whole tiles; everywhere else MLX multiplies.
    """
    features, width = weight.shape
    return (
        backend() == "cuda"
        and dtype in _HALF_TYPES
        and features % 32 == 0
        and width % 32 == 0
        and (dtype == weight.dtype if isinstance(weight, mx.array) else _can_unpack(weight, dtype))
    )


def _can_unpack(weight: QuantizedWeight, dtype: mx.Dtype) -> bool:
    """Whether the kernel knows this form of packed weights."""
    return (
        weight.mode == "affine"
        and weight.bits in PACKED_BITS
        and weight.group_size in PACKED_GROUP_SIZES
        and weight.scales.dtype == dtype
    )


def project_reference(
    x: mx.array,
    weight: Weight,
    *,
    bias: mx.array | None = None,
    norm: Norm | None = None,
    residual: mx.array | None = None,
    is_gated: bool = False,
) -> mx.array:
    """See project; any number of rows in any type."""
    rows = x if norm is None else mx.fast.rms_norm(x, norm.weight, norm.eps)
    products = _multiply(rows, weight, bias)
    if is_gated:
        products = swiglu(*mx.split(products, 2, axis=-1))
    return products if residual is None else products + residual


def _multiply(rows: mx.array, weight: Weight, bias: mx.array | None) -> mx.array:
    if isinstance(weight, mx.array):
        return rows @ weight.T if bias is None else mx.addmm(bias, rows, weight.T)
    packed, scales, biases, group_size, bits, mode = weight
    products = mx.quantized_matmul(rows[:, 0], packed, scales, biases, True, group_size, bits, mode)[:, None]
    return products if bias is None else products + bias


class Work(NamedTuple):
    """How threadgroups share a product's work; README.md in src/ says what each means."""

    row_tiles: int
    row_groups: int
    warps: int
    unroll: int


def share_work(rows: int, features: int, width: int) -> Work:
    """The shape of the work that was fastest on an H200, for so many features of each row.

    A threadgroup has twice as many simdgroups where there are few threadgroups, and each simdgroup as many weights in
    flight as come out even.
    """
    row_tiles = min(-(-rows // 8), _MAX_ROW_TILES)
    row_groups = -(-rows // (8 * row_tiles))
    warps = 16 if features // 16 * row_groups < _ENOUGH_GROUPS else 8
    slabs = width // 32
    unroll = next((count for count in (4, 2) if slabs % (warps * count) == 0), 1)
    return Work(row_tiles, row_groups, warps, unroll)


def share_packed_work(rows: int, features: int, width: int) -> Work:
    """The same for packed weights, as it was fastest on an H100: a lane reads 16 weights at once, all in one round."""
    row_tiles = min(-(-rows // 8), _MAX_ROW_TILES)
    row_groups = -(-rows // (8 * row_tiles))
    slabs = -(-width // 64)
    warps = 16 if slabs >= 32 and features // 16 * row_groups < _ENOUGH_GROUPS else 8
    unroll = min(1 << (-(-slabs // warps) - 1).bit_length(), _MAX_UNROLL)
    return Work(row_tiles, row_groups, warps, unroll)


def _launch(
    x: mx.array,
    weight: Weight,
    bias: mx.array | None,
    norm: Norm | None,
    residual: mx.array | None,
    is_gated: bool,
) -> mx.array:
    features = weight.shape[0] // 2 if is_gated else weight.shape[0]
    weights, work, form = _weights_for_kernel(weight, len(x), features)
    extra = {
        "bias": bias,
        "norm_weight": None if norm is None else norm.weight.astype(x.dtype),
        "residual": residual,
    }
    given = {"x": x, **weights, **{name: array for name, array in extra.items() if array is not None}}
    constants: Constants = (
        *form,
        ("IN", weight.shape[1]),
        ("OUT", features),
        ("ROW_TILES", work.row_tiles),
        ("WARPS", work.warps),
        ("UNROLL", work.unroll),
        ("GATED", is_gated),
        ("HAS_BIAS", bias is not None),
        ("HAS_NORM", norm is not None),
        ("HAS_RESIDUAL", residual is not None),
        ("EPS", 0.0 if norm is None else float(norm.eps)),
    )
    types = tuple(array.dtype for array in given.values())
    [out] = load_kernel(Body("project_rows", tuple(given), ("out",)), "cuda", x.dtype, types, constants)(
        inputs=list(given.values()),
        grid=(32 * work.warps * (features // 16), work.row_groups, 1),
        threadgroup=(32 * work.warps, 1, 1),
        output_shapes=[(*x.shape[:-1], features)],
        output_dtypes=[x.dtype],
    )
    return out


def _weights_for_kernel(weight: Weight, rows: int, features: int) -> tuple[dict[str, mx.array], Work, Constants]:
    """A weight's arrays by their names in the kernel, how its work is shared, and the constants of its form."""
    if isinstance(weight, mx.array):
        return {"weight": weight}, share_work(rows, features, weight.shape[1]), (("BITS", 0),)
    assert weight.biases is not None
    work = share_packed_work(rows, features, weight.shape[1])
    arrays = {"weight": weight.packed, "scales": weight.scales, "biases": weight.biases}
    return arrays, work, (("BITS", weight.bits), ("GROUP_SIZE", weight.group_size))
