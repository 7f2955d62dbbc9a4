"""The demo and the mlx-agent command as a user runs them, on the demo model."""

import asyncio
import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest
from langchain_core.messages import HumanMessage
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_mlx_agent.messages import as_dicts
from mlx_agent_llm import Engine, EngineStats
from mlx_agent_llm.chat import as_tool, prepare_chat
from mlx_agent_llm.cli import main
from mlx_agent_llm.cli.demo import team
from mlx_agent_llm.cli.demo.script import TASKS, shared_messages
from mlx_agent_llm.cli.demo.team import make_team, report, run_team
from mlx_agent_llm.cli.demo.tools import TOOLS
from mlx_agent_llm.models import LoadedModel

SCHEMAS = {name: as_tool(convert_to_openai_tool(tool)).parameters for name, tool in TOOLS.items()}
MIN_SHARED_TOKENS = 400
RIGHT = {  # the number of the result, and what the answer has to speak of
    "How many liters are 3 gallons?": ("11.36", "3 gallons"),
    "How many moons does Jupiter have?": ("95", "Jupiter"),
    "How many pounds are 8 kilograms?": ("17.64", "8 kilograms"),
    "What is the diameter of Saturn?": ("120536", "Saturn"),
    "Convert 5 gallons to liters.": ("18.93", "5 gallons"),
    "What is the diameter of Mercury?": ("4879", "Mercury"),
    "How many moons does Neptune have?": ("16", "Neptune"),
}


class DemoRun(NamedTuple):
    """A finished `mlx-agent demo`: the process, and what it wrote."""

    process: subprocess.CompletedProcess[str]
    report: dict[str, Any]


@pytest.fixture(scope="module")
def run(demo: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """One run of four agents, as the command line starts it."""
    file = tmp_path_factory.mktemp("demo") / "demo.json"
    process = mlx_agent("demo", "--agents", "4", "--seed", "3", "--json", str(file))
    assert process.returncode == 0, process.stderr
    return DemoRun(process, json.loads(file.read_text(encoding="utf-8")))


def mlx_agent(*arguments: str, setup: str = "") -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, where `setup` runs first."""
    code = f"import sys; {setup or 'pass'}\nfrom mlx_agent_llm.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300)


def mlx_agent_here(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of the command in this process, which is quicker."""
    monkeypatch.setattr(sys, "argv", ["mlx-agent", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def assert_is_one_line(stderr: str, *words: str) -> None:
    [line] = stderr.strip().splitlines()
    for word in words:
        assert word in line


def all_calls(agents: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for agent in agents:
        yield from agent["tool_calls"]


def assert_is_valid(call: dict[str, Any]) -> None:
    """A declared tool, arguments that its schema accepts, and the result that the tool gives for them."""
    assert set(call) == {"name", "arguments", "result"}
    jsonschema.validate(call["arguments"], SCHEMAS[call["name"]])
    assert call["result"] == TOOLS[call["name"]].invoke(call["arguments"])


def test_every_agent_of_a_run_calls_a_tool_gets_its_result_and_answers(run: DemoRun) -> None:
    assert [agent["task"] for agent in run.report["agents"]] == list(TASKS[:4])
    for agent in run.report["agents"]:
        assert agent["tool_calls"], "an agent has to call a tool before it answers"
        assert isinstance(agent["answer"], str) and agent["answer"]
    for call in all_calls(run.report["agents"]):
        assert_is_valid(call)


def test_a_run_reports_what_every_agent_cost(run: DemoRun) -> None:
    for agent in run.report["agents"]:
        usage = agent["usage"]
        assert set(usage) == {"prompt_tokens", "cached_tokens", "new_tokens"}
        assert 0 < usage["cached_tokens"] < usage["prompt_tokens"]
        assert usage["new_tokens"] > 0 and agent["tokens_per_second"] > 0
        assert 0 < agent["seconds_to_first_token"] < agent["seconds"] <= run.report["seconds"]


def test_the_agents_of_a_run_share_their_prefix_and_their_steps(run: DemoRun) -> None:
    engine = run.report["engine"]
    assert set(engine) == {field.name for field in fields(EngineStats)}
    # Four agents with at least two turns each: only the first turn of the first one computes what all are told.
    assert engine["prefix_hit_tokens"] >= 7 * MIN_SHARED_TOKENS
    assert engine["prefix_hit_tokens"] == sum(agent["usage"]["cached_tokens"] for agent in run.report["agents"])
    assert engine["num_prompt_tokens_computed"] == engine["prefix_query_tokens"] - engine["prefix_hit_tokens"]
    assert engine["peak_shared_blocks"] > 0
    assert engine["mean_batch_size"] > 1 and engine["max_batch_size"] == 4
    assert engine["num_used_blocks"] == engine["num_running"] == engine["num_waiting"] == 0


def test_a_run_ends_cleanly_and_prints_what_it_reports(run: DemoRun) -> None:
    assert run.process.stderr == ""
    assert f"{len(list(all_calls(run.report['agents'])))} calls" in run.process.stdout
    for call in all_calls(run.report["agents"]):
        assert call["name"] in run.process.stdout


def test_system_prompt_examples_and_tools_are_at_least_400_shared_tokens(demo: LoadedModel) -> None:
    tools = [convert_to_openai_tool(tool) for tool in TOOLS.values()]
    chats = [as_dicts([*shared_messages(), HumanMessage(task)]) for task in TASKS]
    prompts = [prepare_chat(demo.tokenizer, chat, tools=tools).prompt_token_ids for chat in chats]
    shared = takewhile(lambda column: len(set(column)) == 1, zip(*prompts, strict=False))
    assert len(list(shared)) >= MIN_SHARED_TOKENS


@pytest.mark.parametrize("num_runs", [8, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
def test_every_tool_call_of_runs_with_different_seeds_validates(
    demo_engine: Engine, num_runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team, "TEMPERATURE", 0.7)  # the model's own words differ little below
    # Two agents of each run, all runs at once: that is quick, and each task has its turn with two seeds or more.
    teams = [make_team(len(TASKS), seed)[seed % 4 * 2 :][:2] for seed in range(num_runs)]

    async def run_all() -> None:
        await asyncio.gather(*(run_team(one, demo_engine) for one in teams))

    asyncio.run(run_all())
    agents = [agent for one in teams for agent in report(one, demo_engine, 0.0)["agents"]]
    assert all(agent["tool_calls"] and agent["answer"] for agent in agents)
    for call in all_calls(agents):
        assert_is_valid(call)
    assert {agent["task"] for agent in agents} == set(TASKS)
    outcomes = {json.dumps(agent["tool_calls"]) + agent["answer"] for agent in agents}
    assert len(outcomes) > len(TASKS), "the seeds made no difference"


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_demo_model_is_right_about_every_task_with_twenty_seeds(demo_engine: Engine) -> None:
    agents = [agent for seed in range(20) for agent in make_team(len(TASKS), seed)]
    asyncio.run(run_team(agents, demo_engine))
    for agent in agents:
        number, subject = RIGHT[agent.task]
        assert agent.tool_calls[0]["result"].split()[0] == number, (agent.seed, agent.tool_calls)
        assert number in agent.answer.replace(",", "") and subject in agent.answer, (agent.seed, agent.answer)


def test_two_teams_of_one_seed_are_alike_and_those_of_two_seeds_are_not() -> None:
    def seeds(seed: int) -> list[int]:
        return [agent.seed for agent in make_team(4, seed)]

    assert seeds(1) == seeds(1)
    assert not set(seeds(1)) & set(seeds(2))


def test_an_unknown_model_is_one_line_and_exit_code_1() -> None:
    process = mlx_agent("demo", "--model", "no/such/directory")
    assert process.returncode == 1
    assert_is_one_line(process.stderr, "ModelLoadError", "no/such/directory")


def test_without_langchain_the_demo_names_the_extra_in_one_line() -> None:
    process = mlx_agent("demo", setup="sys.modules['langchain_core'] = None")
    assert process.returncode == 1
    assert_is_one_line(process.stderr, "pip install 'mlx-agent-llm[langchain]'")


def test_a_missing_or_truncated_file_is_one_line_and_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    truncated = tmp_path / "truncated.gguf"
    truncated.write_bytes(b"GGUF" + struct.pack("<I", 3) + bytes(3))
    for file in (tmp_path / "missing.gguf", truncated):
        assert mlx_agent_here(monkeypatch, "demo", "--model", str(file)) == 1
        assert_is_one_line(capsys.readouterr().err, "ModelLoadError", str(file))


@pytest.mark.parametrize("arguments", [("--agents", "0"), ("--seed", "-1"), ("--agents", "many")])
def test_an_option_out_of_its_range_is_refused_by_name_before_anything_is_loaded(
    arguments: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mlx_agent_here(monkeypatch, "demo", *arguments) == 2
    printed = capsys.readouterr()
    assert arguments[0] in printed.err
    assert printed.out == ""
