"""Every model type of mlx-lm says over paged layers what it says with mlx-lm's own cache, or is refused."""

import ast
from pathlib import Path

import mlx_lm.models
import pytest

from mlx_agent_llm.models.served_types import served_types
from tests.support.model_types.configs import own_configs
from tests.support.model_types.document import document
from tests.support.model_types.parity import compare, make_core
from tests.support.model_types.reference import Reference
from tests.support.model_types.scenarios import all_scenarios
from tests.support.model_types.table import NOT_IMPORTED, PAGE, quantize
from tests.support.model_types.tiny import tiny
from tests.support.model_types.verdict import judge

SCENARIOS = {scenario.name: scenario for scenario in all_scenarios()}
TABLE = {row.model_type: row for row in served_types().types}
# One or two of each kind of layer.
REPRESENTATIVES = (
    "deepseek_v3",
    "gemma2",
    "gemma4",
    "gpt_oss",
    "lfm2",
    "llama",
    "mamba2",
    "minimax",
    "mistral3",
    "nemotron_h",
    "qwen3",
    "qwen3_next",
)


@pytest.mark.parametrize("model_type", REPRESENTATIVES)
def test_a_type_of_each_kind_says_what_mlx_lm_says(model_type: str) -> None:
    judgement = judge(model_type, [SCENARIOS["6 rows, small chunks, late joiners"]])
    assert (judgement.verdict, judgement.reasons) == ("equal", [])
    assert judgement.num_tokens > 50


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("model_type", own_configs())
def test_every_type_is_what_the_table_says_of_it(model_type: str) -> None:
    judgement = judge(model_type, all_scenarios())
    assert judgement.verdict != "wrong", judgement.reasons
    assert (judgement.verdict, judgement.layers) == (TABLE[model_type].verdict, TABLE[model_type].layers)


@pytest.mark.long
@pytest.mark.parametrize("model_type", ["llama", "qwen3_moe", "qwen3_next", "gpt_oss"])
def test_quantized_weights_say_what_mlx_lm_says(model_type: str) -> None:
    judgement = judge(model_type, all_scenarios(), prepare=quantize)
    assert (judgement.verdict, judgement.reasons) == ("equal", [])


@pytest.mark.parametrize("name", ["1 row", "prefix hits"])
def test_other_weights_are_told_apart(name: str) -> None:
    core = make_core(tiny("qwen3"), SCENARIOS[name])
    agreement = compare(core, Reference(tiny("qwen3", seed=1)), SCENARIOS[name], tolerance=2e-3)
    assert agreement.differences


def test_what_has_to_happen_in_a_scenario_is_asked_for() -> None:
    scenario = SCENARIOS["preemption"]
    roomy = make_core(tiny("qwen3"), SCENARIOS["1 row"])
    agreement = compare(roomy, Reference(tiny("qwen3")), scenario, tolerance=2e-3)
    assert agreement.differences == ["num_preemptions is 0: the scenario did not come about"]


def test_the_table_has_every_type_of_mlx_lm() -> None:
    folder = Path(mlx_lm.models.__path__[0])
    with_model = {path.stem for path in folder.glob("*.py") if "Model" in _classes(path)}
    assert with_model == {*own_configs(), NOT_IMPORTED.model_type} == set(TABLE)


def _classes(path: Path) -> set[str]:
    """What a module defines or takes from another one."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            names.update(alias.name for alias in node.names)
    return names


def test_no_type_is_served_wrongly_and_each_other_one_has_its_reason() -> None:
    assert all(row.verdict in ("equal", "refused", "not run") for row in TABLE.values())
    assert all(bool(row.reason) == (row.verdict != "equal") for row in TABLE.values())
    assert sum(row.verdict == "equal" for row in TABLE.values()) >= 110


def test_the_page_is_what_the_table_says() -> None:
    assert PAGE.read_text() == document(served_types())
