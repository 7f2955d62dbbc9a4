"""A LangGraph supervisor that hands questions to workers, all on one engine: prints who answers what, and how."""

import asyncio
import operator
from typing import Annotated, Literal, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send
from pydantic import BaseModel

from langchain_mlx_agent import ChatMLXAgent

EXAMPLES = [("Bake bread?", "cook"), ("Cut trees?", "gardener"), ("Sail a boat?", "sailor"), ("Cook soup?", "cook")]
QUESTIONS = ["How long does rice cook?", "How often do roses need water?", "How do I tie a reef knot at sea?"]


class Choice(BaseModel):  # noqa: D101
    worker: Literal["cook", "gardener", "sailor"]


class State(TypedDict):  # noqa: D101
    questions: list[str]
    answers: Annotated[list[str], operator.add]


async def main() -> None:
    with ChatMLXAgent(model="demo", temperature=0, max_tokens=32) as chat:

        async def supervise(state: State) -> Command[Literal["work"]]:
            shown = [turn for q, who in EXAMPLES for turn in (("human", q), ("ai", f'{{"worker": "{who}"}}'))]
            choose = chat.with_structured_output(Choice)  # always one of the three
            choices = await choose.abatch([[*shown, ("human", question)] for question in state["questions"]])
            tasks = [{"worker": c.worker, "question": q} for c, q in zip(choices, state["questions"], strict=True)]
            return Command(goto=[Send("work", task) for task in tasks])

        async def work(task: dict[str, str]) -> dict[str, list[str]]:
            answer = await chat.ainvoke([("system", f"You are a {task['worker']}."), ("human", task["question"])])
            return {"answers": [f"{task['question']} {task['worker']}: {answer.text!r}"]}

        graph = StateGraph(State).add_node(supervise).add_node(work).add_edge(START, "supervise").compile()
        print(*(await graph.ainvoke({"questions": QUESTIONS}))["answers"], sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
