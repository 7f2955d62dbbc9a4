"""What a layer does around its attention, against numpy in float64: on the CPU the reference, on a GPU the kernels."""

from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest

from mlx_agent_kernels import HeadOptions, Norm, QuantizedWeight, backend, project, projections, rotate_and_write

Array = npt.NDArray[np.float64]
TOLERANCE = {mx.float32: 1e-3 if backend() == "reference" else 3e-3, mx.float16: 1e-2, mx.bfloat16: 2e-2}
EPS = 1e-3


def as_float64(array: mx.array) -> Array:
    return np.array(array.astype(mx.float32)).astype(np.float64)


def assert_close(found: mx.array, expected: Array) -> None:
    assert found.shape == expected.shape
    error = np.abs(as_float64(found) - expected).max() / np.abs(expected).max()
    assert error < TOLERANCE[found.dtype]  # NaN is not below


@dataclass(frozen=True)
class Product:
    """Random rows and weights."""

    rows: int = 5
    width: int = 64
    features: int = 64
    dtype: mx.Dtype = mx.bfloat16
    has_bias: bool = False
    has_norm: bool = False
    has_residual: bool = False
    is_gated: bool = False
    bits: int | None = None
    group_size: int = 32
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def random(self, *shape: int, mean: float = 0.0) -> mx.array:
        # MLX adds up products of packed half types in their own precision on a CPU, where nobody multiplies so.
        is_float32 = self.bits is not None and projections.backend() == "reference"
        numbers = mx.array(self.rng.normal(mean, size=shape).astype(np.float32))
        return numbers if is_float32 else numbers.astype(self.dtype)

    def weights(self, dense: mx.array) -> tuple[mx.array | QuantizedWeight, Array]:
        """The weights as they are given to project, and what they stand for."""
        if self.bits is None:
            return dense, as_float64(dense)
        packed, scales, biases = mx.quantize(dense, self.group_size, self.bits)
        numbers = np.array(packed).view(np.uint8)
        bits = np.unpackbits(numbers, axis=-1, bitorder="little").reshape(self.features, -1, self.bits)
        numbers = bits @ (1 << np.arange(self.bits))
        groups = numbers.reshape(self.features, -1, self.group_size).astype(np.float64)
        meant = groups * as_float64(scales)[..., None] + as_float64(biases)[..., None]
        return QuantizedWeight(packed, scales, biases, self.group_size, self.bits), meant.reshape(dense.shape)

    def check(self) -> None:
        x, dense = self.random(self.rows, 1, self.width), self.random(self.features, self.width) / self.width**0.5
        weight, multiplied = self.weights(dense)
        bias = self.random(self.features) if self.has_bias else None
        norm = Norm(self.random(self.width, mean=1.0), EPS) if self.has_norm else None
        outputs = self.features // 2 if self.is_gated else self.features
        residual = self.random(self.rows, 1, outputs) if self.has_residual else None
        expected = as_float64(x)
        if norm is not None:
            expected /= np.sqrt((expected**2).mean(axis=-1, keepdims=True) + EPS)
            expected *= as_float64(norm.weight)
        expected = expected @ multiplied.T
        expected += 0 if bias is None else as_float64(bias)
        if self.is_gated:
            gate, up = np.split(expected, 2, axis=-1)
            expected = gate / (1 + np.exp(-gate)) * up
        expected += 0 if residual is None else as_float64(residual)
        found = project(x, weight, bias=bias, norm=norm, residual=residual, is_gated=self.is_gated)
        assert found.dtype == x.dtype
        assert_close(found, expected)


PRODUCTS = {
    "plain": Product(),
    "of float32": Product(dtype=mx.float32),
    "of float16": Product(dtype=mx.float16),
    "of one row": Product(rows=1),
    "of a tile's rows": Product(rows=8, width=256),
    "of rows after a tile": Product(rows=17, features=96),
    "with a bias": Product(has_bias=True),
    "with a residual": Product(rows=9, has_residual=True),
    "normalised": Product(rows=3, width=320, has_norm=True),
    "normalised, of float16": Product(rows=12, width=96, dtype=mx.float16, has_norm=True),
    "gated": Product(rows=10, is_gated=True),
    "gated and normalised with a bias": Product(has_bias=True, has_norm=True, is_gated=True),
    "all together": Product(rows=20, width=160, has_bias=True, has_norm=True, has_residual=True, is_gated=True),
    "of the most rows": Product(rows=64, width=96, has_norm=True, is_gated=True),
    "of too many rows for the kernel": Product(rows=65, has_norm=True),
    "wider than a threadgroup's first round": Product(width=2304, has_norm=True, has_residual=True),
    "packed, of 4 bits": Product(bits=4),
    "packed, of 8 bits": Product(bits=8),
    "packed, of 4 bits and float16": Product(bits=4, dtype=mx.float16, rows=17, width=128, group_size=128),
    "packed, of 8 bits and float16": Product(bits=8, dtype=mx.float16, rows=64, width=192, group_size=64),
    "packed, all together": Product(
        bits=4, rows=20, width=320, group_size=64, has_bias=True, has_norm=True, has_residual=True, is_gated=True
    ),
    "packed, of 8 bits, all together": Product(
        bits=8, rows=33, width=160, has_bias=True, has_norm=True, has_residual=True, is_gated=True
    ),
    "packed, wider than a first round": Product(bits=4, rows=9, width=2112, group_size=64, has_norm=True),
    "packed, of 3 bits, for which there is no kernel": Product(bits=3, group_size=64),
    "of no whole tiles": Product(width=40, features=24, has_norm=True),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_projection_is_the_product_with_what_stands_around_it(name: str) -> None:
    PRODUCTS[name].check()


@pytest.mark.parametrize("rows", [1, 8, 16, 64])
def test_the_shape_of_a_real_model(rows: int) -> None:
    Product(rows=rows, width=1024, features=4096, has_norm=True).check()
    Product(rows=rows, width=1024, features=6144, has_norm=True, is_gated=True).check()
    Product(rows=rows, width=3072, features=1024, has_residual=True).check()


def test_a_row_is_normalised_by_its_own_size_alone() -> None:
    x = mx.array(np.diag([1.0, 1e-3, 100.0, 1.0] * 8).astype(np.float32))[:, None]
    found = project(x, mx.eye(32), norm=Norm(mx.ones((32,)), 0.0))
    np.testing.assert_allclose(np.array(found[:, 0]), np.eye(32) * 32**0.5, rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": mx.zeros((2, 1, 32))}, r"weight \(N, K\).*\(2, 1, 32\) and \(6, 64\)"),
        ({"x": mx.zeros((2, 64))}, r"rows \(T, 1, K\)"),
        ({"bias": mx.zeros(5)}, r"bias must be.*\(5,\) and \(6, 64\)"),
        ({"norm": Norm(mx.zeros(6), EPS)}, r"norm's weight.*\(6,\) and \(6, 64\)"),
        ({"residual": mx.zeros((2, 1, 6)), "is_gated": True}, r"residual must be \(T, 1, 3\).*\(2, 1, 6\)"),
        ({"weight": mx.zeros((5, 64)), "is_gated": True}, r"even number of features.*\(5, 64\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_both_shapes(change: dict[str, object], message: str) -> None:
    arguments = {"x": mx.zeros((2, 1, 64)), "weight": mx.zeros((6, 64))} | change
    with pytest.raises(ValueError, match=message):
        project(**arguments)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Heads:
    """Random projections of tokens at far positions, and pools of ones."""

    tokens: int = 5
    heads: int = 4
    kv_heads: int = 2
    dim: int = 64
    rotary: int = 64
    dtype: mx.Dtype = mx.float32
    has_norm: bool = False
    traditional: bool = False
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def random(self, *shape: int, mean: float = 0.0) -> mx.array:
        return mx.array(self.rng.normal(mean, size=shape).astype(np.float32)).astype(self.dtype)

    def arguments(self) -> tuple[mx.array, mx.array, mx.array, mx.array, mx.array, HeadOptions]:
        projected = self.random(self.tokens, 1, (self.heads + 2 * self.kv_heads) * self.dim)
        positions = mx.array(self.rng.permutation(5000)[: self.tokens].astype(np.int32))
        slots = mx.array(self.rng.permutation(2 * self.tokens)[: self.tokens].astype(np.int32))
        frequencies = mx.array((10_000 ** -np.linspace(0, 1, self.rotary // 2)).astype(np.float32))
        options = HeadOptions(self.heads, frequencies, self.traditional, eps=EPS)
        if self.has_norm:
            norms = {name: self.random(self.dim, mean=1.0) for name in ("q_norm", "k_norm")}
            options = options._replace(**norms)
        pool = mx.ones((2 * self.tokens, self.kv_heads, self.dim), dtype=self.dtype)
        return projected, positions, slots, pool, mx.ones_like(pool), options

    def check(self) -> None:
        projected, positions, slots, k_pool, v_pool, options = self.arguments()
        heads = as_float64(projected).reshape(self.tokens, -1, self.dim)
        queries, keys, values = np.split(heads, [self.heads, self.heads + self.kv_heads], axis=1)
        expected = [np.ones(k_pool.shape), np.ones(k_pool.shape)]
        expected[0][np.array(slots)] = self.expected(keys, positions, options, options.k_norm)
        expected[1][np.array(slots)] = values
        found, k_pool, v_pool = rotate_and_write(projected, positions, slots, k_pool, v_pool, options)
        assert found.dtype == self.dtype
        mx.eval(found)
        assert_close(found, self.expected(queries, positions, options, options.q_norm))
        assert_close(k_pool, expected[0])
        np.testing.assert_array_equal(as_float64(v_pool), expected[1])

    def expected(self, heads: Array, positions: mx.array, options: HeadOptions, norm: mx.array | None) -> Array:
        """By complex numbers."""
        if norm is not None:
            heads = heads / np.sqrt((heads**2).mean(axis=-1, keepdims=True) + EPS) * as_float64(norm)
        turning, rest = heads[..., : self.rotary], heads[..., self.rotary :]
        pairs = turning.reshape(*heads.shape[:2], -1, 2) if self.traditional else np.stack(np.split(turning, 2, -1), -1)
        turns = np.exp(1j * np.outer(np.array(positions), as_float64(options.frequencies)))[:, None]
        turned = (pairs[..., 0] + 1j * pairs[..., 1]) * turns
        parts = np.stack([turned.real, turned.imag], -2 if not self.traditional else -1)
        return np.concatenate([parts.reshape(*heads.shape[:2], -1), rest], axis=-1)


HEADS = {
    "plain": Heads(),
    "of one token": Heads(tokens=1),
    "normalised": Heads(has_norm=True),
    "of float16": Heads(dtype=mx.float16, has_norm=True, dim=128, rotary=128),
    "of bfloat16": Heads(dtype=mx.bfloat16, kv_heads=4, dim=80, rotary=80),
    "turned in part": Heads(dim=96, rotary=40, has_norm=True),
    "in pairs of neighbours": Heads(traditional=True),
    "in pairs of neighbours, in part": Heads(traditional=True, rotary=32, has_norm=True, dtype=mx.float16),
    "of many tokens": Heads(tokens=70, heads=7, kv_heads=1, dim=256, rotary=256),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_are_turned_by_their_positions_and_written_to_their_slots(name: str) -> None:
    HEADS[name].check()


def test_projections_that_do_not_fit_the_pools_are_refused_by_both_shapes() -> None:
    projected, positions, slots, k_pool, v_pool, options = Heads().arguments()
    with pytest.raises(ValueError, match=r"4 query heads.*\(5, 1, 448\) and \(10, 2, 64\)"):
        rotate_and_write(projected[..., 64:], positions, slots, k_pool, v_pool, options)
    with pytest.raises(ValueError, match=r"positions and slot_mapping must be \(5,\).*\(4,\) and \(5,\)"):
        rotate_and_write(projected, positions[:4], slots, k_pool, v_pool, options)
    with pytest.raises(ValueError, match=r"alike.*\(10, 2, 64\) and \(10, 2, 32\)"):
        rotate_and_write(projected, positions, slots, k_pool, v_pool[..., :32], options)
    with pytest.raises(ValueError, match="3 query heads are no multiple"):
        rotate_and_write(projected[..., 64:], positions, slots, k_pool, v_pool, options._replace(heads=3))
