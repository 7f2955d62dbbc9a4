"""MLXAgentLLM answers from documents: query engines, synthesizers, chat engines with memory, questions at once."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_index.core
import pytest
from llama_index.core import Document, PromptHelper, Settings
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.chat_engine import CondensePlusContextChatEngine, ContextChatEngine, SimpleChatEngine
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts.default_prompt_selectors import DEFAULT_TEXT_QA_PROMPT_SEL
from llama_index.core.query_engine import RetrieverQueryEngine, SubQuestionQueryEngine
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import QueryEngineTool
from llama_index.retrievers.bm25 import BM25Retriever
from pydantic import BaseModel

from llama_index.llms.mlx_agent import LLMRequestError
from tests.support.engines import MakeLLM

PAGES = sorted((Path(__file__).parents[3] / "examples/island").glob("*.md"))


@pytest.fixture(autouse=True)
def count_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """LlamaIndex counts with the model's own tokenizer, which is one of bytes in these tests."""
    monkeypatch.setattr(llama_index.core, "global_tokenizer", None)  # put back afterwards
    Settings.tokenizer = lambda text: list(text.encode())


@pytest.fixture(scope="module")
def retriever() -> BM25Retriever:
    documents = [Document(text=path.read_text(encoding="utf-8"), metadata={"page": path.stem}) for path in PAGES]
    return BM25Retriever.from_defaults(nodes=documents, similarity_top_k=2)


def question_of(prompt: str) -> str:
    return prompt.split("Query: ")[-1].split("\n")[0]


def read_page(prompt: str) -> str:
    """Answer with the heading of the first page in the context."""
    return f"{question_of(prompt)} {prompt.split('# ')[1].splitlines()[0]}."


# ---- query engines


async def test_a_query_engine_answers_with_its_sources(make_llm: MakeLLM, retriever: BM25Retriever) -> None:
    query_engine = RetrieverQueryEngine.from_args(retriever, llm=make_llm(read_page))
    question = "How high is the lighthouse?"
    for answer in (query_engine.query(question), await query_engine.aquery(question)):
        assert str(answer) == "How high is the lighthouse? The lighthouse."
        assert answer.source_nodes[0].metadata["page"] == "lighthouse"
        assert len(answer.source_nodes) == 2


async def test_a_query_engine_streams(make_llm: MakeLLM, retriever: BM25Retriever) -> None:
    query_engine = RetrieverQueryEngine.from_args(retriever, llm=make_llm(read_page), streaming=True)
    said: Any = query_engine.query("When is the ferry?")
    texts = list(said.response_gen)
    assert "".join(texts) == "When is the ferry? The ferry." and len(texts) > 10
    asaid: Any = await query_engine.aquery("When is the ferry?")
    assert [text async for text in asaid.async_response_gen()] == texts
    assert asaid.source_nodes[0].metadata["page"] == "ferry"


async def test_questions_at_once_are_one_batch_that_shares_the_template(
    make_llm: MakeLLM, retriever: BM25Retriever
) -> None:
    llm = make_llm(lambda prompt: read_page(prompt) + "." * 120)
    query_engine = RetrieverQueryEngine.from_args(retriever, llm=llm)
    questions = [f"Where is the {path.stem}?" for path in PAGES]
    answers = await asyncio.gather(*(query_engine.aquery(question) for question in questions))
    for question, answer in zip(questions, answers, strict=True):
        assert str(answer).startswith(question)
    stats = llm.engine.stats()  # type: ignore[union-attr]
    assert len(PAGES) == 12 and stats.max_batch_size >= 8
    template = str(DEFAULT_TEXT_QA_PROMPT_SEL.get_template(llm)).split("{context_str}")[0]
    assert stats.prefix_hit_tokens > 0.9 * 11 * len(template.encode()), "the template is the same for all"


async def test_an_answer_is_an_object_when_asked_for(make_llm: MakeLLM, retriever: BM25Retriever) -> None:
    class Fact(BaseModel):
        page: str
        certain: bool

    structured = make_llm(['{"page": "ferry", "certain": true}']).as_structured_llm(Fact)
    query_engine = RetrieverQueryEngine.from_args(retriever, llm=structured)
    for answer in (query_engine.query("When is the ferry?"), await query_engine.aquery("When is the ferry?")):
        assert answer.response == Fact(page="ferry", certain=True)  # type: ignore[union-attr]


def test_an_object_that_cannot_fit_is_no_empty_response(make_llm: MakeLLM, retriever: BM25Retriever) -> None:
    class Fact(BaseModel):
        page: str

    structured = make_llm(['{"page": "ferry"}'], max_tokens=9).as_structured_llm(Fact)
    with pytest.raises(LLMRequestError, match="max_tokens=9"):
        RetrieverQueryEngine.from_args(retriever, llm=structured).query("When is the ferry?")


# ---- response modes


NODES = [NodeWithScore(node=TextNode(text=f"Fact {index}. " + "and so on " * 60), score=1.0) for index in range(5)]


def summarize(prompt: str) -> str:
    """Name the facts that stand in the prompt, an earlier answer's too."""
    facts = [f"Fact {index}" for index in range(5) if f"Fact {index}" in prompt]
    return ", ".join(facts)


@pytest.mark.parametrize(
    ("mode", "num_calls"),
    [
        (ResponseMode.REFINE, 5),
        (ResponseMode.COMPACT, 2),
        (ResponseMode.TREE_SUMMARIZE, 3),
        (ResponseMode.SIMPLE_SUMMARIZE, 1),
    ],
)
async def test_every_response_mode_reads_every_document(make_llm: MakeLLM, mode: ResponseMode, num_calls: int) -> None:
    llm = make_llm(summarize, max_tokens=60)
    helper = PromptHelper(context_window=8192 if num_calls == 1 else 4000, num_output=60)
    for use_async in (False, True):
        before = llm.engine.stats().prefix_query_tokens  # type: ignore[union-attr]
        synthesizer = get_response_synthesizer(llm, prompt_helper=helper, response_mode=mode, use_async=use_async)
        ask: Callable[..., Any] = synthesizer.synthesize
        answer = await synthesizer.asynthesize("Which?", NODES) if use_async else ask("Which?", NODES)
        assert str(answer) == "Fact 0, Fact 1, Fact 2, Fact 3, Fact 4"
        assert llm.engine.stats().prefix_query_tokens - before > 3000  # type: ignore[union-attr]


async def test_a_tree_is_summarized_at_once(make_llm: MakeLLM) -> None:
    llm = make_llm(lambda prompt: summarize(prompt) + "." * 60, max_tokens=100)
    helper = PromptHelper(context_window=1600, num_output=100)
    synthesizer = get_response_synthesizer(llm, prompt_helper=helper, response_mode=ResponseMode.TREE_SUMMARIZE)
    assert str(await synthesizer.asynthesize("Which?", NODES)).startswith("Fact 0, Fact 1")
    assert llm.engine.stats().max_batch_size >= 4  # type: ignore[union-attr]


# ---- chat engines


async def test_chat_engines_remember_the_turns_before(make_llm: MakeLLM, retriever: BM25Retriever) -> None:
    def reply(prompt: str) -> str:
        return f"Answer {prompt.count('<|im_start|>user')}."

    llm = make_llm(reply)
    memory: Any = lambda: ChatMemoryBuffer.from_defaults(token_limit=3000, tokenizer_fn=llm.tokenize)  # noqa: E731
    engines: list[Any] = [
        SimpleChatEngine.from_defaults(llm=llm, memory=memory()),
        ContextChatEngine.from_defaults(retriever=retriever, llm=llm, memory=memory()),
    ]
    for engine in engines:
        assert str(engine.chat("Hello?")) == "Answer 1."
        assert str(await engine.achat("And the ferry?")) == "Answer 2."
        streamed = engine.stream_chat("And the school?")
        assert "".join(streamed.response_gen) == "Answer 3."
        astreamed = await engine.astream_chat("And the birds?")
        assert "".join([text async for text in astreamed.async_response_gen()]) == "Answer 4."
        roles = [message.role.value for message in engine.chat_history]
        assert roles == ["user", "assistant"] * 4


async def test_a_question_is_condensed_from_the_chat_before_it_is_looked_up(
    make_llm: MakeLLM, retriever: BM25Retriever
) -> None:
    def reply(prompt: str) -> str:
        if "rephrase" in prompt:
            return "How high is the lighthouse?"
        return "It is 31 metres high." if "31 metres" in prompt else "I do not know."

    memory = ChatMemoryBuffer.from_defaults([ChatMessage("Tell me of the lighthouse.")], token_limit=3000)
    engine = CondensePlusContextChatEngine.from_defaults(retriever=retriever, llm=make_llm(reply), memory=memory)
    answer = await engine.achat("How high is it?")
    assert str(answer) == "It is 31 metres high."
    assert answer.source_nodes[0].metadata["page"] == "lighthouse"


async def test_sub_questions_are_asked_at_once(make_llm: MakeLLM, retriever: BM25Retriever) -> None:
    names = ["ferry", "school", "market", "library"]
    parts = [{"sub_question": f"When is the {name}?", "tool_name": "island"} for name in names]

    def reply(prompt: str) -> str:
        if "sub-questions in json" in prompt:
            return "```json\n" + json.dumps({"items": parts}) + "\n```"
        if "Sub question" in prompt:
            return "All of it: " + ", ".join(name for name in names if f"the {name}? The" in prompt)
        return read_page(prompt) + "." * 80

    llm = make_llm(reply)
    island = QueryEngineTool.from_defaults(RetrieverQueryEngine.from_args(retriever, llm=llm), "island", "The island.")
    engine = SubQuestionQueryEngine.from_defaults(
        query_engine_tools=[island],
        llm=llm,
        question_gen=LLMQuestionGenerator.from_defaults(llm=llm),
        response_synthesizer=get_response_synthesizer(llm=llm),
        use_async=True,
        verbose=False,
    )
    assert str(await engine.aquery("When is everything?")) == "All of it: ferry, school, market, library"
    assert llm.engine.stats().max_batch_size >= 2  # type: ignore[union-attr]


# ---- what cannot be answered


def test_an_index_without_documents_is_refused() -> None:
    with pytest.raises(ValueError, match="exactly one of index, nodes, or docstore"):
        BM25Retriever.from_defaults(nodes=[])


class Nothing(BaseRetriever):
    def _retrieve(self, query_bundle: Any) -> list[NodeWithScore]:
        return []


def test_without_any_source_the_model_is_not_asked_and_that_is_said(make_llm: MakeLLM) -> None:
    llm = make_llm(["I make something up."])
    answer = RetrieverQueryEngine.from_args(Nothing(), llm=llm).query("What?")
    assert (str(answer), answer.source_nodes) == ("Empty Response", [])
    assert llm.engine.stats().num_steps == 0  # type: ignore[union-attr]


def test_a_context_that_is_too_long_is_an_error_and_not_cut(make_llm: MakeLLM) -> None:
    llm = make_llm(["Yes."])
    helper = PromptHelper(context_window=20000, num_output=60)
    nodes = [NodeWithScore(node=TextNode(text="x" * 9000))]
    synthesizer = get_response_synthesizer(llm, prompt_helper=helper)
    with pytest.raises(LLMRequestError, match="8192"):
        synthesizer.synthesize("What?", nodes)
    shorter = get_response_synthesizer(llm)  # LlamaIndex splits the text by the context that metadata tells of
    assert str(shorter.synthesize("What?", nodes)) == "Yes."
