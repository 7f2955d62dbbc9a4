"""The table of model types: made anew on this machine's device, printed, and written where it is kept.

python -m tests.support.model_types.table [TYPE ...] [--json FILE]
python -m tests.support.model_types.table --write                      # types.json and docs/models.md; on a CPU
python -m tests.support.model_types.table --few --quantized --limit 420 --json gpu.json    # on a GPU
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("MLX_ENABLE_TF32", "0")  # read when MLX is loaded; with it no logarithm has four digits in common

# isort: split
import mlx_agent_llm  # noqa: F401  before MLX, for its BLAS

# isort: split
import mlx.core as mx
import mlx.nn as nn

from mlx_agent_llm.models import served_types as served
from mlx_agent_llm.models.served_types import ServedType, TypeTable
from tests.support.model_types.configs import own_configs
from tests.support.model_types.document import document
from tests.support.model_types.scenarios import all_scenarios
from tests.support.model_types.verdict import Judgement, judge

DATA = Path(served.__file__).with_name("types.json")
PAGE = Path(__file__).parents[3] / "docs" / "models.md"
# What cannot be imported without a package that mlx-lm does not install.
NOT_IMPORTED = ServedType("olmo", "", "not run", "mlx-lm needs the package ai2-olmo for it")
QUANTIZED = (
    "deepseek_v3",
    "gemma3_text",
    "gpt_oss",
    "lfm2",
    "llama",
    "mamba2",
    "nemotron_h",
    "qwen3",
    "qwen3_moe",
    "qwen3_next",
)
FEW = ("6 rows, small chunks, late joiners", "prefix hits", "forced run")


class Case(NamedTuple):
    """One line of the table."""

    name: str
    model_type: str
    prepare: Callable[[nn.Module], None] = lambda model: None


def main() -> None:
    """Judge the types that are asked for, all of them without names."""
    options = _options()
    rows = list(_judge_all(options))
    print(dict(Counter(row.verdict for row in rows)))
    if options.json is not None:
        about = {"mlx": version("mlx"), "mlx_lm": version("mlx-lm"), "device": str(mx.default_device())}
        options.json.write_text(json.dumps(about | {"types": [asdict(row) for row in rows]}, indent=1))
    if options.write:
        write(rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", metavar="TYPE")
    parser.add_argument("--json", type=Path, help="write every row to this file, too")
    parser.add_argument("--write", action="store_true", help=f"write {DATA.name} and {PAGE.name}")
    parser.add_argument("--few", action="store_true", help=f"only the scenarios {', '.join(FEW)}")
    parser.add_argument("--quantized", action="store_true", help="ten types with weights of 4 bits, too")
    parser.add_argument("--compile", action="store_true", help="trace the forward, as an engine does on a GPU")
    parser.add_argument("--limit", type=float, default=float("inf"), help="begin no type after so many seconds")
    return parser.parse_args()


def _judge_all(options: argparse.Namespace) -> Iterator[Judgement]:
    begin = time.perf_counter()
    scenarios = [one for one in all_scenarios() if not options.few or one.name in FEW]
    for name, model_type, prepare in _cases(options):
        if time.perf_counter() - begin > options.limit:
            row = Judgement(model_type, "not run", reasons=[f"{options.limit:g} s were over"])
        else:
            row = judge(model_type, scenarios, compile=options.compile, prepare=prepare)
        row.model_type = name
        print(_line(row), flush=True)
        yield row


def _cases(options: argparse.Namespace) -> list[Case]:
    cases = [Case(name, name) for name in options.types or own_configs()]
    if options.quantized:
        cases += [Case(f"{name}, 4 bit", name, quantize) for name in QUANTIZED]
    return cases


def quantize(model: nn.Module) -> None:
    """Give every layer whose width allows it weights of 4 bits."""
    nn.quantize(
        model,
        group_size=32,
        bits=4,
        class_predicate=lambda _, module: hasattr(module, "to_quantized") and module.weight.shape[-1] % 32 == 0,
    )


def _line(row: Judgement) -> str:
    error = f"{row.num_tokens} tokens, {row.num_ties} ties, error {row.largest_error:.0e}"
    reasons = "".join(f"\n    {reason[:300]}" for reason in row.reasons[:3])
    return f"{row.verdict:8} {row.model_type:24} {row.layers:32} {error}, {row.seconds:.1f} s{reasons}"


def write(rows: Sequence[Judgement]) -> None:
    """Keep the verdicts where the package and the documentation have them."""
    found = [ServedType(row.model_type, row.layers, row.verdict, "; ".join(row.reasons)) for row in rows]
    table = TypeTable(version("mlx-lm"), tuple(sorted([*found, NOT_IMPORTED], key=lambda row: row.model_type.lower())))
    rows_as_data = [row._asdict() for row in table.types]
    DATA.write_text(json.dumps({"mlx_lm": table.mlx_lm, "types": rows_as_data}, indent=1) + "\n")
    PAGE.write_text(document(table))


if __name__ == "__main__":
    main()
