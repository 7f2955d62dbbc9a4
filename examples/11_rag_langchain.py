"""Answers from twelve pages, found by their vectors: prints each with its sources. An argument reranks."""

import asyncio
import sys
from pathlib import Path

from langchain_core.documents import Document
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_mlx_agent import ChatMLXAgent, MLXAgentEmbeddings, MLXAgentReranker
from mlx_agent_llm import Embedder, Engine

PAGES = sorted((Path(__file__).parent / "island").glob("*.md"))
QUESTIONS = (
    "How many minutes is the boat trip to the mainland?",
    "How tall is the lighthouse?",
    "When was the mill that grinds rye built?",
    "How many children go to school?",
)
PROMPT = ChatPromptTemplate(
    [("system", "Answer the question from these pages in one short sentence.\n\n{pages}"), ("human", "{question}")]
)
RERANKER = MLXAgentReranker(model=sys.argv[1], top_n=2) if sys.argv[1:] else None


async def main() -> None:
    documents = [Document(path.read_text(encoding="utf-8"), metadata={"page": path.stem}) for path in PAGES]
    with Engine.load("demo") as engine, Embedder.load("demo-embedder") as embedder:
        store = InMemoryVectorStore(MLXAgentEmbeddings(embedder=embedder))
        await store.aadd_documents(documents)
        chain = PROMPT | ChatMLXAgent(engine=engine, temperature=0, max_tokens=32)

        async def answer(question: str) -> None:
            found = await store.asimilarity_search(question, k=6 if RERANKER else 2)
            if RERANKER:
                found = list(await RERANKER.acompress_documents(found, question))
            said = await chain.ainvoke({"pages": "\n\n".join(one.page_content for one in found), "question": question})
            print(f"{question} {said.text!r} (from {', '.join(one.metadata['page'] for one in found)})")

        await asyncio.gather(*map(answer, QUESTIONS))  # one batch of queries, one of answers


if __name__ == "__main__":
    asyncio.run(main())
