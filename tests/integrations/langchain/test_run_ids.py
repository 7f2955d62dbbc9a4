"""The id of LangChain's run is in the engine's log, so that a trace and the log can be laid side by side."""

import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph

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


class Runs(BaseCallbackHandler):
    """Remembers the runs of chat models."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        self.ids.append(str(run_id))


async def test_so_do_those_of_a_graph_whose_messages_are_streamed(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    chat, runs = ChatMLXAgent(engine=make_engine(kv_cache_tokens=16384), max_tokens=4), Runs()
    config, asked = RunnableConfig(callbacks=[runs]), {"messages": [("user", "Hello")]}
    graph = StateGraph(MessagesState)
    graph.add_node("chat", RunnableLambda(
        lambda state: {"messages": [chat.invoke(state["messages"])]}, ainvoke_of(chat)
    ))  # fmt: skip
    graph.add_edge(START, "chat")
    program = graph.compile()
    assert list(program.stream(asked, config, stream_mode="messages"))
    assert [part async for part in program.astream(asked, config, stream_mode="messages")]
    assert logged(caplog) == runs.ids
    assert len(set(runs.ids)) == 2


def ainvoke_of(chat: ChatMLXAgent) -> Callable[[MessagesState], Awaitable[dict[str, Any]]]:
    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await chat.ainvoke(state["messages"])]}

    return answer
