"""The completion model, and chat models by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.exceptions import ModelInvalidRequestError
from pydantic import ValidationError

from langchain_mlx_agent import ChatMLXAgent, MLXAgentLLM, init_chat_model
from mlx_agent_llm import Engine, Regex
from mlx_agent_llm.testing import RandomLogitsModel
from tests.support.langchain_chats import CONFIG


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    model = RandomLogitsModel()
    with Engine.from_parts(model, model.tokenizer, CONFIG) as engine:
        yield engine


async def test_a_prompt_runs_as_it_stands_the_same_in_every_way(engine: Engine) -> None:
    llm = MLXAgentLLM(engine=engine, temperature=0, max_tokens=9)
    expected = llm.invoke("Once")
    assert expected and expected == engine.generate(["Once"], llm._params(None, {}))[0].text
    assert "".join(llm.stream("Once")) == expected == await llm.ainvoke("Once")
    assert "".join([piece async for piece in llm.astream("Once")]) == expected
    assert llm.batch(["Once", "Twice"])[0] == expected
    result = llm.generate(["Once", "Twice"], n=2)
    assert [len(answers) for answers in result.generations] == [2, 2]
    assert result.llm_output is not None and result.llm_output["token_usage"]["completion_tokens"] == 36
    assert llm.get_num_tokens("ab") == 2


def test_options_are_those_of_sampling_params(engine: Engine) -> None:
    llm = MLXAgentLLM(engine=engine, model_kwargs={"num_predict": 3}, stop=["x"])
    assert llm._params(None, {}).max_tokens == 3 and llm._params([], {}).stop == ()
    assert llm.invoke("Hi", stop=[], constraint=Regex("a|b")) in ("a", "b")
    with pytest.raises(ModelInvalidRequestError, match="unknown option 'tools'"):
        llm.invoke("Hi", tools=[])
    with pytest.raises(ValidationError, match="model='' must be"):
        MLXAgentLLM()


def test_a_name_with_our_prefix_is_a_chat_model_and_others_are_langchains() -> None:
    chat = init_chat_model("mlx_agent:demo", temperature=0, max_tokens=4)
    assert isinstance(chat, ChatMLXAgent) and (chat.model, chat.max_tokens) == ("demo", 4)
    agent: Any = create_agent(chat, [])
    assert agent.invoke({"messages": "Hi"})["messages"][-1].text
    chat.close()
    with pytest.raises(ValueError, match="Unable to infer model provider"):
        init_chat_model("nothing-known")
