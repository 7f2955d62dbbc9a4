"""docs/guarantee.md says what the code does."""

from __future__ import annotations

import pytest

from mlx_agent_llm.request.schema_dialect import DIALECTS, SILENT
from tests.support.guarantee_tables import KEYWORDS, PAGE, corpora_table, replace_section, updated


def test_the_tables_of_the_page_are_those_of_the_code() -> None:
    page = PAGE.read_text()
    assert updated(page) == page, "run: python -m tests.support.guarantee_tables"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_table_of_real_schemas_is_that_of_the_code() -> None:
    page = PAGE.read_text()
    assert replace_section(page, "corpora", corpora_table()) == page, "run: python -m tests.support.guarantee_tables"


def test_every_keyword_has_a_row() -> None:
    read = SILENT.keywords.union(*(dialect.keywords for dialect in DIALECTS.values()))
    refused = {"divisibleBy", "extends", "disallow"}  # draft 3's own
    assert sorted(name for names, *_ in KEYWORDS for name in names.split()) == sorted(read - refused)
