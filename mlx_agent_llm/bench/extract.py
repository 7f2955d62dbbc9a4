"""extract: documents to JSON of one schema, on our engine and on mlx-lm's BatchGenerator with an xgrammar processor."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from time import perf_counter
from typing import Any

import mlx.core as mx
import numpy as np
from jsonschema import Draft202012Validator

from mlx_agent_llm.bench import ours, peer
from mlx_agent_llm.bench.result import OURS, OUT_OF_MEMORY, PEER, Bars, Headline, Result, row_without_memory
from mlx_agent_llm.bench.workload import Options, Workload, check_context
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.models import LoadedModel
from mlx_agent_llm.request import SamplingParams
from mlx_agent_llm.request.constraints import JSONSchema

NUM_DOCUMENTS, MAX_TOKENS = 16, 384
_COLUMNS = ("", "total s", "output tokens", "tokens/s", "valid")
_TEXT = {"type": "string", "maxLength": 40}
_FIELDS: dict[str, Any] = {
    "invoice_number": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"},
    "customer_name": _TEXT,
    "street": _TEXT,
    "town": _TEXT,
    "country": {"enum": ["France", "Germany", "Italy", "Spain", "other"]},
    "email": _TEXT,
    "item": _TEXT,
    "quantity": {"type": "integer", "minimum": 0, "maximum": 999},
    "unit_price": {"type": "integer", "minimum": 0, "maximum": 99999},
    "currency": {"enum": ["EUR", "USD", "GBP", "other"]},
    "is_paid": {"type": "boolean"},
    "payment_method": {"enum": ["card", "transfer", "cash", "unknown"]},
}
SCHEMA = {"type": "object", "properties": _FIELDS, "required": list(_FIELDS), "additionalProperties": False}


@dataclass(frozen=True)
class Extraction:
    """One run over all documents. forced_tokens: those that our engine did not have to sample."""

    seconds: float
    tokens: int
    valid_documents: int
    forced_tokens: int = 0

    @property
    def tokens_per_second(self) -> float:
        """Output tokens."""
        return self.tokens / self.seconds


class XGrammarProcessor:
    """A logits processor for mlx-lm; the mask is xgrammar's, and so is the MLX code that applies it."""

    def __init__(self, grammar: Any, vocab_size: int) -> None:
        import xgrammar
        from xgrammar.kernels.apply_token_bitmask_mlx import apply_token_bitmask_mlx

        self._matcher = xgrammar.GrammarMatcher(grammar)
        self._apply: Callable[[mx.array, mx.array, int], mx.array] = apply_token_bitmask_mlx
        self._mask = np.zeros((1, -(-vocab_size // 32)), np.int32)
        self._vocab_size = vocab_size
        self._has_begun = False

    def __call__(self, token_ids: mx.array, logits: mx.array) -> mx.array:
        """Mask the logits, (1, V), of what follows these tokens."""
        if self._has_begun and not self._matcher.is_terminated():
            last: Any = token_ids[-1].item()
            self._matcher.accept_token(last)
        self._has_begun = True
        if self._matcher.is_terminated():
            return logits  # of a step that was begun before anybody saw the end
        self._matcher.fill_next_token_bitmask(self._mask, 0)
        return self._apply(mx.array(self._mask), logits, self._vocab_size)


def documents(count: int) -> list[str]:
    """Made-up letters with all that the schema asks for, the same at every run."""
    return [_document(random.Random(seed)) for seed in range(count)]


def _document(rng: random.Random) -> str:
    name = f"{rng.choice(['Ada', 'Bruno', 'Chloe', 'Dario', 'Elsa', 'Felix'])} {rng.choice(['Moreau', 'Weber'])}"
    number = f"{rng.choice(['AB', 'KX', 'QT'])}-{rng.randrange(1000, 10000)}"
    street = f"{rng.randrange(1, 90)} {rng.choice(['Mill', 'Station', 'Harbour'])} Street"
    town = rng.choice(["Lyon, France", "Bremen, Germany", "Turin, Italy", "Bilbao, Spain"])
    items = f"{rng.randrange(2, 60)} {rng.choice(['garden chairs', 'desk lamps', 'coffee mills', 'notebooks'])}"
    price = f"{rng.randrange(3, 400)} {rng.choice(['EUR', 'USD', 'GBP'])}"
    paid = rng.choice(["was paid by card", "was paid by transfer", "is not paid yet"])
    return (
        f"Invoice {number} for {name}, {street}, {town}. We sent {items} at {price} each, and the invoice {paid}. "
        f"Questions go to {name.split()[0].lower()}@example.org."
    )


def _prompts(loaded: LoadedModel, count: int) -> list[list[int]]:
    task = "Read the letter and answer with one JSON object that is valid for this JSON Schema:"
    prompts = []
    for document in documents(count):
        messages = [
            {"role": "system", "content": f"{task} {json.dumps(SCHEMA)}"},
            {"role": "user", "content": document},
        ]
        text = loaded.tokenizer.apply_chat_template(messages)
        prompts.append(loaded.tokenizer.encode(text, add_special_tokens=False))
    return prompts


def check_peer() -> None:
    """Raise an ImportError that names the extra where the peer's grammars could not be compiled."""
    if find_spec("xgrammar") is None:
        raise ImportError("the peer of extract needs xgrammar: pip install 'mlx-agent-llm[bench]'")


def _measure(options: Options) -> Result:
    """Measure both, in turns; grammars are compiled and a first document is read before the clock starts."""
    check_peer()
    loaded, rival = options.load(), options.load()
    prompts = _prompts(loaded, options.rows or NUM_DOCUMENTS)
    check_context(loaded, max(map(len, prompts)) + MAX_TOKENS, "extract")
    runs = [(_run_ours(loaded, prompts), _run_peer(rival, prompts)) for _ in range(options.repeats or 1)]
    mine, theirs = _best([mine for mine, _ in runs]), peer.best([theirs for _, theirs in runs], _best)
    return _result(len(prompts), mine, theirs)


def _run_ours(loaded: LoadedModel, prompts: list[list[int]]) -> Extraction:
    params = SamplingParams(max_tokens=MAX_TOKENS, temperature=0.0, constraint=JSONSchema(SCHEMA))
    config = replace(ours.config_for(len(prompts)), max_slowdown=math.inf)  # nobody reads a letter as it comes
    with Engine(loaded, config) as engine:
        engine.generate([prompts[0]], params)
        engine.reset_prefix_cache()
        num_forced, began = engine.stats().num_forced_tokens, perf_counter()
        outputs = engine.generate(prompts, params)
        seconds = perf_counter() - began
        num_forced = engine.stats().num_forced_tokens - num_forced
    num_tokens = sum(len(output.token_ids) for output in outputs)
    return Extraction(seconds, num_tokens, sum(_is_valid(output.text) for output in outputs), num_forced)


@peer.unless_out_of_memory
def _run_peer(loaded: LoadedModel, prompts: list[list[int]]) -> Extraction:
    grammar = _compile_for_peer(loaded)
    _extract_with_peer(loaded, grammar, prompts[:1])
    began = perf_counter()
    outputs = _extract_with_peer(loaded, grammar, prompts)
    seconds = perf_counter() - began
    texts = [loaded.tokenizer.decode(token_ids) for token_ids in outputs]
    return Extraction(seconds, sum(map(len, outputs)), sum(map(_is_valid, texts)))


def _compile_for_peer(loaded: LoadedModel) -> Any:
    import xgrammar

    tokenizer = loaded.tokenizer
    info = xgrammar.TokenizerInfo(
        list(tokenizer.token_bytes),
        xgrammar.VocabType.RAW,
        vocab_size=loaded.vocab_size,
        stop_token_ids=sorted(tokenizer.eos_token_ids),
        add_prefix_space=False,
    )
    return xgrammar.GrammarCompiler(info).compile_json_schema(json.dumps(SCHEMA), any_whitespace=False)


def _extract_with_peer(loaded: LoadedModel, grammar: Any, prompts: list[list[int]]) -> list[list[int]]:
    """The output tokens of each prompt, its end token too."""
    outputs: list[list[int]] = [[] for _ in prompts]
    stop_tokens = [[token_id] for token_id in loaded.tokenizer.eos_token_ids]
    with peer.batch_generator(loaded.model, len(prompts), stop_tokens) as generator:
        processors = [[XGrammarProcessor(grammar, loaded.vocab_size)] for _ in prompts]
        generator.insert(prompts, max_tokens=[MAX_TOKENS] * len(prompts), logits_processors=processors)
        num_open = len(prompts)
        while num_open:
            for response in generator.next()[1]:
                outputs[response.uid].append(int(response.token))
                num_open -= response.finish_reason is not None
    return outputs


def _is_valid(text: str) -> bool:
    try:
        return bool(Draft202012Validator(SCHEMA).is_valid(json.loads(text)))
    except ValueError:
        return False


def _best(runs: Sequence[Extraction]) -> Extraction:
    return min(runs, key=lambda run: run.seconds)


def _result(num_documents: int, mine: Extraction, theirs: Extraction | None) -> Result:
    share = mine.forced_tokens / mine.tokens
    return Result(
        title=f"extract: {num_documents} documents to one schema of {len(_FIELDS)} fields",
        columns=_COLUMNS,
        rows=[_row(OURS, mine, num_documents), *_rows_of_peer(num_documents, mine, theirs)],
        numbers={
            "documents": num_documents,
            "fields": len(_FIELDS),
            "ours": _numbers(mine),
            "mlx_lm": None if theirs is None else _numbers(theirs),
            "mlx_lm_failure": OUT_OF_MEMORY if theirs is None else None,
            "ratios": None if theirs is None else {"total": theirs.seconds / mine.seconds},
            "forced_share": share,
        },
        charts=[_chart({OURS: mine} | ({} if theirs is None else {PEER: theirs}))],
        notes=[f"{share:.0%} of our output tokens were forced by the grammar and not sampled"],
        headline=Headline(
            f"{num_documents} letters to JSON of one schema (mlx-lm with xgrammar's mask): total",
            mine.seconds,
            None if theirs is None else theirs.seconds,
        ),
    )


def _rows_of_peer(num_documents: int, mine: Extraction, theirs: Extraction | None) -> list[tuple[str, ...]]:
    label = f"{PEER} + xgrammar"
    if theirs is None:
        return [row_without_memory(label, _COLUMNS)]
    ratios = theirs.seconds / mine.seconds, mine.tokens_per_second / theirs.tokens_per_second
    faster = ("times as fast", f"{ratios[0]:.2f}x", "", f"{ratios[1]:.2f}x", "")
    return [_row(label, theirs, num_documents), faster]


def _chart(runs: dict[str, Extraction]) -> Bars:
    return Bars("less is better", "seconds", ["total"], {label: [run.seconds] for label, run in runs.items()})


def _row(label: str, run: Extraction, num_documents: int) -> tuple[str, ...]:
    numbers = (f"{run.seconds:.2f}", str(run.tokens), f"{run.tokens_per_second:.1f}")
    return (label, *numbers, f"{run.valid_documents} of {num_documents}")


def _numbers(run: Extraction) -> dict[str, float]:
    return {
        "seconds": run.seconds,
        "tokens": run.tokens,
        "tokens_per_second": run.tokens_per_second,
        "valid_documents": run.valid_documents,
        "forced_tokens": run.forced_tokens,
    }


EXTRACT = Workload("extract", frozenset({"model", "rows", "repeats"}), _measure)
