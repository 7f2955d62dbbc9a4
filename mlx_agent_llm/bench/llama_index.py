"""llamaindex: questions over one document through a LlamaIndex synthesizer, at once and one after the other."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mlx_agent_llm.bench import ours
from mlx_agent_llm.bench.result import Bars, Result
from mlx_agent_llm.bench.workload import Options, Workload, check_context
from mlx_agent_llm.engine import Engine

if TYPE_CHECKING:
    from llama_index.core.response_synthesizers import BaseSynthesizer

    from llama_index.llms.mlx_agent import MLXAgentLLM

NUM_QUESTIONS, NUM_NEW = 32, 96
DOCUMENT = "\n".join(
    f"House {number} has {number * 37 % 90 + 3} windows and a {('red', 'blue', 'green', 'white')[number % 4]} door."
    for number in range(1, NUM_QUESTIONS + 1)
)
NUM_AROUND = 1024  # more tokens than LlamaIndex's template, a question and the chat template have in any tokenizer
AT_ONCE, IN_TURN = "at once", "one after the other"


@dataclass(frozen=True)
class Round:
    """All questions once. found_tokens: those of the prompts whose KV was there, computed by another question."""

    seconds: float
    prompt_tokens: int
    found_tokens: int
    generated_tokens: int


def _measure(options: Options) -> Result:
    from llama_index.llms.mlx_agent import MLXAgentLLM  # what is missing is said before the model is loaded

    loaded, rows = options.load(), options.rows or NUM_QUESTIONS
    num_document = len(loaded.tokenizer.encode(DOCUMENT))
    check_context(loaded, num_document + NUM_AROUND + NUM_NEW, "llamaindex")
    with Engine(loaded, ours.config_for(rows)) as engine:
        extra = {"ignore_eos": True}  # so that answers are of one length
        synthesizer = _synthesizer(MLXAgentLLM(engine=engine, max_tokens=NUM_NEW, additional_kwargs=extra))
        asyncio.run(_ask_all(synthesizer, 2, at_once=True))  # warms it up
        runs = [[_run(engine, synthesizer, rows, way) for way in (True, False)] for _ in range(options.repeats or 1)]
    together, apart = (min(side, key=lambda one: one.seconds) for side in zip(*runs, strict=True))
    return _result(rows, num_document, together, apart)


def _synthesizer(llm: MLXAgentLLM) -> BaseSynthesizer:
    """What a query engine has after its retriever."""
    from llama_index.core import PromptHelper
    from llama_index.core.response_synthesizers import get_response_synthesizer

    helper = PromptHelper.from_llm_metadata(llm.metadata, tokenizer=llm.tokenize)
    return get_response_synthesizer(llm, prompt_helper=helper, use_async=True)


def _run(engine: Engine, synthesizer: BaseSynthesizer, rows: int, at_once: bool) -> Round:
    """Ask on an engine that has forgotten every prompt."""
    engine.reset_prefix_cache()
    before, began = engine.stats(), time.perf_counter()
    asyncio.run(_ask_all(synthesizer, rows, at_once))
    seconds, after = time.perf_counter() - began, engine.stats()
    return Round(
        seconds,
        after.prefix_query_tokens - before.prefix_query_tokens,
        after.prefix_hit_tokens - before.prefix_hit_tokens,
        after.num_generated_tokens - before.num_generated_tokens,
    )


async def _ask_all(synthesizer: BaseSynthesizer, rows: int, at_once: bool) -> None:
    questions = [_ask(synthesizer, number) for number in range(1, rows + 1)]
    if at_once:
        await asyncio.gather(*questions)
    else:
        for question in questions:
            await question


async def _ask(synthesizer: BaseSynthesizer, number: int) -> None:
    from llama_index.core.schema import NodeWithScore, TextNode

    answer: Any = await synthesizer.asynthesize(
        f"How many windows has house {number}?", [NodeWithScore(node=TextNode(text=DOCUMENT))]
    )
    assert str(answer), "a question got no answer"


def _result(rows: int, num_document: int, together: Round, apart: Round) -> Result:
    rounds = {AT_ONCE: together, IN_TURN: apart}
    ratio = apart.seconds / together.seconds
    found = together.found_tokens / together.prompt_tokens
    return Result(
        title=f"llamaindex: {rows} questions over one document of {num_document} tokens, {NUM_NEW} new tokens each",
        columns=("", "total s", "prompt", "found", "generated"),
        rows=[
            *((label, *_cells(one)) for label, one in rounds.items()),
            ("times as fast", f"{ratio:.2f}x", "", "", ""),
        ],
        numbers={
            "questions": rows,
            "document_tokens": num_document,
            "new_tokens": NUM_NEW,
            "at_once": asdict(together),
            "one_after_the_other": asdict(apart),
            "ratio": ratio,
            "found": found,
        },
        charts=[Bars("less is better", "seconds", list(rounds), {"total": [one.seconds for one in rounds.values()]})],
        notes=[f"found: {found:.1%} of the prompts' tokens were computed for another question, asked at once"],
    )


def _cells(one: Round) -> tuple[str, ...]:
    return (f"{one.seconds:.2f}", str(one.prompt_tokens), str(one.found_tokens), str(one.generated_tokens))


LLAMAINDEX = Workload("llamaindex", frozenset({"model", "rows", "repeats"}), _measure)
