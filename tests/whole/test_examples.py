"""Every file in examples/ runs in a process of its own, ends cleanly and prints what its docstring says."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.embedders import demo_embedder_folder, write_tiny_cross_encoder

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


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


def check_concurrent_agents(printed: str) -> None:
    at_once, in_turn = (float(seconds) for seconds in re.findall(r": (\d+\.\d) s", printed))
    assert at_once > 0 and in_turn > 0
    assert int(re.findall(r"largest batch: (\d+) rows", printed)[0]) == 12
    assert int(re.findall(r"prefix hit rate: (\d+)%", printed)[0]) > 80
    assert int(re.findall(r"blocks shared at the most: (\d+)", printed)[0]) > 30


def check_langgraph_supervisor(printed: str) -> None:
    answers = re.findall(r"^(How .+\?) (cook|gardener|sailor): '?\"?.+", printed, re.M)
    assert len(answers) == len({question for question, _ in answers}) == 3


def check_extract(printed: str) -> None:
    assert "0 documents were done before, 6 are left" in printed
    assert "skipped latin1.txt: 'utf-8' codec can't decode" in printed
    assert re.search(r"documents .* 100%", printed)


def check_llama_index_rag(printed: str) -> None:
    streamed = re.findall(r"^streamed: (.+)$", printed, re.M)[0]
    assert len(streamed.split("|")) > 5
    answers = re.findall(r"^(.+\?) '.+' \(from (\w+), (\w+)\)$", printed, re.M)
    assert len(answers) == 6
    for question, *pages in answers[:4]:
        assert any(page in question for page in pages), f"{question} was answered from {pages}"
    assert int(re.findall(r"largest batch: (\d+) rows", printed)[0]) > 1


def check_llama_workflow_agents(printed: str) -> None:
    form = r"^What is .+\? (multiply|handoff)\(\{.+\}\) -> .+; (desk|guide) says: .+$"
    assert len(re.findall(form, printed, re.M)) == 3
    assert re.search(r"multiply\(\{'a': -?\d+, 'b': -?\d+\}\) -> -?\d+; desk", printed)


def check_rag_langchain(printed: str) -> None:
    sources = dict(re.findall(r"^(.+\?) ['\"].+['\"] \(from (\w+), \w+\)$", printed, re.M))
    assert sorted(sources.values()) == ["ferry", "lighthouse", "school", "windmill"]


def check_rag_llama_index(printed: str) -> None:
    sources = dict(re.findall(r"^(.+\?) ['\"].+['\"] \(from \[1\] (\w+), \[2\] \w+\)$", printed, re.M))
    assert list(sources.values()) == ["lighthouse", "windmill", "school"]


def check_semantic_cache(printed: str) -> None:
    looked_up = ["When does the ferry leave?", "When does the library open?", "When does the library close?"]
    assert re.findall(r"^looked up: (.+)$", printed, re.M) == looked_up
    answers = dict(re.findall(r"^(?!looked)(.+\?) what was found for '(.+)'$", printed, re.M))
    assert len(answers) == 4
    for question, answered in answers.items():
        assert answered in looked_up and re.findall("ferry|library", answered) == re.findall("ferry|library", question)


CHECKS: dict[str, Callable[[str], None]] = {
    "01_generate": check_generate,
    "02_stream_batch": check_stream_batch,
    "03_shared_prefix": check_shared_prefix,
    "05_langchain_agent": check_langchain_agent,
    "06_llama_index_rag": check_llama_index_rag,
    "07_concurrent_agents": check_concurrent_agents,
    "08_langgraph_supervisor": check_langgraph_supervisor,
    "09_extract": check_extract,
    "10_llama_workflow_agents": check_llama_workflow_agents,
    "11_rag_langchain": check_rag_langchain,
    "12_rag_llama_index": check_rag_llama_index,
    "14_semantic_cache": check_semantic_cache,
}
# These need the demo embedder, too.
RAG = tuple(path for path in EXAMPLES if path.stem[:2] in ("11", "12"))
EMBEDDING_ALONE = tuple(path for path in EXAMPLES if path.stem[:2] == "14")
# These take a third of a minute and more each.
SLOW = tuple(path for path in EXAMPLES if path.stem[:2] in ("06", "07", "10"))


def test_every_example_is_checked() -> None:
    assert [path.stem for path in EXAMPLES] == sorted(CHECKS)


@pytest.mark.usefixtures("demo")
@pytest.mark.parametrize(
    "example",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.long] if path in SLOW else [])
        for path in EXAMPLES
        if path not in (*RAG, *EMBEDDING_ALONE)
    ],
)
def test_an_example_ends_cleanly_and_prints_what_it_says(example: Path, tmp_path: Path) -> None:
    CHECKS[example.stem](output_of(example, tmp_path))


@pytest.fixture
def embedder_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets processes that are started find the demo embedder."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(demo_embedder_folder().parents[1]), *filter(None, sys.path)]))


@pytest.mark.long
@pytest.mark.usefixtures("embedder_by_name")
@pytest.mark.parametrize("example", EMBEDDING_ALONE, ids=lambda path: path.stem)
def test_an_example_of_embeddings_ends_cleanly(example: Path, tmp_path: Path) -> None:
    CHECKS[example.stem](output_of(example, tmp_path))


@pytest.mark.long
@pytest.mark.usefixtures("demo", "embedder_by_name")
@pytest.mark.parametrize("example", RAG, ids=lambda path: path.stem)
def test_an_example_with_both_demo_models_ends_cleanly(example: Path, tmp_path: Path) -> None:
    CHECKS[example.stem](output_of(example, tmp_path))
    write_tiny_cross_encoder(tmp_path, "bert")
    reranked = output_of(example, tmp_path, str(tmp_path))  # by random weights, in any order
    assert len(re.findall(r"\(from .+, .+\)$", reranked, re.M)) == len(re.findall(r"^.+?\? ", reranked, re.M)) > 0


@pytest.mark.usefixtures("demo")
def test_an_extraction_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    documents, events = EXAMPLES[0].parent / "documents", tmp_path / "events.jsonl"
    done = [path.name for path in documents.glob("*.txt") if path.name not in ("chess.txt", "latin1.txt")]
    events.write_text("".join(json.dumps({"document": name}) + "\n" for name in done))
    printed = output_of(EXAMPLES[0].parent / "09_extract.py", tmp_path)
    assert "4 documents were done before, 2 are left" in printed and "skipped latin1.txt" in printed
    [event] = [json.loads(line) for line in events.read_text().splitlines()[len(done) :]]
    assert event["document"] == "chess.txt" and event["month"] in ("May", "June", "July", "August")
    assert 1 <= event["day"] <= 31 and 0 <= event["price"] <= 500 and len(event["title"]) <= 40


def output_of(example: Path, folder: Path, *arguments: str) -> str:
    command = [sys.executable, str(example), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_every_example_has_a_docstring_of_one_line_and_is_short() -> None:
    for example in EXAMPLES:
        lines = example.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith('"""') and lines[0].endswith('."""'), example
        assert len(lines) <= 45, f"{example} is too long to be an example"
