"""mlx-lm's attention goes to served caches, and to mlx-lm's own function for every other cache."""

from typing import Any

import mlx.core as mx
import mlx_lm.models.base
import mlx_lm.models.llama
import pytest
from mlx_lm.models.cache import KVCache

from mlx_agent_llm.core.forward.layers.served_cache import ServedCache, lend, lend_all
from mlx_agent_llm.core.forward.seam import install_seam


class Serving(ServedCache):
    """Says what it was asked."""

    def serve(self, queries: mx.array, keys: mx.array, values: mx.array, *, scale: float, **options: Any) -> mx.array:
        return queries * scale


def attend(queries: mx.array, keys: mx.array, values: mx.array, cache: Any, mask: Any = None) -> mx.array:
    output: mx.array = mlx_lm.models.base.scaled_dot_product_attention(
        queries, keys, values, cache=cache, scale=0.5, mask=mask
    )
    return output


def test_a_served_cache_computes_its_own_attention_and_every_other_one_mlx_lm_s() -> None:
    install_seam()
    queries, keys, values = (mx.random.normal((1, 2, 3, 8), key=mx.random.key(seed)) for seed in range(3))
    assert mx.array_equal(attend(queries, keys, values, Serving()), queries * 0.5)
    expected = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=0.5)
    for cache in (None, KVCache()):  # type: ignore[no-untyped-call]
        assert mx.allclose(attend(queries, keys, values, cache), expected, atol=1e-6)


def test_keys_that_a_served_cache_lent_are_attended_to_by_it_whatever_the_cache() -> None:
    install_seam()
    queries, keys, values = (mx.random.normal((1, 2, 3, 8), key=mx.random.key(seed)) for seed in range(3))
    for cache in (None, [Serving()]):
        assert mx.array_equal(attend(queries, lend(keys, Serving()), values, cache), queries * 0.5)


def test_lent_keys_are_the_keys_to_everything_else() -> None:
    keys = mx.random.normal((1, 2, 3, 8), key=mx.random.key(0))
    lent = lend(keys, Serving())
    assert lent.shape == keys.shape and lent.dtype == keys.dtype
    assert mx.array_equal(mx.compile(lambda x: lend(x, Serving()).swapaxes(2, 3) + 1)(keys), keys.swapaxes(2, 3) + 1)


def test_all_keys_of_a_cache_say_how_many_there_are_of_each_row() -> None:
    lent = lend_all(Serving(), mx.array([3, 9]))
    _, _, num_tokens, _ = lent.shape
    assert (num_tokens - 1).tolist() == [2, 8]


def test_it_is_installed_once_and_in_modules_that_were_imported_before(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def original(*arguments: Any, **options: Any) -> None:
        calls.append("original")

    for module in (mlx_lm.models.base, mlx_lm.models.llama):
        monkeypatch.setattr(module, "scaled_dot_product_attention", original)
    install_seam()
    installed = mlx_lm.models.llama.scaled_dot_product_attention
    assert installed is mlx_lm.models.base.scaled_dot_product_attention is not original
    install_seam()
    assert mlx_lm.models.base.scaled_dot_product_attention is installed
    queries = mx.zeros((1, 1, 1, 8))
    attend(queries, queries, queries, None)
    assert calls == ["original"]
