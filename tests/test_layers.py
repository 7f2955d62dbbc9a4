"""Imports point down only: bench, cli, integrations -> engine -> core -> kernels; constrain and chat know no core."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mlx_agent_llm"
BASE = {
    "mlx_agent_llm.errors",
    "mlx_agent_llm.config",
    "mlx_agent_llm.request",
    "mlx_agent_llm.constrain.model_schema",
    "mlx_agent_llm.constrain.spec",
}

# In the core, each module may import those before it in its line; several lines may name it.
CORE_ORDER = [
    ["block_pool", "kv_manager", "scheduler", "batch_maker", "runner", "loop"],
    ["batch", "batch_maker", "runner", "loop"],
    ["sharing", "batch_maker", "runner"],
    ["table_matrix", "batch_maker"],
    ["batch", "attention", "memory", "loop"],
    ["kv_manager", "scheduler", "stats", "loop"],
    ["batch", "stats", "loop"],
    ["step_clock", "stats", "loop"],
    ["step_clock", "runner", "loop"],
    ["allocator", "runner"],
    ["batch", "attention", "compiled_forward", "runner"],
    ["batch", "attention", "trial", "fused_blocks", "runner"],
    ["cpu_modules", "runner"],
    ["pacing", "scheduler"],
    ["scheduler", "batch_maker", "warm_up", "loop"],
    ["detokenizer", "stopping", "loop"],
    ["penalties", "sampler", "loop"],
    ["jumping", "loop"],
    ["logprobs", "loop"],
]

# In constrain, a module or package may import those before it.
CONSTRAIN_ORDER = [
    *("model_schema", "spec", "once", "deadline", "thinking"),
    *("regular", "numbers", "regex", "context_free", "schema", "backends", "closing"),
    *("grammars", "compiler", "preparing"),
]


def name_of(path: Path, root: Path = ROOT) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file imports, also for type checking only and inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            is_package = (ROOT / node.module.replace(".", "/")).is_dir()
            yield from (f"{node.module}.{alias.name}" if is_package else node.module for alias in node.names)


def modules_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def starts_with(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def offenders(folder: Path, *forbidden: str, root: Path = ROOT) -> list[str]:
    paths = modules_in(folder)
    assert paths, f"no module in {folder}"
    return [
        f"{name_of(path, root)} -> {name}"
        for path in paths
        for name in imports_of(path)
        if starts_with(name, *forbidden)
    ]


def test_constrain_and_chat_know_nothing_of_the_core() -> None:
    above = ("mlx_agent_llm.core", "mlx_agent_llm.engine", "mlx_agent_llm.worker", "mlx_agent_llm.handle")
    assert offenders(PACKAGE / "constrain", *above, "mlx_agent_llm.chat", "mlx_agent_llm.models") == []
    assert offenders(PACKAGE / "chat", *above) == []


def test_models_know_nothing_of_the_core_or_what_is_above_it() -> None:
    above = ("mlx_agent_llm.core", "mlx_agent_llm.engine", "mlx_agent_llm.worker", "mlx_agent_llm.chat")
    assert offenders(PACKAGE / "models", *above, "mlx_agent_llm.constrain.compiler") == []


def test_the_core_imports_itself_the_kernels_and_the_base_alone() -> None:
    for path in modules_in(PACKAGE / "core"):
        for name in imports_of(path):
            if starts_with(name, "mlx_agent_llm"):
                assert starts_with(name, "mlx_agent_llm.core", *BASE), f"{name_of(path)} -> {name}"


def test_the_modules_of_the_core_import_downwards_only() -> None:
    allowed: dict[str, set[str]] = {}
    for line in CORE_ORDER:
        for index, name in enumerate(line):
            allowed.setdefault(name, set()).update(line[:index])
    paths = [path for path in modules_in(PACKAGE / "core") if path.stem != "__init__"]
    assert {path.stem for path in paths} <= set(allowed), "a new module of the core needs a place in CORE_ORDER"
    for path in paths:
        used = {name.split(".")[2] for name in imports_of(path) if starts_with(name, "mlx_agent_llm.core")}
        assert used <= allowed[path.stem], f"core.{path.stem} -> {sorted(used - allowed[path.stem])}"


def test_the_parts_of_constrain_import_downwards_only() -> None:
    folder = PACKAGE / "constrain"
    for path in (path for path in modules_in(folder) if path.parent != folder or path.stem != "__init__"):
        part = path.relative_to(folder).with_suffix("").parts[0]
        below = CONSTRAIN_ORDER[: CONSTRAIN_ORDER.index(part) + 1]
        used = {name.split(".")[2] for name in imports_of(path) if starts_with(name, "mlx_agent_llm.constrain")}
        assert used <= set(below), f"{name_of(path)} -> {sorted(used - set(below))}"


def test_the_base_imports_only_what_is_below_it() -> None:
    for name in ("errors", "config", "request", "constrain/model_schema", "constrain/spec"):
        path = PACKAGE / f"{name}.py"
        assert {one for one in imports_of(path) if starts_with(one, "mlx_agent_llm")} <= BASE - {name_of(path)}


def test_the_kernels_know_nothing_of_the_engine() -> None:
    assert offenders(ROOT / "kernels", "mlx_agent_llm", "mlx_lm", root=ROOT / "kernels") == []


def test_the_engine_knows_nothing_of_what_stands_on_it() -> None:
    above = ("mlx_agent_llm.cli", "mlx_agent_llm.bench", "mlx_agent_llm.testing", "langchain_mlx_agent", "llama_index")
    below = [path for path in modules_in(PACKAGE) if not {"cli", "bench"} & set(path.relative_to(PACKAGE).parts)]
    found = [f"{name_of(path)} -> {name}" for path in below for name in imports_of(path) if starts_with(name, *above)]
    assert found == []


def test_frameworks_are_imported_by_the_cli_and_the_integrations_alone() -> None:
    frameworks = ("langchain", "langchain_core", "langgraph", "llama_index", "typer", "rich")
    below = [path for path in modules_in(PACKAGE) if not {"cli", "bench"} & set(path.relative_to(PACKAGE).parts)]
    found = [
        f"{name_of(path)} -> {name}" for path in below for name in imports_of(path) if starts_with(name, *frameworks)
    ]
    assert found == []


def test_nothing_imports_torch() -> None:
    """It is in the process all the same where it is installed: mlx-lm imports transformers, which does."""
    for folder in ("mlx_agent_llm", "kernels", "integrations"):
        assert offenders(ROOT / folder, "torch") == []


def test_the_integrations_know_nothing_of_each_other() -> None:
    langchain, llama_index = (ROOT / "integrations" / name for name in ("langchain_mlx_agent", "llama_index"))
    assert offenders(langchain, "llama_index") == []
    assert offenders(llama_index, "langchain_mlx_agent", "langchain", "langchain_core", "langgraph") == []


@pytest.mark.parametrize(
    "absent", ["xgrammar", "llguidance", "langchain_core", "llama_index.core", "typer", "mlx_agent_llm.testing"]
)
def test_importing_the_package_does_not_import(absent: str, modules_of_a_fresh_import: set[str]) -> None:
    assert "mlx_agent_llm.engine" in modules_of_a_fresh_import
    assert absent not in modules_of_a_fresh_import


@pytest.fixture(scope="module")
def modules_of_a_fresh_import() -> set[str]:
    code = "import sys; import mlx_agent_llm; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())
