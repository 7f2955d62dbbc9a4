"""Another package's own tests, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

OWN = Path(__file__).parents[2]


def run_suite(
    folder: Path, files: list[str], report: Path, options: list[str], timeout: float = 500
) -> list[tuple[str, str]]:
    """The items of a suite by their functions' names, and "passed", "failure", "error" or "skipped" of each.

    Plugins are modules of this folder.
    """
    path = [folder, OWN, OWN / "kernels", OWN / "integrations", OWN / "tests" / "support"]
    plain = ["-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "-c", os.devnull, "--rootdir=.", "-q", "-W", "ignore"]
    subprocess.run(
        [sys.executable, "-m", "pytest", *plain, *options, f"--junitxml={report}", *files],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "OPENAI_API_KEY": "none"},
        stdout=subprocess.DEVNULL,
        timeout=timeout,
        check=False,
    )
    cases = ET.parse(report).iter("testcase")
    return [(str(case.get("name")).partition("[")[0], case[0].tag if len(case) else "passed") for case in cases]
