"""The marks around calls, from one call and two calls as a template renders them."""

from __future__ import annotations

from dataclasses import replace

from mlx_agent_llm.chat.derive.bodies import Located, locate, with_id_places
from mlx_agent_llm.chat.derive.probes import LAST, Probing
from mlx_agent_llm.chat.derive.units import common_beginning, common_end, is_mark, units
from mlx_agent_llm.chat.reply.syntax import CallSyntax


def derive_syntax(probing: Probing) -> CallSyntax | None:
    """How the template writes calls; None where it writes none, or in a way that is not known."""
    first = locate(probing.one, probing.probe.first)
    if first is None:
        return None
    before, after = with_id_places(probing.one[: first.begin]), with_id_places(probing.one[first.end :])
    before = probing.calls_alone(before)
    syntax = _of_two(probing, first, before, after) if probing.two else _of_one(first, before, after)
    return None if syntax is None else _with_marker(syntax, probing.text_tail)


def _of_one(first: Located, before: str, after: str) -> CallSyntax:
    leading, trailing = blanks_around(before + after)
    return CallSyntax(first.body, begin=before.lstrip(), end=after.rstrip(), most=1, leading=leading, trailing=trailing)


def _of_two(probing: Probing, first: Located, before: str, after: str) -> CallSyntax | None:
    one = locate(probing.two, probing.probe.first)
    two = None if one is None else locate(probing.two, LAST, one.end)
    if one is None or two is None:
        return None
    between = with_id_places(probing.two[one.end : two.begin])
    end = common_beginning(between, after).rstrip()
    begin = common_end(between[len(end) :], before).lstrip()
    separator = between[len(end) : len(between) - len(begin)]
    leading, trailing = blanks_around(before + after)
    return CallSyntax(
        first.body,
        begin=begin,
        end=end,
        section_begin=before[: len(before) - len(begin)].lstrip(),
        separator=separator,
        section_end=after[len(end) :].rstrip(),
        leading=leading,
        trailing=trailing,
    )


def blanks_around(text: str) -> tuple[str, str]:
    """The blanks before a text and after it."""
    return text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]


def _with_marker(syntax: CallSyntax, text_tail: str) -> CallSyntax | None:
    """The syntax with the mark that calls begin with; None where they begin with none that a text would not hold.

    What follows texts may begin alike: then the mark ends where they differ.
    """
    beginning = syntax.section_begin + syntax.begin
    alike = common_beginning(beginning, text_tail)
    parts = units(beginning)
    first = next((part for part in parts[len(units(alike)) :] if part.strip()), "")
    if not first:
        return None
    marker = beginning[: beginning.index(first, len(alike)) + len(first)]
    marker = marker if is_mark(first) or alike else beginning.strip()
    if len(marker) < 3:
        return None
    closing = syntax.end.strip() or syntax.section_end.strip()
    return replace(syntax, marker=marker, closing=closing)
