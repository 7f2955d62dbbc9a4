"""langchain: agents through LangChain, at once and one after the other; and what it takes for a streamed token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mlx_agent_llm.bench import ours
from mlx_agent_llm.bench.result import Bars, Result
from mlx_agent_llm.bench.workload import Options, Workload, check_context
from mlx_agent_llm.chat import prepare_chat
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.models import LoadedModel, from_parts
from mlx_agent_llm.request import SamplingParams
from mlx_agent_llm.testing import ByteTokenizer, tiny_model

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage, BaseMessage

NUM_AGENTS, NUM_TURNS, NUM_NEW, MAX_CALL = 12, 3, 96, 128
NUM_STREAMS, NUM_STREAMED, NUM_MEASURED = 32, 200, 3
AT_ONCE, IN_TURN = "at once", "one after the other"

NOTE: dict[str, Any] = {
    "name": "note",
    "description": "Write a finding down under one of the headings.",
    "parameters": {
        "type": "object",
        "properties": {
            "heading": {"enum": ["facts", "doubts", "plans"]},
            "importance": {"type": "integer", "minimum": 1, "maximum": 5},
            "page": {"type": "integer", "minimum": 1, "maximum": 99},
        },
        "required": ["heading", "importance", "page"],
    },
}
SYSTEM = "You are one of several clerks who read files and note what is in them.\n" + "\n".join(
    f"File {number} lies on shelf {number % 7 + 1}; what it says of topic {number * 37 % 100} counts."
    for number in range(1, 31)
)


@dataclass(frozen=True)
class Shift:
    """One run of all agents. prefix_found: the part of what all prompts begin with that was in the cache."""

    seconds: float
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    prefix_found: float


@dataclass(frozen=True)
class Overhead:
    """Microseconds of the event loop's thread for a streamed token, the start of a stream included."""

    engine: float
    langchain: float

    @property
    def added(self) -> float:
        """What LangChain and our class for it take."""
        return self.langchain - self.engine


def _measure(options: Options) -> Result:
    loaded, rows = options.load(), options.rows or NUM_AGENTS
    repeats = range(options.repeats or 1)
    check_context(loaded, len(_prompt(loaded, 0)) + NUM_TURNS * (NUM_NEW + 2 * MAX_CALL), "langchain")
    with Engine(loaded, ours.config_for(rows)) as engine:
        asyncio.run(_work(engine, 2))  # warms it up
        num_shared = _num_shared(_prompt(loaded, 0), _prompt(loaded, 1))
        runs = [[_run(engine, rows, num_shared, at_once) for at_once in (True, False)] for _ in repeats]
    together, apart = (min(side, key=lambda shift: shift.seconds) for side in zip(*runs, strict=True))
    return _result(rows, num_shared, together, apart, _measure_overhead())


def _run(engine: Engine, rows: int, num_shared: int, at_once: bool) -> Shift:
    """Let the agents work on an engine that has forgotten every prompt."""
    engine.reset_prefix_cache()
    began = time.perf_counter()
    answers = asyncio.run(_work(engine, rows, at_once))
    seconds = time.perf_counter() - began
    usages: list[Any] = [answer.usage_metadata for answer in answers]
    cached = [usage["input_token_details"]["cache_read"] for usage in usages]
    found = sorted(min(one, num_shared) for one in cached)[1:]  # one call has to compute it
    return Shift(
        seconds=seconds,
        prompt_tokens=sum(usage["input_tokens"] for usage in usages),
        cached_tokens=sum(cached),
        generated_tokens=sum(usage["output_tokens"] for usage in usages),
        prefix_found=sum(found) / (num_shared * len(found)),
    )


async def _work(engine: Engine, rows: int, at_once: bool = True) -> list[AIMessage]:
    """The answers of all agents."""
    if at_once:
        answers = await asyncio.gather(*(_agent(engine, number) for number in range(rows)))
    else:
        answers = [await _agent(engine, number) for number in range(rows)]
    return [answer for agent in answers for answer in agent]


async def _agent(engine: Engine, number: int) -> list[AIMessage]:
    """One agent's turns: a call of its tool, whose result it gets, and an answer of NUM_NEW tokens."""
    from langchain_core.messages import HumanMessage, ToolMessage

    from langchain_mlx_agent import ChatMLXAgent

    chat = ChatMLXAgent(engine=engine, temperature=0, max_tokens=MAX_CALL)
    caller = chat.bind_tools([NOTE], tool_choice="note", parallel_tool_calls=False)
    endless = dict.fromkeys(engine.tokenizer.eos_token_ids, -100)  # so that answers are of one length
    speaker = chat.bind_tools([NOTE], tool_choice="none", max_tokens=NUM_NEW, logit_bias=endless)
    history, answers = _history(number), list[Any]()
    for turn in range(NUM_TURNS):
        answers.append(await caller.ainvoke(history))
        results = [ToolMessage("Written down.", tool_call_id=call["id"]) for call in answers[-1].tool_calls]
        answers.append(await speaker.ainvoke([*history, answers[-1], *results]))
        history += [answers[-2], *results, answers[-1], HumanMessage(f"And file {number + turn + 2}?")]
    return answers


def _history(number: int) -> list[BaseMessage]:
    from langchain_core.messages import HumanMessage, SystemMessage

    return [SystemMessage(SYSTEM), HumanMessage(f"{number + 1} is your file. What do you note?")]


def _prompt(loaded: LoadedModel, number: int) -> list[int]:
    from langchain_mlx_agent.messages import as_dicts

    return prepare_chat(loaded.tokenizer, as_dicts(_history(number)), tools=[NOTE]).prompt_token_ids


def _num_shared(one: Sequence[int], other: Sequence[int]) -> int:
    return next(index for index, (left, right) in enumerate(zip(one, other, strict=False)) if left != right)


def _measure_overhead() -> Overhead:
    """Stream from a model that takes hardly any time, with LangChain and without, in turns; the best counts."""
    from langchain_mlx_agent import ChatMLXAgent

    every_time_a_letter = {ord("x"): 100}
    sampling: dict[str, Any] = {"max_tokens": NUM_STREAMED, "ignore_eos": True, "logit_bias": every_time_a_letter}
    with Engine(from_parts(tiny_model(), ByteTokenizer()), ours.config_for(NUM_STREAMS)) as engine:
        chat = ChatMLXAgent(engine=engine).bind(**sampling)
        params, asked = SamplingParams(**sampling), [{"role": "user", "content": "Hi"}]
        ways = (lambda: engine.astream_chat(asked, params=params), lambda: chat.astream("Hi"))
        runs = [[_time_streams(way) for way in ways] for _ in range(1 + NUM_MEASURED)]
    return Overhead(*(min(times) for times in zip(*runs[1:], strict=True)))  # the first run warmed it up


def _time_streams(start: Callable[[], AsyncIterable[Any]]) -> float:
    """Microseconds a token that this thread, which has the event loop, is busy with all streams."""

    async def read() -> None:
        async for _ in start():
            pass

    async def read_all() -> None:
        await asyncio.gather(*(read() for _ in range(NUM_STREAMS)))

    began = time.thread_time()
    asyncio.run(read_all())
    return 1e6 * (time.thread_time() - began) / (NUM_STREAMS * NUM_STREAMED)


def _result(rows: int, num_shared: int, together: Shift, apart: Shift, overhead: Overhead) -> Result:
    shifts = {AT_ONCE: together, IN_TURN: apart}
    ratio = apart.seconds / together.seconds
    return Result(
        title=f"langchain: {rows} agents, {NUM_TURNS} turns each, {num_shared} prompt tokens in common",
        columns=("", "total s", "prompt", "cached", "prefix found", "generated"),
        rows=[
            *((label, *_cells(shift)) for label, shift in shifts.items()),
            ("times as fast", f"{ratio:.2f}x", "", "", "", ""),
        ],
        numbers={
            "agents": rows,
            "turns": NUM_TURNS,
            "shared_prefix_tokens": num_shared,
            "at_once": asdict(together),
            "one_after_the_other": asdict(apart),
            "ratio": ratio,
            "overhead": asdict(overhead) | {"added": overhead.added, "streams": NUM_STREAMS, "unit": "microseconds"},
        },
        charts=[
            Bars("less is better", "seconds", list(shifts), {"total": [shift.seconds for shift in shifts.values()]}),
            Bars(
                f"a token of {NUM_STREAMS} streams on the event loop",
                "microseconds",
                ["engine", "through LangChain"],
                {"a token": [overhead.engine, overhead.langchain]},
            ),
        ],
        notes=[
            "prefix found: what all prompts have in common and was in the cache, but for the one call that computes it",
            f"a streamed token of {NUM_STREAMS} streams on the event loop's thread: {overhead.engine:.0f} us by the "
            f"engine, {overhead.langchain:.0f} us through LangChain, {overhead.added:.0f} us more",
        ],
    )


def _cells(shift: Shift) -> tuple[str, ...]:
    counts = (str(shift.prompt_tokens), str(shift.cached_tokens), f"{shift.prefix_found:.1%}")
    return (f"{shift.seconds:.2f}", *counts, str(shift.generated_tokens))


LANGCHAIN = Workload("langchain", frozenset({"model", "rows", "repeats"}), _measure)
