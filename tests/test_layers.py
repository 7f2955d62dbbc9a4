"""Imports point down, floor by floor, and never in a circle."""

import ast
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mlx_agent_llm"
# The folders of the package from the ground up: a module imports from its own folder, from folders on lower floors, and
# from those that its folder lies in. A new folder gets its floor here; a new file in a folder needs nothing.
FLOORS = (
    ("errors",),
    ("config", "process"),
    ("request",),
    ("languages.regular",),
    ("languages.regex", "languages.numbers", "languages.context_free"),
    ("constrain.schema.values",),
    ("constrain.schema.read",),
    ("constrain.schema.write",),
    ("constrain.schema",),
    ("constrain.backends", "constrain.closing"),
    ("constrain",),
    ("models.gguf",),
    ("models",),
    ("models.embedders",),
    ("chat.reply.arguments",),
    ("chat.reply",),
    ("chat.derive",),
    ("chat.families",),
    ("chat",),
    ("core.kv.tier",),
    ("core.kv",),
    ("core.schedule", "core.output"),
    ("core.schedule.speculation",),
    ("core.batch",),
    ("core.forward.layers",),
    ("core.forward.fast",),
    ("core.forward",),
    ("core.tiering",),
    ("core",),
    ("view",),
    ("embedder", "engine"),
    ("testing", "metrics"),
    ("wire",),
    ("remote", "server"),
    (
        "server.chat_completions",
        "server.completions",
        "server.engine_api",
        "server.messages",
        "server.responses",
    ),
    ("server.others", "server.page"),
    ("server.app",),
    ("bench",),
    ("verify", "evaluate"),
    (
        "cli.bench",
        "cli.chat",
        "cli.demo",
        "cli.doctor",
        "cli.eval",
        "cli.extract",
        "cli.kv",
        "cli.models",
        "cli.top",
    ),
    ("cli",),
)
# Lower floors that a folder knows nothing of all the same.
FORBIDDEN = {
    "constrain": ("models", "chat"),
    "models": ("constrain", "languages"),
    "core": ("constrain", "languages", "models", "chat"),
    "languages": ("request", "config", "process"),
}


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


def modules_of_the_package() -> dict[str, Path]:
    return {name_of(path): path for path in modules_in(PACKAGE)}


def imported_modules(path: Path, modules: Collection[str]) -> set[str]:
    """The modules of the package that a file imports; a name of a package's face is the face."""
    found = {name if name in modules else name.rpartition(".")[0] for name in imports_of(path)}
    return (found & set(modules)) - {name_of(path)}


def folder_of(module: str) -> str:
    """The folder that a module of the package lies in, as FLOORS has it; a file at its root stands for itself."""
    path = modules_of_the_package()[module]
    inside = path.relative_to(PACKAGE).with_suffix("")
    return ".".join(inside.parts[:-1]) or inside.name


def test_every_folder_has_a_floor() -> None:
    folders = {folder_of(module) for module in modules_of_the_package()} - {"__init__"}
    on_floors = [folder for floor in FLOORS for folder in floor]
    with_modules = {
        name_of(path.parent).removeprefix("mlx_agent_llm.")
        for path in modules_in(PACKAGE)
        if path.name != "__init__.py" and path.parent != PACKAGE
    }
    assert len(on_floors) == len(set(on_floors))
    assert with_modules <= set(on_floors)
    assert set(on_floors) <= folders


def test_imports_point_down() -> None:
    level = {folder: index for index, floor in enumerate(FLOORS) for folder in floor}
    modules = modules_of_the_package()
    wrong = []
    for name, path in modules.items():
        here = folder_of(name)
        if here not in level:  # a package that holds packages alone, and the package's own face
            continue
        for other in sorted(imported_modules(path, modules)):
            there = folder_of(other)  # the package's own face is for those on top: a circle otherwise
            is_own = here == there or starts_with(here, there)
            if not is_own and there != "__init__" and level.get(there, -1) >= level[here]:
                wrong.append(f"{name} -> {other}")
    assert wrong == []


@pytest.mark.parametrize(("folder", "others"), FORBIDDEN.items())
def test_what_a_folder_knows_nothing_of(folder: str, others: tuple[str, ...]) -> None:
    assert offenders(PACKAGE / folder, *(f"mlx_agent_llm.{other}" for other in others)) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = modules_of_the_package()
    graph = {name: imported_modules(path, modules) for name, path in modules.items()}
    assert circles(graph) == []


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a", "d"}}) == [{"b", "c"}]


def circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """The sets of two and more nodes that all reach each other."""
    reached = {node: reachable(graph, node) for node in graph}
    groups = {frozenset(other for other in reached[node] if node in reached[other]) | {node} for node in graph}
    return sorted((set(group) for group in groups if len(group) > 1), key=sorted)


def reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    left = [start]
    while left:
        for node in graph[left.pop()] - found:
            found.add(node)
            left.append(node)
    return found


def test_the_kernels_know_nothing_of_the_engine() -> None:
    assert offenders(ROOT / "kernels", "mlx_agent_llm", "mlx_lm", root=ROOT / "kernels") == []


def test_the_integrations_are_known_to_the_cli_and_bench_alone() -> None:
    below = [path for path in modules_in(PACKAGE) if not {"cli", "bench"} & set(path.relative_to(PACKAGE).parts)]
    integrations = ("langchain_mlx_agent", "llama_index")
    found = [
        f"{name_of(path)} -> {name}" for path in below for name in imports_of(path) if starts_with(name, *integrations)
    ]
    assert found == []


def test_frameworks_are_imported_by_the_cli_the_view_and_the_integrations_alone() -> None:
    frameworks = ("langchain", "langchain_core", "langgraph", "llama_index", "typer", "rich")
    below = [
        path for path in modules_in(PACKAGE) if not {"cli", "bench", "view"} & set(path.relative_to(PACKAGE).parts)
    ]
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
def test_using_the_package_does_not_import(absent: str, modules_of_a_fresh_import: set[str]) -> None:
    assert "mlx_agent_llm.engine" in modules_of_a_fresh_import
    assert absent not in modules_of_a_fresh_import


@pytest.fixture(scope="module")
def modules_of_a_fresh_import() -> set[str]:
    code = "import sys; import mlx_agent_llm; mlx_agent_llm.Engine; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())
