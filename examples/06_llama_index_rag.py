"""Questions to twelve pages, found by BM25: prints one answer as it streams, then six asked at once, with sources."""

import asyncio
from pathlib import Path

from llama_index.core import Document, Settings
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.retrievers.bm25 import BM25Retriever

from llama_index.llms.mlx_agent import MLXAgentLLM
from mlx_agent_llm import Engine

PAGES = sorted((Path(__file__).parent / "island").glob("*.md"))
QUESTIONS = (
    "How long does the ferry take?",
    "Who is the harbour master?",
    "How high is the lighthouse?",
    "When was the windmill built?",
    "How many pupils has the school?",
    "On which day is the market?",
)


async def main() -> None:
    documents = [Document(text=path.read_text(encoding="utf-8"), metadata={"page": path.stem}) for path in PAGES]
    retriever = BM25Retriever.from_defaults(nodes=documents, similarity_top_k=2)
    with Engine.load("demo") as engine:
        llm = MLXAgentLLM(engine=engine, temperature=0, max_tokens=32)
        Settings.tokenizer = llm.tokenize  # LlamaIndex fills the context by the model's own count of tokens
        streaming = RetrieverQueryEngine.from_args(retriever, llm=llm, streaming=True)
        print("streamed: ", end="")
        async for text in (await streaming.aquery("When does the bakery open?")).async_response_gen():
            print(text, end="|")
        query_engine = RetrieverQueryEngine.from_args(retriever, llm=llm)
        answers = await asyncio.gather(*(query_engine.aquery(question) for question in QUESTIONS))
        print()
        for question, answer in zip(QUESTIONS, answers, strict=True):
            pages = ", ".join(source.metadata["page"] for source in answer.source_nodes)
            print(f"{question} {str(answer)!r} (from {pages})")
        stats = engine.stats()
    print(f"largest batch: {stats.max_batch_size} rows, prefix hit rate: {stats.prefix_hit_rate:.0%}")


if __name__ == "__main__":
    asyncio.run(main())
