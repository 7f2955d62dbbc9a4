"""Cited answers from twelve pages, found by vectors and by words: prints each with its sources. An argument reranks."""

import asyncio
import sys
from pathlib import Path

from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.query_engine import CitationQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.retrievers.fusion_retriever import FUSION_MODES
from llama_index.retrievers.bm25 import BM25Retriever

from llama_index.embeddings.mlx_agent import MLXAgentEmbedding
from llama_index.llms.mlx_agent import MLXAgentLLM
from llama_index.postprocessor.mlx_agent import MLXAgentRerank
from mlx_agent_llm import Embedder, Engine

PAGES = sorted((Path(__file__).parent / "island").glob("*.md"))
QUESTIONS = ("How tall is the lighthouse?", "When was the mill for rye built?", "How many children go to school?")


async def main() -> None:
    documents = [Document(text=path.read_text(encoding="utf-8"), metadata={"page": path.stem}) for path in PAGES]
    with Engine.load("demo") as engine, Embedder.load("demo-embedder") as embedder:
        llm = MLXAgentLLM(engine=engine, temperature=0, max_tokens=32)
        Settings.tokenizer = llm.tokenize  # LlamaIndex fills the context by the model's own count of tokens
        index = VectorStoreIndex.from_documents(documents, embed_model=MLXAgentEmbedding(embedder=embedder))
        nodes = list(index.docstore.docs.values())
        hybrid = QueryFusionRetriever(
            [index.as_retriever(similarity_top_k=4), BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=4)],
            llm=llm,
            mode=FUSION_MODES.RECIPROCAL_RANK,
            num_queries=1,
            similarity_top_k=6 if sys.argv[1:] else 2,
        )
        rerankers = [MLXAgentRerank(model, top_n=2) for model in sys.argv[1:]]
        query_engine = CitationQueryEngine.from_args(index, llm=llm, retriever=hybrid, node_postprocessors=rerankers)
        answers = await asyncio.gather(*(query_engine.aquery(question) for question in QUESTIONS))
        for question, answer in zip(QUESTIONS, answers, strict=True):
            sources = (f"[{at}] {node.metadata['page']}" for at, node in enumerate(answer.source_nodes, start=1))
            print(f"{question} {str(answer)!r} (from {', '.join(sources)})")


if __name__ == "__main__":
    asyncio.run(main())
