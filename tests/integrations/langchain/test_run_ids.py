"""The id of LangChain's run is in the engine's log, so that a trace and the log can be laid side by side."""

import logging
import uuid

import pytest

from langchain_mlx_agent import ChatMLXAgent, MLXAgentLLM
from tests.support.engines import MakeEngine


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    ids = [vars(record)["trace_id"] for record in caplog.records if record.name == "mlx_agent_llm.requests"]
    caplog.clear()
    return ids


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mlx_agent_llm.requests")


async def test_a_chat_s_runs_reach_the_engine_however_it_is_called(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    chat = ChatMLXAgent(engine=make_engine(kv_cache_tokens=16384), max_tokens=4)
    run = uuid.uuid4()
    chat.invoke("Hello", {"run_id": run})
    assert logged(caplog) == [str(run)]
    await chat.ainvoke("Hello", {"run_id": run})
    assert logged(caplog) == [str(run)]
    list(chat.stream("Hello", {"run_id": run}))
    assert logged(caplog) == [str(run)]
    assert [chunk async for chunk in chat.astream("Hello", {"run_id": run})]
    assert logged(caplog) == [str(run)]
    chat.batch(["Hello", "Bonjour"])
    assert len(set(logged(caplog))) == 2, "each has a run of its own"
    chat.invoke("Hello", {"run_id": run}, trace_id="mine")
    assert logged(caplog) == ["mine"]


async def test_so_do_those_of_completions(make_engine: MakeEngine, caplog: pytest.LogCaptureFixture) -> None:
    llm = MLXAgentLLM(engine=make_engine(), max_tokens=4)
    run = uuid.uuid4()
    llm.invoke("Hello", {"run_id": run})
    assert [chunk async for chunk in llm.astream("Hello", {"run_id": run})]
    assert logged(caplog) == [str(run)] * 2
