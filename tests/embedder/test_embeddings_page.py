"""What docs/embeddings.md shows runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.embedders import demo_embedder_folder

PAGE = Path(__file__).parents[2] / "docs" / "embeddings.md"


def test_the_page_s_code_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(demo_embedder_folder().parents[1])
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, names)
    assert names["vectors"].shape == (1, 384)
    assert names["scores"].shape == (1, 1)
    assert len(names["embeddings"].embed_query("a")) == len(names["embed_model"].get_query_embedding("a")) == 384
    names["embeddings"].close()
    names["embed_model"].close()
