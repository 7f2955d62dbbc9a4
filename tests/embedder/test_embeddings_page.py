"""What docs/embeddings.md shows runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.embedders import demo_embedder_folder, write_tiny_cross_encoder

PAGE = Path(__file__).parents[2] / "docs" / "embeddings.md"


def test_the_page_s_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(demo_embedder_folder().parents[1])
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 4
    write_tiny_cross_encoder(tmp_path, "bert")
    blocks = [block.replace("cross-encoder/ms-marco-MiniLM-L6-v2", str(tmp_path)) for block in blocks]
    for block in blocks:
        exec(block, names)
    assert names["ledger"].total > 0
    assert names["vectors"].shape == (1, 384)
    assert names["scores"].shape == (1, 1)
    assert len(names["ranked"]) == 1
    assert names["compressor"].top_n == names["postprocessor"].top_n == 3
    assert len(names["embeddings"].embed_query("a")) == len(names["embed_model"].get_query_embedding("a")) == 384
    names["embeddings"].close()
    names["embed_model"].close()
