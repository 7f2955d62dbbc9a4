"""Marks from rendered calls: units, tags, and the syntax around one call and two."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_agent_llm.chat.derive.bodies import locate
from mlx_agent_llm.chat.derive.probes import LAST, RICH
from mlx_agent_llm.chat.derive.tags import find_tags
from mlx_agent_llm.chat.derive.units import common_beginning, common_end, units
from mlx_agent_llm.chat.reply.calls import JSONCall, NamedCall
from tests.support.search import examples

TEXTS = st.text(alphabet="<>/[]{}| \nabAB_", max_size=30)


@settings(max_examples=examples(200))
@given(text=TEXTS, other=TEXTS)
def test_units_are_the_whole_text_and_what_is_common_is_a_part_of_both(text: str, other: str) -> None:
    assert "".join(units(text)) == text
    assert text.startswith(common_beginning(text, other)) and other.startswith(common_beginning(text, other))
    assert text.endswith(common_end(text, other)) and other.endswith(common_end(text, other))
    assert common_beginning(text, text) == common_end(text, text) == text


def test_two_tags_that_begin_alike_have_nothing_in_common() -> None:
    assert common_beginning("</p>\n<parameter=a>", "</p>\n</function>") == "</p>\n"
    assert common_end("</call>\n<call>", "<result><call>") == "<call>"


WAYS = {
    "call({'a'": None,
    '{"name": "probe_two", "arguments": {"zeta": "other", "theta": "last"}}': JSONCall,
    'probe_two: {"zeta": "other", "theta": "last"}': NamedCall,
    "probe_two(zeta='other', theta='last')": NamedCall,
    "probe_two<k>zeta</k><v>other</v><k>theta</k><v>last</v>": NamedCall,
    "probe_two zeta other theta": None,
}


@pytest.mark.parametrize(("text", "kind"), WAYS.items(), ids=WAYS)
def test_a_call_is_located_in_every_way_of_writing_it(text: str, kind: type | None) -> None:
    found = locate(f"<<{text}>>", LAST)
    if kind is None:
        assert found is None
    else:
        assert found is not None and isinstance(found.body, kind)
        assert f"<<{text}>>"[found.begin : found.end] == text


def test_types_between_name_and_value_are_found_for_each_type() -> None:
    values = {"str": "sample", "int": "735", "bool": "true", "list": '["item"]', "dict": '{"inner": "deep"}'}
    text = "".join(
        f"<p={name} {kind}>{value}</p>" for (name, (kind, value)) in zip(RICH.first[1], values.items(), strict=True)
    )
    found = find_tags(text, RICH.first[1])
    assert found is not None and not found.has_constants and not found.has_structures
    assert found.tags.begin == "<p=" and found.tags.value_end == "</p>"
    assert dict(found.tags.kinds)["array"] == " list>" and found.tags.name_mark == " "


def test_compact_json_between_tags_is_told_from_the_usual_one() -> None:
    for written, separators in (('{"inner":"deep"}', (",", ":")), ('{"inner": "deep"}', (", ", ": "))):
        values = ["sample", "735", "true", '["item"]', written]
        text = "".join(f"<p={name}>{value}</p>" for name, value in zip(RICH.first[1], values, strict=True))
        found = find_tags(text, RICH.first[1])
        assert found is not None and found.separators == separators and not found.has_structures


def test_constants_and_structures_of_python_are_told_from_json() -> None:
    values = ["sample", "735", "True", '["item"]', "{'inner': 'deep'}"]
    for written, has_structures in ((values, False), ([*values[:3], "['item']", values[4]], True)):
        text = "".join(f"<p={name}>{value}</p>" for name, value in zip(RICH.first[1], written, strict=True))
        found = find_tags(text, RICH.first[1])
        assert found is not None and (found.has_constants, found.has_structures) == (True, has_structures)
