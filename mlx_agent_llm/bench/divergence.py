"""divergence: do requests say the same in a batch as alone? Greedy, for each dtype, ours and mlx-lm's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from mlx_agent_llm.bench import ours, peer
from mlx_agent_llm.bench.result import OURS, PEER, Bars, Result
from mlx_agent_llm.bench.workload import Options, RandomTokens, Workload, check_context
from mlx_agent_llm.config import DType
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.models import LoadedModel

NUM_ROWS, NUM_NEW = 16, 64
LONGEST_PROMPT = 16 + 31


@dataclass(frozen=True)
class Agreement:
    """Over all requests: the share whose tokens are the same, and the share of tokens before the first other one."""

    dtype: str
    identical_requests: float
    agreeing_tokens: float


def _measure(options: Options) -> Result:
    sides: dict[str, list[Agreement]] = {OURS: [], PEER: []}
    rows = options.rows or NUM_ROWS
    for dtype in options.dtypes or ("float32",):
        loaded = options.load(dtype)
        check_context(loaded, LONGEST_PROMPT + NUM_NEW, "divergence")
        tokens = RandomTokens(loaded.vocab_size)
        prompts = [tokens(16 + index % 32) for index in range(rows)]
        sides[OURS].append(_ours(loaded, prompts, dtype))
        sides[PEER].append(_peer(options.load(dtype), prompts, dtype))
    return _result(rows, sides)


def _ours(loaded: LoadedModel, prompts: list[list[int]], dtype: DType) -> Agreement:
    """Without the prefix cache, so that nothing of one run helps the other."""
    with Engine(loaded, ours.config_for(1, prefix_cache=False)) as engine:
        alone = [engine.generate([prompt], ours.fixed_length(NUM_NEW))[0].token_ids for prompt in prompts]
    with Engine(loaded, ours.config_for(len(prompts), prefix_cache=False)) as engine:
        together = [output.token_ids for output in engine.generate(prompts, ours.fixed_length(NUM_NEW))]
    return agreement(dtype, alone, together)


def _peer(loaded: LoadedModel, prompts: list[list[int]], dtype: DType) -> Agreement:
    alone = [list(peer.single_tokens(loaded.model, prompt, NUM_NEW)) for prompt in prompts]
    return agreement(dtype, alone, peer.batch_tokens(loaded.model, prompts, NUM_NEW))


def agreement(dtype: str, alone: Sequence[Sequence[int]], together: Sequence[Sequence[int]]) -> Agreement:
    """Compare the tokens of each request in two runs."""
    agreeing = [_num_agreeing(*pair) for pair in zip(alone, together, strict=True)]
    identical = [count == len(tokens) for count, tokens in zip(agreeing, alone, strict=True)]
    return Agreement(dtype, sum(identical) / len(alone), sum(agreeing) / sum(map(len, alone)))


def _num_agreeing(alone: Sequence[int], together: Sequence[int]) -> int:
    pairs = zip(alone, together, strict=True)
    return next((index for index, (one, other) in enumerate(pairs) if one != other), len(alone))


def _result(rows: int, sides: dict[str, list[Agreement]]) -> Result:
    return Result(
        title=f"divergence: {rows} requests alone and together, {NUM_NEW} new tokens each",
        columns=("", "dtype", "identical requests", "tokens before a difference"),
        rows=[
            (label, one.dtype, f"{one.identical_requests:.1%}", f"{one.agreeing_tokens:.1%}")
            for label, agreements in sides.items()
            for one in agreements
        ],
        numbers={
            "requests": rows,
            "new_tokens": NUM_NEW,
            "ours": [asdict(one) for one in sides[OURS]],
            "mlx_lm": [asdict(one) for one in sides[PEER]],
        },
        charts=[
            Bars(
                title,
                "%",
                [one.dtype for one in sides[OURS]],
                {label: [100 * getattr(one, name) for one in agreements] for label, agreements in sides.items()},
            )
            for title, name in (
                ("identical requests", "identical_requests"),
                ("tokens in agreement", "agreeing_tokens"),
            )
        ],
    )


DIVERGENCE = Workload("divergence", frozenset({"model", "rows", "dtypes"}), _measure)
