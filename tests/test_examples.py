"""Every file in examples/ runs in a process of its own, ends cleanly and prints what its docstring says."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


def check_generate(printed: str) -> None:
    assert re.search(r"^generate: '.+', length after 16 tokens$", printed, re.M)
    assert re.search(r"^chat: '.*Paris.*', stop after \d+ tokens$", printed, re.M)
    assert re.search(r"^parsed: City\(name='.+', country='.+'\)$", printed, re.M)


def check_stream_batch(printed: str) -> None:
    assert len(re.findall(r"^  .+ after \d+\.\d s$", printed, re.M)) == 4
    assert printed.index("The sea is") < printed.index("meanwhile: '")
    streams = re.findall(r"^  'The (sun|moon) is' goes on", printed, re.M)
    last_start = max(streams.index("sun"), streams.index("moon"))
    first_end = min(len(streams) - streams[::-1].index(name) for name in ("sun", "moon"))
    assert last_start < first_end, "the two streams ran one after the other"
    assert "largest batch: 4 rows" in printed


def check_shared_prefix(printed: str) -> None:
    usages = re.findall(r"(\d+) of (\d+) prompt tokens cached$", printed, re.M)
    cached, prompts = [int(one) for one, _ in usages], [int(one) for _, one in usages]
    assert len(usages) == 8
    assert cached.count(0) == 1, "one request computes the prefix"
    assert sorted(cached)[1] == max(cached) > 100, "all others find the whole of it"
    [asked, computed] = map(int, re.findall(r"prompt tokens: (\d+) asked for, (\d+) computed", printed)[0])
    assert asked == sum(prompts)
    assert computed == asked - sum(cached)


def check_langchain_agent(printed: str) -> None:
    assert re.search(r"^call:   multiply\(\{'a': -?\d+, 'b': -?\d+\}\)$", printed, re.M)
    assert re.search(r"^result: -?\d+$", printed, re.M)
    assert re.search(r"^answer: .+$", printed, re.M)


CHECKS: dict[str, Callable[[str], None]] = {
    "01_generate": check_generate,
    "02_stream_batch": check_stream_batch,
    "03_shared_prefix": check_shared_prefix,
    "05_langchain_agent": check_langchain_agent,
}


def test_every_example_is_checked() -> None:
    assert [path.stem for path in EXAMPLES] == sorted(CHECKS)


@pytest.mark.usefixtures("demo")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_ends_cleanly_and_prints_what_it_says(example: Path) -> None:
    done = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (0, "")
    CHECKS[example.stem](done.stdout)


def test_every_example_has_a_docstring_of_one_line_and_is_short() -> None:
    for example in EXAMPLES:
        lines = example.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith('"""') and lines[0].endswith('."""'), example
        assert len(lines) <= 45, f"{example} is too long to be an example"
