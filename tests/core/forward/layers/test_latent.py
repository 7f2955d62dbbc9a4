"""Latent layers keep one pool, and answer as mlx-lm's modules do over a cache of two arrays."""

import mlx.core as mx
import pytest

from mlx_agent_llm.core.forward.layers.latent import LatentLayer
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.kv.layer_shape import KVShape
from tests.support.model_types.scenarios import all_scenarios
from tests.support.model_types.tiny import tiny
from tests.support.model_types.verdict import judge


def test_a_latent_layer_is_found_by_what_its_module_attends_to() -> None:
    assert probe_model(tiny("deepseek_v3")).layers == [KVShape(1, 16, 4, mx.float32, is_latent=True)] * 4


def test_keys_and_values_that_are_cached_as_such_are_no_latents() -> None:
    shapes = probe_model(tiny("deepseek_v2")).layers
    assert not any(shape.is_latent for shape in shapes if isinstance(shape, KVShape))


def test_the_pool_takes_as_many_bytes_as_its_shape_says() -> None:
    shape = KVShape(1, 512, 64, mx.float16, is_latent=True)
    layer = LatentLayer(shape, 3, 16)
    assert sum(pool.nbytes for pool in layer.take_pools()) == (3 + 1) * 16 * shape.num_bytes


def test_what_is_read_from_slots_is_written_to_others() -> None:
    layer = LatentLayer(KVShape(1, 3, 2, mx.float32, is_latent=True), 1, 4)
    contents = mx.arange(10.0).reshape(2, 1, 5)
    layer.write(mx.array([6, 1]), contents)
    layer.write(mx.array([0, 2]), *layer.read(mx.array([1, 6])))
    [found] = layer.read(mx.array([2, 0]))
    assert mx.array_equal(found, contents)


@pytest.mark.parametrize("model_type", ["deepseek_v3", "mistral4"])
def test_latent_layers_answer_as_mlx_lm_does(model_type: str) -> None:
    judgement = judge(model_type, all_scenarios()[2:4])
    assert (judgement.verdict, judgement.reasons) == ("equal", [])
