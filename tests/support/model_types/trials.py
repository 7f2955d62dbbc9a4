"""How far the trial at load is from its tolerance, for every type of one kind of numbers.

python -m tests.support.model_types.trials bfloat16 [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import mlx_agent_llm  # noqa: F401  before MLX, for its BLAS

# isort: split
import mlx.core as mx

from mlx_agent_llm.core.forward import trial
from mlx_agent_llm.errors import UnsupportedModelError
from tests.support.model_types.configs import own_configs
from tests.support.model_types.parity import make_core
from tests.support.model_types.scenarios import all_scenarios
from tests.support.model_types.tiny import tiny

NUM_POSITIONS = 1 + trial.NUM_DECODED  # whose logits are compared in each attempt


def main() -> None:
    """Print the largest distance of each attempt, and the refusal if that is what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dtype", choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = {name: measure(name, getattr(mx, options.dtype)) for name in own_configs()}
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1))


def measure(model_type: str, dtype: mx.Dtype) -> dict[str, object]:
    """The distances, the refusal and the seconds that an engine's making took."""
    distances, distance = list[float](), trial._distance

    def record(found: mx.array, expected: mx.array) -> float:
        distances.append(distance(found, expected))
        return distances[-1]

    model = tiny(model_type)
    model.set_dtype(dtype)
    begin, refusal = time.perf_counter(), ""
    trial._distance = record
    try:
        make_core(model, all_scenarios()[0]).close()
    except UnsupportedModelError as error:
        refusal = str(error)
    finally:
        trial._distance = distance
    attempts = [max(distances[i : i + NUM_POSITIONS]) for i in range(0, len(distances), NUM_POSITIONS)]
    seconds = time.perf_counter() - begin
    print(f"{model_type:24} {' '.join(f'{one:.3f}' for one in attempts)} {refusal[:120]}", flush=True)
    return {"attempts": attempts, "refusal": refusal, "seconds": seconds}


if __name__ == "__main__":
    main()
