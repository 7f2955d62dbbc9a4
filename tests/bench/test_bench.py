"""Every workload of `mlx-agent bench` runs to its end on a tiny model; nothing here depends on how long it takes."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from typer.testing import CliRunner

from mlx_agent_llm.bench import (
    WORKLOADS,
    Bars,
    Headline,
    Options,
    Result,
    Spread,
    grammar_cost,
    langchain,
    overview,
    peer,
)
from mlx_agent_llm.bench.arrivals import Arrivals
from mlx_agent_llm.bench.decode import NUM_MEASURED, NUM_OWN, NUM_WARM, Case, least_bytes
from mlx_agent_llm.bench.divergence import agreement
from mlx_agent_llm.bench.mask import NUM_NEW as NUM_MASKED
from mlx_agent_llm.bench.mixed import NUM_STREAMED, Scene, Stall, _read
from mlx_agent_llm.bench.ours import decode_steps, fixed_length
from mlx_agent_llm.bench.random_model import _WordTokenizer
from mlx_agent_llm.bench.turns import NUM_ASKED, NUM_NEW, NUM_SYSTEM, NUM_TURNS
from mlx_agent_llm.bench.workload import RandomTokens
from mlx_agent_llm.cli.app import app
from mlx_agent_llm.config import DType, EngineConfig
from mlx_agent_llm.constrain.backends.matcher import GrammarMatcher
from mlx_agent_llm.core.step_clock import PHASES
from mlx_agent_llm.errors import ContextLengthError, RequestError
from mlx_agent_llm.models import LoadedModel, from_parts
from mlx_agent_llm.testing import ByteTokenizer, tiny_model
from tests.support.engines import MakeEngine

TYPES = {"auto": mx.float32, "float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


def load_tiny(dtype: DType = "auto") -> LoadedModel:
    model = tiny_model()
    model.set_dtype(TYPES[dtype])
    return from_parts(model, ByteTokenizer())


def run(name: str, **options: Any) -> dict[str, Any]:
    """The numbers of a workload, after they went through JSON; every number in them is finite."""
    model = {} if name in ("host", "serve") else {"model": load_tiny}
    result = WORKLOADS[name].run(Options(**model, **options))
    check_form(result)
    assert (result.headline is not None) == (WORKLOADS[name] in overview._QUICK)
    if result.headline is not None:
        assert result.headline.ours > 0 and result.headline.ratio in result.numbers["ratios"].values()
    numbers: dict[str, Any] = json.loads(json.dumps(result.numbers, allow_nan=False))
    return numbers


def check_form(result: Result) -> None:
    assert result.rows and all(len(row) == len(result.columns) for row in result.rows)
    assert result.charts
    for chart in result.charts:
        values = [value for one in chart.series.values() for value in one]
        assert values and all(math.isfinite(value) and value >= 0 for value in values)
        if isinstance(chart, Bars):
            assert all(len(one) == len(chart.labels) for one in chart.series.values())


@pytest.mark.parametrize(("name", "new_tokens"), [("single", 128), ("batch", 64), ("agents", 64)])
def test_requests_that_arrive_together_are_measured_on_both_sides(name: str, new_tokens: int) -> None:
    numbers = run(name, rows=2, repeats=1)
    assert (numbers["requests"], numbers["new_tokens"]) == (2, new_tokens)
    for side in ("ours", "mlx_lm"):
        assert 0 < numbers[side]["all_started_seconds"] < numbers[side]["total_seconds"]
        assert numbers[side]["decode_tokens_per_second"] > 0
    assert numbers["ratios"]["total"] == numbers["mlx_lm"]["total_seconds"] / numbers["ours"]["total_seconds"]


def test_a_turn_computes_its_new_tokens_and_less_than_a_block_beside_them() -> None:
    numbers = run("turns")
    mine, theirs = numbers["ours"], numbers["mlx_lm"]
    assert len(mine) == len(theirs) == NUM_TURNS
    for index, (turn, other) in enumerate(zip(mine, theirs, strict=True)):
        assert turn["prompt_tokens"] == NUM_SYSTEM + NUM_ASKED + index * (NUM_ASKED + NUM_NEW) == other["prompt_tokens"]
        assert turn["found_tokens"] + turn["computed_tokens"] == turn["prompt_tokens"]
        assert turn["new_tokens"] == (NUM_ASKED + 1 if index else NUM_SYSTEM + NUM_ASKED)
        assert 0 <= turn["excess_tokens"] < EngineConfig.block_size
        assert other["computed_tokens"] == (NUM_ASKED if index else NUM_SYSTEM + NUM_ASKED)
    assert numbers["computed_tokens"] == sum(turn["computed_tokens"] for turn in mine)
    assert sum(turn["excess_tokens"] for turn in mine) == numbers["computed_tokens"] - numbers["new_tokens"] > 0


def test_a_long_prompt_arrives_while_streams_run() -> None:
    numbers = run("mixed", rows=2, prompt_tokens=700)
    assert (numbers["streams"], numbers["prompt_tokens"]) == (2, 700)
    for side in ("ours", "mlx_lm"):
        stall = numbers[side]
        assert stall["num_gaps"] == 2 * (NUM_STREAMED - 1)
        assert 0 <= stall["num_still_running"] <= 2, "whoever reads our streams may be late"
        assert 0 < stall["waiting_median"] <= stall["waiting_worst"] <= stall["overall_worst"]
        assert stall["late_first_token_seconds"] > 0


def test_only_the_gaps_beside_the_wait_count_as_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """One stream with a token a second, but for one of five seconds; the long prompt arrives and gets its token."""
    moments = [float(index) for index in range(101)] + [float(index) for index in range(105, 105 + NUM_STREAMED - 101)]

    def stall(arrived_at: float, first: float) -> Stall:
        arrivals = Arrivals()
        for moment, request in sorted([(moment, 0) for moment in moments] + [(first, 1)]):
            monkeypatch.setattr(Arrivals, "now", moment)
            arrivals.note(request)
        return _read(Scene([[1]], [1]), arrivals, arrived_at)

    across, before, after = stall(97.5, 105.0), stall(49.5, 60.0), stall(105.5, 300.0)
    assert (across.waiting_median, across.waiting_worst, across.overall_worst) == (1.0, 5.0, 5.0)
    assert (across.late_first_token_seconds, across.worst_over_median, across.num_still_running) == (7.5, 5.0, 1)
    assert (before.waiting_worst, before.overall_worst) == (1.0, 5.0)
    assert (after.waiting_worst, after.num_still_running) == (1.0, 0)


def test_langchain_agents_work_at_once_and_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(langchain, "NUM_STREAMED", 30)
    monkeypatch.setattr(langchain, "NUM_NEW", 16)
    numbers = run("langchain", rows=3)
    together, apart = numbers["at_once"], numbers["one_after_the_other"]
    for name in ("prompt_tokens", "generated_tokens"):
        assert together[name] == apart[name] > 0
    assert together["prefix_found"] > 0.95 and apart["prefix_found"] > 0.95
    assert numbers["ratio"] == apart["seconds"] / together["seconds"]
    overhead = numbers["overhead"]
    assert overhead["engine"] > 0 and overhead["langchain"] > 0 and overhead["streams"] == 32


@pytest.mark.long
def test_what_http_adds_to_a_token_is_measured_beside_the_engine() -> None:
    numbers = run("serve", rows=4, repeats=1)
    assert numbers["streams"] == 4 and numbers["new_tokens"] == 200
    for name in ("wall", "loop"):
        assert numbers["http"][name] > 0 and numbers["engine"][name] > 0
        assert numbers["added"][name] == numbers["http"][name] - numbers["engine"][name]


def test_questions_over_one_document_are_asked_at_once_and_in_turn() -> None:
    numbers = run("llamaindex", rows=3)
    together, apart = numbers["at_once"], numbers["one_after_the_other"]
    assert together["generated_tokens"] == apart["generated_tokens"] == 3 * numbers["new_tokens"]
    assert together["prompt_tokens"] == apart["prompt_tokens"] > 3 * numbers["document_tokens"]
    for one in (together, apart):
        assert 2 * numbers["document_tokens"] < one["found_tokens"] < one["prompt_tokens"] * 2 / 3
    assert numbers["ratio"] == apart["seconds"] / together["seconds"]
    assert 0.6 < numbers["found"] < 2 / 3


def test_masks_are_timed_with_none_one_and_all_rows_constrained(monkeypatch: pytest.MonkeyPatch) -> None:
    filled: list[int] = []
    fill_mask = GrammarMatcher.fill_mask

    def count(matcher: GrammarMatcher, mask: Any, row: int) -> None:
        if len(mask) == 3:  # a batch, and no row by itself
            filled.append(row)
        fill_mask(matcher, mask, row)

    monkeypatch.setattr(GrammarMatcher, "fill_mask", count)
    monkeypatch.setattr(grammar_cost, "CORPORA", {})
    monkeypatch.setattr(grammar_cost, "TOKENIZERS", ())
    numbers = run("mask", rows=3)
    costs = numbers["ours"]
    assert [cost["constrained_rows"] for cost in costs] == [0, 1, 3]
    assert costs[0]["overhead"] == 1.0
    assert all(0 <= cost["mask_seconds"] <= cost["step_seconds"] for cost in costs)
    assert all(50 < cost["num_steps"] < NUM_MASKED for cost in costs)
    num_sampled = NUM_MASKED - 2  # three tokens close the string, instead of the one that was sampled last
    assert len(filled) == (3 + 0 + 1 + 3) * num_sampled, "a run that warms up, and three that count"


def test_documents_are_extracted_on_both_sides_and_ours_are_all_valid() -> None:
    numbers = run("extract", rows=2)
    assert (numbers["documents"], numbers["fields"], numbers["ours"]["valid_documents"]) == (2, 12, 2)
    assert numbers["forced_share"] == numbers["ours"]["forced_tokens"] / numbers["ours"]["tokens"] > 0.2
    assert numbers["mlx_lm"]["tokens"] >= 2 and numbers["mlx_lm"]["forced_tokens"] == 0


def test_a_batch_of_one_row_says_what_the_row_says_alone() -> None:
    numbers = run("divergence", rows=1, dtypes=("float32", "bfloat16"))
    for side in ("ours", "mlx_lm"):
        assert [one["dtype"] for one in numbers[side]] == ["float32", "bfloat16"]
        assert all(one["identical_requests"] == one["agreeing_tokens"] == 1.0 for one in numbers[side])


def test_agreement_ends_at_the_first_difference() -> None:
    one = agreement("float32", [[1, 2, 3, 4], [5, 6, 7, 8]], [[1, 2, 3, 4], [5, 0, 7, 8]])
    assert (one.identical_requests, one.agreeing_tokens) == (0.5, 5 / 8)


def test_decode_tells_tokens_a_second_with_and_without_a_shared_prompt() -> None:
    numbers = run("decode", rows=3, prompt_tokens=40)
    plain, shared = numbers["cases"]
    assert (plain["rows"], plain["context"], plain["is_shared"]) == (3, 40, False)
    assert (shared["rows"], shared["context"], shared["is_shared"]) == (3, 40 + NUM_OWN, True)
    for case in (plain, shared):
        assert case["tokens_per_second"] == pytest.approx(3 / case["ours"]["step"])
        assert 0 < case["ours"]["host"] < case["ours"]["step"]
        assert case["floor"] > 0


def test_decode_quantizes_the_weights_that_it_was_given() -> None:
    def load(dtype: DType) -> LoadedModel:
        return from_parts(tiny_model(hidden_size=64, num_attention_heads=8), ByteTokenizer())

    result = WORKLOADS["decode"].run(Options(load, rows=2, prompt_tokens=40, bits=4))
    bandwidth = result.numbers["bandwidth_bytes_per_second"]
    [plain, _] = result.numbers["cases"]
    assert plain["tokens_per_second"] > 0
    packed = load("auto").model
    nn.quantize(packed, group_size=64, bits=4)
    assert plain["floor"] == pytest.approx(least_bytes(packed, Case(2, 40)) / bandwidth)


NO_MEMORY = [
    RuntimeError("[metal::malloc] Attempting to allocate 99 bytes which is greater than the maximum allowed 9 bytes."),
    RuntimeError("[METAL] Command buffer execution failed: Insufficient Memory (00000008:kIOGPU...OutOfMemory)"),
    RuntimeError("cudaMallocAsync(&data, size, stream) failed: out of memory"),
    MemoryError("std::bad_alloc"),
]


@contextmanager
def no_peer(error: Exception) -> Iterator[None]:
    """In place of mlx-lm's batches: one that has no memory, or something else that is wrong with it."""
    raise error
    yield


@pytest.mark.parametrize("name", ["decode", "batch", "mixed", "extract"])
def test_a_peer_without_memory_is_a_cell_that_says_so_and_null_in_json(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    from mlx_agent_llm.bench.plot import write_plot

    monkeypatch.setattr(peer, "batch_generator", lambda *arguments: no_peer(NO_MEMORY[0]))
    monkeypatch.setattr("mlx_agent_llm.bench.mixed._warm_up", lambda *arguments: None)
    prompt_tokens = {"prompt_tokens": 40} if name in ("decode", "mixed") else {}
    result = WORKLOADS[name].run(Options(load_tiny, rows=2, **prompt_tokens))
    assert all(len(row) == len(result.columns) for row in result.rows)
    assert sum(row.count("out of memory") for row in result.rows) == (2 if name == "decode" else 1)
    numbers = json.loads(json.dumps(result.numbers, allow_nan=False))
    for one in numbers["cases"] if name == "decode" else [numbers]:
        assert one["ours"] and one["mlx_lm_failure"] == "out of memory"
        assert one["mlx_lm_step" if name == "decode" else "mlx_lm"] is None
        assert one["ratio" if name == "decode" else "ratios"] is None
    write_plot(tmp_path / "plot.png", result, "a machine, a day")


@pytest.mark.parametrize("error", NO_MEMORY, ids=str)
def test_the_words_of_every_allocator_are_understood(error: Exception) -> None:
    @peer.unless_out_of_memory
    def run() -> int:
        raise error

    assert run() is None


def test_another_error_of_the_peer_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "batch_generator", lambda *arguments: no_peer(RuntimeError("shapes do not match")))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        WORKLOADS["batch"].run(Options(load_tiny, rows=2))


def test_the_pool_of_a_shared_case_holds_what_is_shared_once() -> None:
    shared, apart = Case(64, 16_384 + NUM_OWN, is_shared=True), Case(64, 16_384)
    own = NUM_OWN + NUM_WARM + NUM_MEASURED + EngineConfig.block_size
    assert shared.num_pool_tokens == 16_384 + 64 * own
    assert apart.num_pool_tokens == 64 * (16_384 - NUM_OWN + own)


def test_rows_that_share_their_prompt_run_together_in_a_pool_of_just_their_size(make_engine: MakeEngine) -> None:
    case = Case(5, 100 + NUM_OWN, is_shared=True)  # the shared tokens end within a block
    engine = make_engine(max_num_seqs=case.rows, kv_cache_tokens=case.num_pool_tokens, speculation="off")
    prompts = case.prompts(RandomTokens(256))
    for num_new in (1, NUM_WARM + NUM_MEASURED):
        engine.generate(prompts, fixed_length(num_new))
    assert engine.stats().num_preemptions == 0
    assert len(decode_steps(engine, case.rows)) >= NUM_WARM + NUM_MEASURED - 3  # some rows may begin a step later


def test_the_least_bytes_of_a_step_are_all_weights_and_what_each_row_has_of_its_own() -> None:
    model = load_tiny().model
    token_bytes = 2 * 2 * (8 + 8) * 4  # two layers, two KV heads, keys and values of eight float32
    few, many = (least_bytes(model, Case(rows, 100)) for rows in (1, 3))
    assert many - few == 2 * (100 + NUM_WARM + NUM_MEASURED / 2) * token_bytes
    shared = least_bytes(model, Case(3, 100, is_shared=True))
    assert many - shared == 2 * (100 - NUM_OWN) * token_bytes


def test_the_host_time_is_told_by_phase() -> None:
    numbers = run("host", rows=4)
    assert numbers["rows"] == 4
    assert 200 < numbers["num_steps"] <= 256
    for times in (numbers["alone"], numbers["beside_a_busy_thread"]):
        assert list(times)[: len(PHASES)] == list(PHASES)
        for spent in times.values():
            assert 0 <= spent["median"] <= spent["p99"]
        for name in ("schedule", "batch", "forward", "dispatch", "advance", "parameters", "sample", "deliver"):
            assert times[name]["median"] > 0, name
        assert times["schedule"]["median"] < times["all of host"]["median"] < times["all of step"]["median"]


def test_restart_finds_the_prompt_on_the_disk_and_in_memory() -> None:
    numbers = run("restart", prompt_tokens=200)
    assert numbers["prompt_tokens"] == 200
    for side in ("ours", "mlx_lm"):
        assert all(seconds > 0 for seconds in numbers[side].values())
    assert numbers["ours"]["found_tokens"] == numbers["mlx_lm"]["found_tokens"] // 16 * 16 == 192


def test_ours_and_the_peer_never_share_a_model() -> None:
    """The engine changes the classes of sub-modules of the model that it serves."""
    models: list[LoadedModel] = []

    def load(dtype: DType) -> LoadedModel:
        models.append(load_tiny(dtype))
        return models[-1]

    for name in ("batch", "turns", "mixed", "divergence"):
        options = Options(load, rows=None if name == "turns" else 1)
        WORKLOADS[name].run(options if name != "mixed" else replace(options, prompt_tokens=64))
        rival = models.pop().model
        assert len(models) == 1 and models.pop().model is not rival
        assert type(rival.model).__module__ == "mlx_lm.models.llama", f"{name}: the engine served the peer's model"


@pytest.mark.parametrize(
    ("name", "options", "refused"),
    [
        ("host", {"model": load_tiny}, "model"),
        ("turns", {"rows": 2}, "rows"),
        ("batch", {"prompt_tokens": 9}, "prompt_tokens"),
        ("mixed", {"dtypes": ("float32",)}, "dtypes"),
        ("divergence", {"repeats": 2}, "repeats"),
    ],
)
def test_an_option_that_means_nothing_to_a_workload_is_refused(
    name: str, options: dict[str, Any], refused: str
) -> None:
    with pytest.raises(RequestError, match=f"{name} takes no {refused}"):
        WORKLOADS[name].run(Options(**options))


def test_a_prompt_beyond_the_context_is_refused() -> None:
    with pytest.raises(ContextLengthError, match=r"prompt_tokens=4096 needs 4128 tokens, .* ends at 4096"):
        WORKLOADS["mixed"].run(Options(load_tiny))


def test_rows_that_never_ran_all_at_once_have_no_step_to_show(make_engine: MakeEngine) -> None:
    engine = make_engine(max_num_seqs=2)
    engine.generate([[1], [2], [3]], fixed_length(4))
    assert decode_steps(engine, 2)
    with pytest.raises(RequestError, match="rows=3: no step decoded all of them"):
        decode_steps(engine, 3)


def test_all_are_the_workloads_with_a_peer_and_quick_makes_them_smaller() -> None:
    whole, quick = (dict(overview.parts(Options(quick=one))) for one in (None, True))
    assert [workload.name for workload in whole] == ["single", "batch", "agents", "turns", "mixed", "extract"]
    assert set(whole.values()) == {Options()}
    assert quick[WORKLOADS["mixed"]] == Options(rows=4, prompt_tokens=1024)
    for workload, options in quick.items():
        assert options.given <= workload.takes
    with pytest.raises(RequestError, match="all takes no rows"):
        list(overview.parts(Options(rows=2)))
    with pytest.raises(RequestError, match="single takes no quick"):
        WORKLOADS["single"].run(Options(quick=True))


def test_headlines_become_one_table_and_whole_numbers_stay() -> None:
    def result(headline: Headline | None) -> Result:
        return Result("", ("",), [("",)], {"a": 1}, [], headline=headline)

    results = {
        "x": result(Headline("work", 2.0, 5.0)),
        "y": result(Headline("more work", 2.0, None)),
        "z": result(None),
    }
    found = overview.overview(results)
    assert found.rows == [("x: work", "2.00", "5.00", "2.50x"), ("y: more work", "2.00", "out of memory", "")]
    assert found.numbers["headlines"]["x"] == {"what": "work", "ours": 2.0, "mlx_lm": 5.0, "ratio": 2.5}
    assert found.numbers["workloads"] == {name: {"a": 1} for name in "xyz"}


def test_all_are_one_table_one_file_of_json_and_one_picture(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("mlx_agent_llm.cli.bench.report.random_model", lambda dtype, name: load_tiny(dtype))
    monkeypatch.setattr(overview, "_QUICK", {WORKLOADS["batch"]: {"rows": 2}})
    report, picture = tmp_path / "all.json", tmp_path / "all.png"
    done = bench("all", "--quick", "--model", "random", "--json", str(report), "--plot", str(picture))
    assert done.exit_code == 0, done.output
    assert "batch ..." in done.output and "times as fast" in done.output
    written = json.loads(report.read_text())
    assert (written["workload"], written["model"]) == ("all", "random")
    assert written["headlines"]["batch"]["what"] == "2 requests of 16 to 17 tokens, 64 new each: total"
    assert written["headlines"]["batch"]["ratio"] == written["workloads"]["batch"]["ratios"]["total"]
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("field", ["rows", "repeats", "prompt_tokens"])
def test_options_below_one_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field}=0 must be at least 1"):
        Options(**{field: 0})  # type: ignore[arg-type]


Bench = Callable[..., Any]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Type `mlx-agent bench ...`."""

    def invoke(*arguments: str) -> Any:
        words = ["bench", *arguments]
        monkeypatch.setattr(sys, "argv", ["/somewhere/mlx-agent", *words])
        return CliRunner().invoke(app, words)

    return invoke


def test_the_command_writes_json_with_machine_and_versions_and_a_plot(bench: Bench, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report, picture = tmp_path / "host.json", tmp_path / "host.png"
    done = bench("host", "--rows", "2", "--json", str(report), "--plot", str(picture))
    assert done.exit_code == 0, done.output
    assert "decode steps of 2 rows" in done.output
    written = json.loads(report.read_text())
    assert (written["workload"], written["rows"], written["model"]) == ("host", 2, None)
    assert written["command"].startswith("mlx-agent bench host --rows 2")
    assert set(written["machine"]["versions"]) == {"mlx-agent-llm", "mlx", "mlx-lm"}
    assert {"device", "platform", "python", "date"} <= set(written["machine"])
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_every_kind_of_chart_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from mlx_agent_llm.bench.plot import write_plot

    charts = [
        Bars("few", "s", ["a", "b"], {"ours": [1.0, 2.0], "peer": [2.0, 3.0]}),
        Bars("many", "s", [f"phase {index}" for index in range(9)], {"ours": [1.0] * 9}),
        Spread("gaps", "s", {"ours": [0.3, 0.1, 0.2], "peer": [0.5]}),
    ]
    sizes = []
    for index in range(len(charts)):
        path = tmp_path / f"{index}.png"
        write_plot(path, Result("title", ("",), [("",)], {}, charts[: index + 1]), "a machine, a day")
        sizes.append(path.stat().st_size)
    assert sizes == sorted(set(sizes)), "each chart is drawn beside those before it"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "must be one of single, batch"),
        (["host", "--rows", "0"], "--rows"),
        (["divergence", "--dtype", "float8"], "must be one of auto, float32"),
        (["decode", "--bits", "3"], "bits=3 must be 4, 8 or 16"),
        (["host", "--plot", "picture.jpg"], "must end in .png"),
        (["host", "--plot", "no/such/folder/picture.png"], "is no folder"),
    ],
)
def test_what_the_command_cannot_do_is_said_at_once(bench: Bench, arguments: list[str], said: str) -> None:
    done = bench(*arguments)
    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())


def test_a_missing_matplotlib_names_the_extra(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "mlx_agent_llm.bench.plot", raising=False)
    done = bench("host", "--rows", "1", "--plot", str(tmp_path / "host.png"))
    assert isinstance(done.exception, ImportError)
    assert "mlx-agent-llm[bench]" in str(done.exception)


def test_the_random_model_is_one_to_ask_for(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("mlx_agent_llm.cli.bench.report.random_model", lambda dtype, name: load_tiny(dtype))
    done = bench("single", "--model", "random", "--json", str(tmp_path / "single.json"))
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "single.json").read_text())["model"] == "random"


def test_the_random_model_s_tokenizer_reads_the_tokens_that_were_written() -> None:
    tokenizer = _WordTokenizer(5000)
    rng = random.Random(0)
    words = [rng.randrange(ByteTokenizer.vocab_size, 5000) for _ in range(200)]
    token_ids = words + list(b'{"a": "b"}') + words[:3] + [256, 257]
    text = b"".join(tokenizer.token_bytes[token_id] for token_id in token_ids[:-2]).decode()
    assert len(set(tokenizer.token_bytes[256:])) == 5000 - 257  # the two special tokens have no text
    assert tokenizer.encode(text + "<|im_start|><|im_end|>") == token_ids
    assert tokenizer.encode(" zzzz is no word") == [*b" zzzz is no", *tokenizer.encode(" word")]
