"""The models for tests run through the real engine: what they promise has to hold there."""

from collections.abc import Callable

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_agent_llm import Engine, GenerationError, RequestError, SamplingParams
from mlx_agent_llm.testing import ByteTokenizer, RandomLogitsModel, ScriptedModel, tiny_model
from tests.support.search import examples

MakeEngine = Callable[..., Engine]


@settings(max_examples=examples(200))
@given(st.text())
def test_the_byte_tokenizer_gives_every_text_back(text: str) -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_byte_tokenizer_reads_its_special_tokens_and_hides_them() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.encode("<|im_start|>a<|im_end|>") == [256, 97, 257]
    assert tokenizer.decode([256, 97, 257]) == "a"
    assert tokenizer.eos_token_ids == {257} <= tokenizer.special_token_texts.keys()
    assert len(tokenizer.token_bytes) == tokenizer.vocab_size == 258


def test_the_byte_tokenizer_renders_chatml_and_refuses_tools() -> None:
    messages = [{"role": "user", "content": "Hi"}]
    rendered = ByteTokenizer().apply_chat_template(messages)
    assert rendered == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    with pytest.raises(RequestError, match="tools"):
        ByteTokenizer().apply_chat_template(messages, tools=[{"name": "f"}])


def test_a_scripted_model_says_its_replies_turn_by_turn(make_engine: MakeEngine) -> None:
    engine = make_engine(ScriptedModel(["Grüße", "second €"]))
    user = {"role": "user", "content": "Hi"}
    first = engine.chat([user])
    second = engine.chat([user, {"role": "assistant", "content": first.text}, user])
    assert (first.text, first.finish_reason) == ("Grüße", "stop")
    assert second.text == "second €"


def test_a_scripted_model_may_be_a_function_of_the_prompt(make_engine: MakeEngine) -> None:
    engine = make_engine(ScriptedModel(str.upper))
    outputs = engine.generate([f"agent {number} says hello" for number in range(20)])
    assert [output.text for output in outputs] == [f"AGENT {number} SAYS HELLO" for number in range(20)]


def test_a_scripted_model_without_a_reply_left_says_so(make_engine: MakeEngine) -> None:
    engine = make_engine(ScriptedModel([]))
    with pytest.raises(GenerationError, match="replies holds 0 texts, and assistant turn 1 was asked for"):
        engine.generate(["Hi"])


@pytest.mark.parametrize("prefix_cache", [True, False])
@pytest.mark.parametrize("max_tokens_per_step", [16, 512])
def test_a_scripted_model_reads_its_prompt_back_through_the_block_tables(
    make_engine: MakeEngine, max_tokens_per_step: int, prefix_cache: bool
) -> None:
    engine = make_engine(
        ScriptedModel(lambda prompt: prompt[::-1]),
        max_num_seqs=8,
        max_tokens_per_step=max_tokens_per_step,
        kv_cache_tokens=256,
        prefix_cache=prefix_cache,
    )
    prompts = ["the same beginning of every prompt, " + "abcdefghij"[i:] for i in range(10)]
    outputs = engine.generate(prompts * 2, SamplingParams(max_tokens=60))
    assert [output.text for output in outputs] == [prompt[::-1] for prompt in prompts * 2]
    assert engine.stats().num_preemptions > 0


def test_a_model_of_random_logits_says_the_same_again_and_something_else_for_another_seed(
    make_engine: MakeEngine,
) -> None:
    params = SamplingParams(max_tokens=30, temperature=1.0, seed=1, ignore_eos=True)
    first, again = (make_engine(RandomLogitsModel()).generate(["x"], params)[0].token_ids for _ in range(2))
    other = make_engine(RandomLogitsModel(seed=5)).generate(["x"], params)[0].token_ids
    assert first == again != other


def test_a_model_of_random_logits_may_have_any_vocabulary(make_engine: MakeEngine) -> None:
    engine = make_engine(RandomLogitsModel(1000))
    [output] = engine.generate([[999]], SamplingParams(max_tokens=50, temperature=5.0, seed=0, ignore_eos=True))
    assert len(output.token_ids) == 50
    assert max(output.token_ids) >= ByteTokenizer.vocab_size


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3"])
def test_a_tiny_model_runs_in_the_engine(make_engine: MakeEngine, model_type: str) -> None:
    [output] = make_engine(tiny_model(model_type)).generate(["x"], SamplingParams(max_tokens=5, ignore_eos=True))
    assert len(output.token_ids) == 5


def test_a_tiny_model_depends_on_its_seed_alone_and_takes_fields_of_the_config() -> None:
    tokens = mx.array([[1, 2, 3]])
    same = mx.array_equal(tiny_model(seed=3)(tokens), tiny_model(seed=3)(tokens))
    other = mx.array_equal(tiny_model(seed=3)(tokens), tiny_model(seed=4)(tokens))
    assert bool(same) and not bool(other)
    assert tiny_model(vocab_size=77)(tokens).shape == (1, 3, 77)
