"""Ours beside the JSON schema converters of the two grammar libraries, over real schemas and real vocabularies."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerFast

from mlx_agent_llm.bench import real_schemas
from mlx_agent_llm.bench.grammar_walks import GrammarWalk
from mlx_agent_llm.bench.json_compilers import SIDES, Side, vocabulary_of
from mlx_agent_llm.bench.mutants import mutants
from mlx_agent_llm.bench.real_schemas import FOLDER, Named, bundled
from mlx_agent_llm.bench.result import Table
from mlx_agent_llm.bench.schema_trial import Outcome, SideProcess, Task
from mlx_agent_llm.constrain.schema import schema_grammar, write_json
from mlx_agent_llm.constrain.violation import violation
from mlx_agent_llm.errors import RequestError
from mlx_agent_llm.models.tokenizer import HFTokenizer, Tokenizer

NUM_SCHEMAS = 10  # of each corpus
NUM_VALUES, NUM_MUTANTS, DEPTH = 2, 20, 6
MAX_CHARACTERS = 4000  # of a text
CORPORA: Mapping[str, Callable[[], Iterable[Named]]] = {
    "tools": real_schemas.tools,
    "mcp": real_schemas.mcp_tools,
    "check-jsonschema": real_schemas.check_jsonschema,
    "kubernetes": real_schemas.kubernetes,
}
TOKENIZERS = ("qwen3", "gptoss", "gemma3")


class WrittenSchema(NamedTuple):
    """A schema with texts of valid and of invalid values."""

    corpus: str
    schema: dict[str, Any]
    valid: list[str]
    invalid: list[str]


class Sample(NamedTuple):
    """Some schemas of each corpus with texts of them, and the corpora that are not there."""

    schemas: list[WrittenSchema]
    missing: list[str]


class Trial(NamedTuple):
    """What a side made of one schema."""

    corpus: str
    vocabulary: str
    side: Side
    outcome: Outcome


@dataclass(frozen=True)
class SideCost:
    """What a side made of all schemas of a group, a corpus or a vocabulary.

    num_right: schemas all of whose texts are judged as jsonschema does; num_lost, num_wrong: valid texts that are
    not let through, and invalid ones that are. Seconds, from the schema to its first mask and for a mask; None
    where no schema is compiled.
    """

    group: str
    side: Side
    num_schemas: int
    num_compiled: int
    num_right: int
    num_lost: int
    num_wrong: int
    num_masks: int
    first_mask_p50: float | None = None
    first_mask_p99: float | None = None
    mask_p50: float | None = None
    mask_p99: float | None = None


def sample_schemas(num_schemas: int) -> Sample:
    """At most so many schemas of each corpus, the same ones every time."""
    written, missing = list[WrittenSchema](), list[str]()
    for corpus, load in CORPORA.items():
        try:
            schemas = list(load())
        except FileNotFoundError:
            missing.append(corpus)
            continue
        chosen = random.Random(0).sample(schemas, min(num_schemas, len(schemas)))
        written += [_written(named, random.Random(named.name)) for named in chosen]
    return Sample(written, missing)


def real_tokenizers() -> Iterator[tuple[str, Tokenizer]]:
    """The tokenizers of model families that are there."""
    for name in TOKENIZERS:
        folder = FOLDER / f"tokenizer-{name}" / "models"
        if folder.is_dir():
            yield name, HFTokenizer(PreTrainedTokenizerFast.from_pretrained(str(folder)))


def try_schemas(
    schemas: Sequence[WrittenSchema], name: str, tokenizer: Tokenizer, given_up: dict[tuple[Side, int], Outcome]
) -> Iterator[Trial]:
    """Every side on every schema, one after the other, with the vocabulary of a tokenizer.

    given_up: what a side gave up with another vocabulary, by the index of the schema; it is not tried again, and more
    is added. A side that waits out its time with every schema would take hours.
    """
    vocabulary = vocabulary_of(name, tokenizer, tokenizer.vocab_size)
    tasks = [Task(one.schema, _tokens(tokenizer, one.valid), _tokens(tokenizer, one.invalid)) for one in schemas]
    for side in SIDES:
        with SideProcess(side, vocabulary) as process:
            for index, task in enumerate(tasks):
                outcome = given_up.get((side, index)) or process.run(task)
                if outcome.gave_up:
                    given_up[side, index] = outcome
                yield Trial(schemas[index].corpus, name, side, outcome)


def side_costs(trials: Sequence[Trial], group_of: Callable[[Trial], str]) -> list[SideCost]:
    """The trials added up, for each group and side."""
    groups = dict.fromkeys((group_of(trial), trial.side) for trial in trials)
    return [
        _cost(group, side, [one.outcome for one in trials if (group_of(one), one.side) == (group, side)])
        for group, side in groups
    ]


def verdict_table(costs: Sequence[SideCost]) -> Table:
    """How much of each corpus a side compiles, and judges rightly."""
    return Table(
        "schemas that are compiled, and that judge all texts rightly",
        ("corpus", "side", "schemas", "compiled", "right", "valid lost", "invalid let through"),
        [
            (
                one.group,
                one.side,
                *map(str, (one.num_schemas, one.num_compiled, one.num_right, one.num_lost, one.num_wrong)),
            )
            for one in costs
        ],
    )


def time_table(costs: Sequence[SideCost]) -> Table:
    """What masks take with each vocabulary."""
    return Table(
        "from a schema to its first mask, and a mask",
        ("vocabulary", "side", "compiled", "first ms p50", "p99", "mask us p50", "p99"),
        [
            (
                one.group,
                one.side,
                f"{one.num_compiled} of {one.num_schemas}",
                *(_scaled(seconds, 1e3) for seconds in (one.first_mask_p50, one.first_mask_p99)),
                *(_scaled(seconds, 1e6) for seconds in (one.mask_p50, one.mask_p99)),
            )
            for one in costs
        ],
    )


def _written(named: Named, rng: random.Random) -> WrittenSchema:
    """Texts that walk through our grammar of what it can keep, and mutants of them, sorted by what jsonschema says."""
    schema, texts = bundled(named), dict[bool, list[str]]({True: [], False: []})
    try:
        walk = GrammarWalk(schema_grammar(schema, strict=False).grammar, DEPTH)
    except RequestError:  # not even a part of it
        return WrittenSchema(named.corpus, schema, [], [])
    for _ in range(NUM_VALUES):
        value = json.loads(walk.text(rng))
        for one in (value, *islice(mutants(value, rng), NUM_MUTANTS)):
            if len(text := write_json(one)) <= MAX_CHARACTERS:
                texts[violation(schema, one) is None].append(text)
    return WrittenSchema(named.corpus, schema, texts[True], texts[False])


def _tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of the texts that the vocabulary spells: one of bytes may lack some of them."""
    encoded = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    written = [b"".join(tokenizer.token_bytes[token_id] for token_id in tokens) for tokens in encoded]
    return [tokens for tokens, data, text in zip(encoded, written, texts, strict=True) if data == text.encode()]


def _cost(group: str, side: Side, outcomes: Sequence[Outcome]) -> SideCost:
    compiled = [outcome for outcome in outcomes if not outcome.refusal]
    masks = [seconds for outcome in compiled for seconds in outcome.masks]
    return SideCost(
        group,
        side,
        len(outcomes),
        len(compiled),
        num_right=sum(not outcome.num_lost and not outcome.num_wrong for outcome in compiled),
        num_lost=sum(outcome.num_lost for outcome in compiled),
        num_wrong=sum(outcome.num_wrong for outcome in compiled),
        num_masks=len(masks),
        **_percentiles("first_mask", [outcome.first_mask for outcome in compiled]),
        **_percentiles("mask", masks),
    )


def _percentiles(name: str, seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {}
    p50, p99 = np.percentile(seconds, [50, 99]).tolist()
    return {f"{name}_p50": p50, f"{name}_p99": p99}


def _scaled(seconds: float | None, scale: float) -> str:
    return "" if seconds is None else f"{seconds * scale:,.1f}"
