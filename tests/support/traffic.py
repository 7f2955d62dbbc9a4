"""Random traffic: what is asked, in all the ways there are, by threads and an event loop, and what may be answered."""

import asyncio
import itertools
import queue
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from mlx_agent_llm import (
    CapacityError,
    ChatOutput,
    Engine,
    GenerationError,
    JSONSchema,
    MLXAgentError,
    RequestError,
    RequestTimeout,
    SamplingParams,
    Tool,
)
from tests.support.exact_model import is_ours

WAIT = 60.0  # seconds after which an answer counts as never given
PAUSE = 0.005  # seconds between two looks whether the queue has room again
SYSTEM = "You are one of many agents, and all of you have this same long beginning in their prompts. "
SCHEMAS: list[dict[str, Any]] = [
    {"type": "boolean"},
    {"enum": ["red", "green", "blue"]},
    {"type": "integer", "minimum": 0, "maximum": 99},
    {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 1, "maxItems": 3},
    {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "integer"}}, "required": ["a", "b"]},
    {"type": "object", "properties": {"name": {"type": "string", "maxLength": 6}}, "required": ["name"]},
]
LIGHT = Tool("light", "Switch it", {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]})

Draw = Callable[[random.Random], Any]
FIELDS: dict[str, Draw] = {  # each is left at its default two times out of three
    "temperature": lambda rng: rng.choice([0.3, 1.0, 1.5]),
    "top_p": lambda rng: rng.choice([0.5, 0.9]),
    "top_k": lambda rng: rng.choice([1, 5, 50]),
    "min_p": lambda rng: rng.choice([0.02, 0.3]),
    "priority": lambda rng: rng.randint(-1, 1),
    "timeout": lambda rng: rng.choices([0, 0.003, 0.03, 30.0], [1, 2, 3, 24])[0],
    "repetition_penalty": lambda rng: rng.choice([0.8, 1.3]),
    "presence_penalty": lambda rng: rng.choice([-0.5, 1.0]),
    "frequency_penalty": lambda rng: rng.choice([-0.5, 1.0]),
    "logit_bias": lambda rng: {rng.randrange(258): rng.choice([-100.0, 3.0]) for _ in range(3)},
    "cache_salt": lambda rng: rng.choice(["a", "b"]),
}
NON_CHAT_FIELDS: dict[str, Draw] = {"logprobs": lambda rng: rng.choice([0, 2])}
FREE_FIELDS: dict[str, Draw] = {  # those that contradict a constraint
    "stop": lambda rng: rng.choice(["e", ("ab", "x"), "\ufffd\ufffd"]),
    "stop_token_ids": lambda rng: [rng.randrange(258)],
    "ignore_eos": lambda rng: True,
    "min_tokens": lambda rng: rng.choice([1, 2]),
}
WAYS = ["result", "iterate", "cancel", "close", "drop", "generate", "chat", "close chat", "fork", "reset", "bad"]
BAD: list[tuple[Any, dict[str, Any]]] = [
    ([], {}),
    ([1, 999], {}),
    ("x" * 1100, {}),
    ("x", {"stop_token_ids": [5000]}),
    ("x", {"n": 2}),
]


@dataclass(frozen=True)
class Ask:
    """One question and the way it is put; patience is the number of deltas after which those leave who do."""

    number: int
    prompt: Any
    params: SamplingParams
    way: str
    patience: int
    pause: float

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "system", "content": SYSTEM[:40]}, {"role": "user", "content": f"question {self.number}"}]

    @property
    def chat_options(self) -> dict[str, Any]:
        asked: list[dict[str, Any]] = [
            {},
            {"tools": [LIGHT], "tool_choice": "required"},
            {"tools": [LIGHT], "tool_choice": "light", "parallel_tool_calls": False},
            {"response_format": SCHEMAS[4]},
            {"tools": [LIGHT], "response_format": SCHEMAS[4]},
        ]
        return {"params": self.params} | asked[self.number % len(asked)]


def make_ask(seed: int, number: int) -> Ask:
    """The same for the same numbers."""
    rng = random.Random(f"{seed} {number}")
    way = rng.choices(WAYS, [20, 10, 10, 5, 5, 10, 8, 3, 4, 1, 2])[0]
    prompt, fields = rng.choice(BAD) if way == "bad" else (_prompt(rng), {})
    fields = {"max_tokens": 5} | fields
    is_free = way in ("result", "iterate", "cancel", "generate", "fork") and rng.random() < 0.6
    if way != "bad":
        drawn = FIELDS | ({} if "chat" in way else NON_CHAT_FIELDS) | (FREE_FIELDS if is_free else {})
        fields = {name: draw(rng) for name, draw in drawn.items() if rng.random() < 1 / 3}
        longer = 80 if "chat" in way else 0  # a call has more text than most other answers
        fields |= {"max_tokens": longer + rng.randint(2, 32), "seed": rng.randrange(2**31)}
        if not is_free and "chat" not in way and rng.random() < 0.6:
            fields["constraint"] = JSONSchema(rng.choice(SCHEMAS))
    return Ask(number, prompt, SamplingParams(**fields), way, rng.randint(0, 6), rng.choice([0, 0, 0.002, 0.01]))


def _prompt(rng: random.Random) -> Any:
    """Text or token ids that often begin as others do, or messages."""
    tail = "".join(rng.choices("abcdef \u00e9", k=rng.randint(1, 30)))
    text = SYSTEM[: rng.choice([0, 10, 32, len(SYSTEM)])] + tail
    return rng.choice([text, list(text.encode()), [{"role": "user", "content": tail}]])


class Traffic:
    """Lets threads and the tasks of one event loop put questions to an engine until there are no more."""

    def __init__(self, engine: Engine, asks: Iterator[Ask]) -> None:
        self.answers: Counter[str] = Counter()
        self.answered: Counter[int] = Counter()
        self.failures: list[BaseException] = []
        self._engine = engine
        self._asks: queue.SimpleQueue[Ask] = queue.SimpleQueue()
        for ask in asks:
            self._asks.put(ask)

    def run(self, num_threads: int = 8, num_tasks: int = 12, *, seconds: float = 300) -> None:
        """Returns when every question is answered; an AssertionError says which was answered wrongly, or never."""
        threads = [threading.Thread(target=self._ask_in_a_thread, daemon=True) for _ in range(num_threads)]
        threads.append(threading.Thread(target=lambda: asyncio.run(self._ask_in_tasks(num_tasks)), daemon=True))
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + seconds
        for thread in threads:
            thread.join(timeout=max(deadline - time.monotonic(), 0))
        assert not any(thread.is_alive() for thread in threads), f"nobody answers: {self._engine.stats()}"
        if self.failures:
            raise self.failures[0]

    def _ask_in_a_thread(self) -> None:
        with suppress(queue.Empty):
            while not self.failures:
                ask = self._asks.get_nowait()
                try:
                    self._note(ask, ask_in_thread(self._engine, ask))
                except BaseException as error:
                    self._judge(ask, error)
                    while not self._has_room():
                        time.sleep(PAUSE)

    async def _ask_in_tasks(self, num_tasks: int) -> None:
        async def work() -> None:
            with suppress(queue.Empty):
                while not self.failures:
                    ask = self._asks.get_nowait()
                    try:
                        self._note(ask, await asyncio.wait_for(ask_in_loop(self._engine, ask), WAIT))
                    except BaseException as error:
                        self._judge(ask, error)
                        while not self._has_room():
                            await asyncio.sleep(PAUSE)

        await asyncio.gather(*(work() for _ in range(num_tasks)))

    def _has_room(self) -> bool:
        """Whether it is worth asking again after an error, which may have been that the queue is full."""
        worker = self._engine._worker
        return worker.limit.num_open - len(worker.core.scheduler.running) < 6

    def _note(self, ask: Ask, answer: str) -> None:
        self.answers[answer] += 1
        self.answered[ask.number] += 1

    def _judge(self, ask: Ask, error: BaseException) -> None:
        """Note an error that the question may be answered with, keep any other."""
        is_right = (
            (isinstance(error, CapacityError) and ask.way != "bad")
            or (isinstance(error, RequestTimeout) and ask.params.timeout is not None and "no end" not in str(error))
            or (isinstance(error, GenerationError) and is_ours(error))
            or (isinstance(error, RequestError) and ask.way == "bad")
            or (isinstance(error, RequestError) and ask.way == "fork" and is_of_a_fork(error))
            or (isinstance(error, RequestError) and is_too_short(ask.params, error))
        )
        if not is_right:
            error.add_note(f"the question was {ask}")
            self.failures.append(error)
        assert not is_right or isinstance(error, MLXAgentError)
        self._note(ask, type(error).__name__)


def ask_in_thread(engine: Engine, ask: Ask) -> str:
    """Ask and wait; the answer in a word."""
    match ask.way:
        case "result" | "bad":
            return engine.submit(ask.prompt, ask.params).result(timeout=WAIT).finish_reason
        case "iterate":
            handle = engine.submit(ask.prompt, ask.params)
            deltas = list(handle)
            assert sum(delta.finish_reason is not None for delta in deltas) == 1
            assert "".join(delta.text for delta in deltas) == handle.result(timeout=WAIT).text
        case "cancel":
            handle = engine.submit(ask.prompt, ask.params)
            list(itertools.islice(handle, ask.patience))
            time.sleep(ask.pause)
            handle.cancel()
            return handle.result(timeout=WAIT).finish_reason
        case "close":
            stream: Any = engine.stream(ask.prompt, ask.params)
            list(itertools.islice(stream, ask.patience))
            stream.close()
        case "drop":
            list(itertools.islice(engine.stream(ask.prompt, ask.params), ask.patience))
        case "generate":
            outputs = engine.generate([ask.prompt, "another"], replace(ask.params, n=2))
            assert len(outputs) == 4
        case "chat":
            return _judge_chat(ask, engine.chat(ask.messages, **ask.chat_options))
        case "fork":
            parent = engine.submit(ask.prompt, ask.params)
            list(itertools.islice(parent, ask.patience))
            forks = [parent.fork(ask.params), parent.fork(ask.params)]
            return str({handle.result(timeout=WAIT).finish_reason for handle in (parent, *forks)})
        case "reset":
            engine.reset_prefix_cache()
        case "close chat":
            chat: Any = engine.stream_chat(ask.messages, **ask.chat_options)
            list(itertools.islice(chat, ask.patience))
            chat.close()
    return ask.way


def is_of_a_fork(error: RequestError) -> bool:
    """Whether the parent had ended, or a matcher's fault struck while the fork took over its tokens."""
    return "has ended" in str(error) or "must allow the output so far" in str(error)


def is_too_short(params: SamplingParams, error: RequestError) -> bool:
    """Whether max_tokens is below what the constraint needs, as the error says."""
    found = re.search(r"max_tokens=(\d+) must be at least (\d+)", str(error))
    return found is not None and int(found[1]) == params.max_tokens < int(found[2])


async def ask_in_loop(engine: Engine, ask: Ask) -> str:
    """The same with the async twins."""
    match ask.way:
        case "result" | "bad" | "fork" | "reset":
            return (await engine.submit(ask.prompt, ask.params).aresult()).finish_reason
        case "iterate":
            deltas = [delta async for delta in engine.astream(ask.prompt, ask.params)]
            assert sum(delta.finish_reason is not None for delta in deltas) == 1
        case "cancel":
            task = asyncio.create_task(engine.agenerate([ask.prompt], ask.params))
            await asyncio.sleep(ask.pause)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        case "close":
            await _take(engine.astream(ask.prompt, ask.params), ask.patience, is_closed=True)
        case "drop":
            await _take(engine.astream(ask.prompt, ask.params), ask.patience, is_closed=False)
        case "generate":
            outputs = await engine.agenerate([ask.prompt, "another"], replace(ask.params, n=2))
            assert len(outputs) == 4
        case "chat":
            return _judge_chat(ask, await engine.achat(ask.messages, **ask.chat_options))
        case "close chat":
            await _take(engine.astream_chat(ask.messages, **ask.chat_options), ask.patience, is_closed=True)
    return ask.way


async def _take(stream: Any, count: int, *, is_closed: bool) -> None:
    """Take the first deltas of an async stream, then close it or let it be."""
    for _ in range(count):
        with suppress(StopAsyncIteration):
            await anext(stream)
    if is_closed:
        await stream.aclose()


def _judge_chat(ask: Ask, output: ChatOutput) -> str:
    is_bool = [isinstance(call.arguments["on"], bool) for call in output.tool_calls]
    assert all(is_bool), "a call that its schema does not allow"
    if output.finish_reason == "tool_calls":
        assert output.tool_calls and not output.invalid_tool_calls
    elif output.finish_reason == "stop" and "response_format" in ask.chat_options:
        assert isinstance(output.parsed["a"], bool) and isinstance(output.parsed["b"], int)
    elif output.finish_reason == "stop":
        assert "tools" not in ask.chat_options, "a tool had to be called"
    assert output.usage.completion_tokens <= ask.params.max_tokens
    return output.finish_reason
