"""docs/guarantee.md says what the code does."""

from __future__ import annotations

from mlx_agent_llm.constrain.schema.read.keywords import FORMS
from tests.support.guarantee_tables import KEYWORDS, PAGE, updated


def test_the_tables_of_the_page_are_those_of_the_code() -> None:
    page = PAGE.read_text()
    assert updated(page) == page, "run: python tests/guarantee_tables.py"


def test_every_keyword_has_a_row() -> None:
    assert sorted(name for names, *_ in KEYWORDS for name in names.split()) == sorted(FORMS)
