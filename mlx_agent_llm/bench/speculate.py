"""speculate: our engine with speculation="auto" beside itself with "off", on texts that copy and on those that do not.

What follows the prompt is timed: the prompts are in the prefix cache. Each engine has made the same outputs once
before, by which "auto" knows what rows cost. In the scripted cases 60 % of the drafted tokens are right, whatever the
model.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, repeat
from operator import mul
from time import perf_counter
from typing import Any
from weakref import proxy

from mlx_agent_llm.bench import ours
from mlx_agent_llm.bench.extract import documents
from mlx_agent_llm.bench.result import Bars, Result
from mlx_agent_llm.bench.workload import Options, RandomTokens, Workload, check_context
from mlx_agent_llm.config import SpeculationSetting
from mlx_agent_llm.core.schedule.speculation.drafter import Drafter, Outlook
from mlx_agent_llm.core.schedule.speculation.text_drafter import TextDrafter
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.models import LoadedModel
from mlx_agent_llm.request import Request, SamplingParams
from mlx_agent_llm.request.constraints import JSONSchema

NUM_NEW = 96
ACCEPTANCE = 0.6
SCRIPTED_ROWS = (1, 4, 16)
_SETTINGS: tuple[SpeculationSetting, ...] = ("off", "auto")
_COLUMNS = ("", "rows", "tokens/s without", "with", "ratio", "drafted", "of it right", "same tokens")
_SENTENCE = {"type": "string", "maxLength": 120}
_QUOTES: dict[str, Any] = {
    "type": "object",
    "properties": {"first_sentence": _SENTENCE, "second_sentence": _SENTENCE, "contact": _SENTENCE},
    "required": ["first_sentence", "second_sentence", "contact"],
    "additionalProperties": False,
}
_NOTICE = (
    "The harbour of Bergen opens at six in the morning. Fishing boats leave before seven, and the market begins at "
    "eight. Visitors can buy fresh salmon, crab and bread. The last ferry to the islands leaves at nine in the evening."
)
_TOPICS = (
    "lighthouses", "whales", "trains", "bread", "chess", "volcanoes", "bicycles", "tea",
    "glaciers", "violins", "bees", "maps", "deserts", "clocks", "kites", "bridges",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Prompts that are answered together; is_scripted: drafts are right by chance."""

    name: str
    prompts: list[list[int]]
    params: SamplingParams = field(default_factory=lambda: SamplingParams(max_tokens=NUM_NEW, temperature=0.0))
    is_scripted: bool = False


@dataclass(frozen=True)
class Run:
    """The outputs of a case, and how long they took."""

    seconds: float
    outputs: list[tuple[int, ...]]
    drafted: int
    accepted: int

    @property
    def tokens_per_second(self) -> float:
        """Of all rows."""
        return sum(map(len, self.outputs)) / self.seconds


class _ScriptedDrafter:
    """Knows what its request will say, and says something else with the chance that it is to be wrong."""

    def __init__(self, request: Request, outputs: dict[tuple[int, ...], tuple[int, ...]]) -> None:
        self._request: Request = proxy(request)  # who keeps its drafter as long as it lives must not be kept by it
        self._output = outputs.get(tuple(request.prompt_token_ids), ())
        self._random = random.Random(request.request_id)

    def follow(self) -> None:
        """See Drafter."""

    def outlook(self, *, is_read: bool) -> Outlook:
        """See Drafter."""
        return Outlook(1.0, accumulate(repeat(ACCEPTANCE), mul))

    def tokens(self, count: int) -> list[int]:
        """See Drafter."""
        begin = self._request.num_output_tokens
        right = self._output[begin : begin + count]
        return [one if self._random.random() < ACCEPTANCE else one ^ 1 for one in right]


def _measure(options: Options) -> Result:
    """Measure all cases without and with speculation, in turns."""
    loaded = options.load()
    lines: list[tuple[Case, Run, Run]] = []
    for case in _cases(loaded, options.rows):
        check_context(loaded, max(map(len, case.prompts)) + case.params.max_tokens, "speculate")
        runs: list[list[Run]] = [[], []]
        for _ in range(options.repeats or 1):
            for setting, found in zip(_SETTINGS, runs, strict=True):
                found.append(_run(loaded, case, setting, runs[0][0].outputs if runs[0] else []))
        without, with_drafts = (min(found, key=lambda run: run.seconds) for found in runs)
        lines.append((case, without, with_drafts))
    return _result(lines)


def _cases(loaded: LoadedModel, rows: int | None) -> list[Case]:
    def chat(task: str, text: str) -> list[int]:
        messages = [{"role": "system", "content": task}, {"role": "user", "content": text}]
        template = loaded.tokenizer.apply_chat_template(messages)
        return loaded.tokenizer.encode(template, add_special_tokens=False)

    extract = chat(f"Quote the letter. Answer with one JSON object: {json.dumps(_QUOTES)}", documents(1)[0])
    edit = chat(
        "You are a copy editor. Answer with the whole text, changed as asked and otherwise word for word.",
        f"Replace Bergen by Oslo in this text:\n\n{_NOTICE}",
    )
    chats = [chat("You are a helpful assistant.", f"Tell me something about {topic}.") for topic in _TOPICS]
    free = Case("free chat", [])
    tokens = RandomTokens(loaded.vocab_size)
    scripted = [
        Case("scripted", [tokens(64) for _ in range(count)], ours.fixed_length(NUM_NEW), is_scripted=True)
        for count in ([rows] if rows else SCRIPTED_ROWS)
    ]
    return [
        Case("extraction", [extract], replace(free.params, constraint=JSONSchema(_QUOTES), max_tokens=200)),
        Case("edit", [edit], replace(free.params, draft_text=_NOTICE)),
        replace(free, prompts=chats[:1]),
        replace(free, prompts=chats),
        *scripted,
    ]


def _run(loaded: LoadedModel, case: Case, setting: SpeculationSetting, known: Sequence[tuple[int, ...]]) -> Run:
    """One run of an engine that made the same outputs before; known: these outputs, if they are."""
    config = replace(ours.config_for(len(case.prompts)), speculation=setting)
    with Engine(loaded, config) as engine:
        if case.is_scripted:
            outputs = {tuple(prompt): output for prompt, output in zip(case.prompts, known, strict=False)}
            engine._worker.core.speculation.make_drafter = _drafters(outputs)
        engine.generate(case.prompts, case.params)
        before, began = engine.stats(), perf_counter()
        outputs_now = engine.generate(case.prompts, case.params)
        seconds, after = perf_counter() - began, engine.stats()
    return Run(
        seconds,
        [output.token_ids for output in outputs_now],
        after.num_drafted_tokens - before.num_drafted_tokens,
        after.num_accepted_tokens - before.num_accepted_tokens,
    )


def _drafters(outputs: dict[tuple[int, ...], tuple[int, ...]]) -> Callable[[Request], Drafter]:
    return lambda request: _ScriptedDrafter(request, outputs) if outputs else TextDrafter(request)


def _result(lines: Sequence[tuple[Case, Run, Run]]) -> Result:
    labels = [f"{case.name}, {len(case.prompts)}" for case, _, _ in lines]
    return Result(
        title="speculate: tokens a second without and with drafts",
        columns=_COLUMNS,
        rows=[_row(*line) for line in lines],
        numbers={label: _numbers(*line[1:]) for label, line in zip(labels, lines, strict=True)},
        charts=[
            Bars(
                "tokens a second",
                "tokens/s",
                labels,
                {
                    "without": [without.tokens_per_second for _, without, _ in lines],
                    "with": [with_drafts.tokens_per_second for _, _, with_drafts in lines],
                },
            )
        ],
        notes=["Same tokens: with rows of another number logits are rounded otherwise, so that near ties may differ."],
    )


def _row(case: Case, without: Run, with_drafts: Run) -> tuple[str, ...]:
    numbers = _numbers(without, with_drafts)
    share = f"{with_drafts.accepted / with_drafts.drafted:.0%}" if with_drafts.drafted else "-"
    return (
        case.name,
        str(len(case.prompts)),
        f"{without.tokens_per_second:.1f}",
        f"{with_drafts.tokens_per_second:.1f}",
        f"{numbers['ratio']:.2f}x",
        str(with_drafts.drafted),
        share,
        f"{numbers['same']} of {len(case.prompts)}",
    )


def _numbers(without: Run, with_drafts: Run) -> dict[str, Any]:
    pairs = zip(without.outputs, with_drafts.outputs, strict=True)
    return {
        "without_tokens_per_second": without.tokens_per_second,
        "with_tokens_per_second": with_drafts.tokens_per_second,
        "ratio": with_drafts.tokens_per_second / without.tokens_per_second,
        "drafted_tokens": with_drafts.drafted,
        "accepted_tokens": with_drafts.accepted,
        "same": sum(one == other for one, other in pairs),
    }


SPECULATE = Workload("speculate", frozenset({"model", "rows", "repeats"}), _measure)
