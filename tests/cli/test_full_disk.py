"""Every command that writes, on a disk that is full: one line that names the file."""

import subprocess
import sys
from pathlib import Path

import pytest

# A file system of one page, which a file of its own fills, in a namespace of its own: it is gone with the process.
FILL = 'mount -t tmpfs -o size=4k tmpfs disk && head -c 4096 /dev/zero > disk/fill && exec "$@"'
ON_A_SCRIPTED_MODEL = """
from mlx_agent_llm import Engine, EngineConfig
from mlx_agent_llm.testing import ScriptedModel
model = ScriptedModel(['{"city": "Rome"}'])
config = EngineConfig(kv_cache_tokens=4096, check_model=False)
Engine.load = lambda name: Engine.from_parts(model, model.tokenizer, config)
from mlx_agent_llm.cli import main
main()
"""
NO_ROOM = "[Errno 28] No space left on device"


def run(folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "disk").mkdir(exist_ok=True)
    (folder / "schema.json").write_text('{"properties": {"city": {"type": "string", "maxLength": 9}}}')
    (folder / "a.txt").write_text("A letter from Rome")
    command = ["unshare", "-Urm", "sh", "-c", FILL, "sh", sys.executable, "-c", ON_A_SCRIPTED_MODEL, *arguments]
    return subprocess.run(command, cwd=folder, input=stdin, capture_output=True, text=True, timeout=100)


@pytest.mark.skipif(
    sys.platform != "linux" or subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode != 0,
    reason="a small disk is a file system in a namespace of Linux's",
)
@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "stdin", "line"),
    [
        (
            ["extract", "schema.json", "a.txt", "-o", "disk/out.jsonl"],
            "",
            f"OSError: {NO_ROOM}: what was written is kept, so make room and call again: 'disk/out.jsonl'",
        ),
        (["models", "types", "--json", "disk/types.json"], "", f"OSError: {NO_ROOM}: 'disk/types.json'"),
        (["chat", "--json", "disk/chat.json"], "hi\n", f"OSError: {NO_ROOM}: 'disk/chat.json'"),
        (["chat"], "hi\n/save disk/chat.json\n", f"{NO_ROOM}: 'disk/chat.json'"),
        (["bench", "host", "--rows", "1", "--plot", "disk/a.png"], "", f"OSError: {NO_ROOM}"),
    ],
)
def test_a_full_disk_is_one_line_that_names_the_file(
    arguments: list[str], stdin: str, line: str, tmp_path: Path
) -> None:
    done = run(tmp_path, *arguments, stdin=stdin)
    assert done.returncode == (3 if "/save" in stdin else 1)
    assert done.stderr.splitlines()[-1] == line and "Traceback" not in done.stderr
