"""The tool format of a model, found by what its chat template renders, and what else the template can do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple
from weakref import WeakKeyDictionary

from mlx_agent_llm.chat.derive.gate import passes, passes_beside
from mlx_agent_llm.chat.derive.probes import PLAIN, RICH, Arguments, Probing
from mlx_agent_llm.chat.derive.reasoning import ShownReasoning, find_reasoning
from mlx_agent_llm.chat.derive.syntax import blanks_around, derive_syntax
from mlx_agent_llm.chat.derive.text_marks import derive_text_marks
from mlx_agent_llm.chat.families import MARKS_OF_REASONING, TOOL_FORMATS, find_by_signs
from mlx_agent_llm.chat.families.generic_json import GENERIC_JSON
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import CallSyntax

if TYPE_CHECKING:
    from mlx_agent_llm.models.tokenizer import Tokenizer

Source = Literal["derived", "family", "signs", "given", "generic"]
"""Where a format comes from: the template alone; a family whose calls the template renders; a family whose signs the
template holds, as it renders no calls; the engine's config; nowhere."""


class Abilities(NamedTuple):
    """What a template does with a chat.

    tools: whether it shows tools. calls: as what it takes the arguments of calls; None where it shows no calls.
    two_calls: whether a turn may hold two. beside: whether text before a call is shown. results: whether a result is
    shown at the end of a chat. system: whether it takes a turn of the system. switch: the option that turns reasoning
    on and off. reasoning: the key of a turn that holds it. short_ids: whether ids must have nine characters.
    in_variables: whether it takes the tools as a text in a variable of its own.
    """

    tools: bool = False
    calls: Arguments | None = None
    two_calls: bool = False
    beside: bool = False
    results: bool = False
    system: bool = False
    switch: str | None = None
    reasoning: str | None = None
    short_ids: bool = False
    in_variables: bool = False


class FoundFormat(NamedTuple):
    """A format, where it comes from, what the template can do, and what is wrong with it, "" if nothing is."""

    tool_format: ToolFormat
    source: Source
    abilities: Abilities
    warning: str = ""


_known: WeakKeyDictionary[Tokenizer, dict[str, FoundFormat]] = WeakKeyDictionary()


def find_tool_format(source: Tokenizer | str, name: str = "auto") -> ToolFormat:
    """The format of a tokenizer's chat template, or of the source of one, or the one of that name.

    A tokenizer's template is rendered; of a source alone only the signs of families are known. A template that shows
    no calls and no family's signs has "generic_json". Whether models think is read from the template.
    """
    return find_by_signs(source, name) if isinstance(source, str) else found_format(source, name).tool_format


def found_format(tokenizer: Tokenizer, name: str = "auto") -> FoundFormat:
    """What was found for a tokenizer; remembered as long as it lives. RequestError for a name that is none."""
    known = _known.setdefault(tokenizer, {})
    if name not in known:
        known[name] = _find(tokenizer, name)
    return known[name]


def _find(tokenizer: Tokenizer, name: str) -> FoundFormat:
    by_signs = find_by_signs(tokenizer.chat_template or "", name)
    if tokenizer.chat_template is None:
        return FoundFormat(by_signs, "generic" if name == "auto" else "given", Abilities())
    probing = _find_probing(tokenizer, by_signs)
    shown = find_reasoning(probing, MARKS_OF_REASONING)
    expected = replace(by_signs, reasoning=shown.marks or by_signs.reasoning)
    abilities = _abilities(probing, expected, shown)
    if name != "auto":
        return _given(probing, expected, abilities)
    if not probing.one:
        return _without_calls(expected, abilities, probing)
    return _with_calls(probing, expected, abilities)


def _with_calls(probing: Probing, expected: ToolFormat, abilities: Abilities) -> FoundFormat:
    for candidate in _families(probing, expected):
        if passes(candidate, probing):
            return _found(candidate, "family", abilities, probing)
    syntax = derive_syntax(probing)
    if syntax is not None:
        derived = replace(expected, calls=syntax, calls_beside_json=None)
        if expected.name == GENERIC_JSON.name:
            derived = replace(derived, name="derived")
        if not expected.text_begin:
            begin, end = derive_text_marks(probing, expected.reasoning)
            derived = replace(derived, text_begin=begin, text_end=end)
        if passes(derived, probing):
            return _found(derived, "derived", abilities, probing)
    warning = "the chat template renders calls in a form that cannot be read back: calls are written as generic_json"
    fallback = replace(GENERIC_JSON, reasoning=expected.reasoning)
    return FoundFormat(fallback, "generic", _as_text(abilities), warning)


def _families(probing: Probing, expected: ToolFormat) -> Iterator[ToolFormat]:
    """The families whose marks stand in the rendered call, the one whose signs the template holds first."""
    others = (one for one in TOOL_FORMATS.values() if one.name not in (expected.name, GENERIC_JSON.name))
    for family in (expected, *others):
        first_word = (family.calls.section_begin + family.calls.begin).split()[:1]
        if family.signs and all(word in probing.one for word in first_word):
            adapted = replace(family, reasoning=expected.reasoning)
            yield replace(adapted, calls=_adapt(adapted, probing))


def _adapt(family: ToolFormat, probing: Probing) -> CallSyntax:
    calls = family.calls
    leading, trailing = blanks_around(probing.calls_alone(probing.one))
    return replace(calls, leading=leading, trailing=trailing, most=calls.most if probing.two else 1)


def _found(tool_format: ToolFormat, source: Source, abilities: Abilities, probing: Probing) -> FoundFormat:
    shown = abilities._replace(beside=passes_beside(tool_format, probing))
    ids = "short" if abilities.short_ids else tool_format.ids
    return FoundFormat(replace(tool_format, ids=ids), source, shown)


def _without_calls(expected: ToolFormat, abilities: Abilities, probing: Probing) -> FoundFormat:
    if expected.name == GENERIC_JSON.name:
        return FoundFormat(expected, "generic", abilities)
    return FoundFormat(expected, "signs", abilities)


def _given(probing: Probing, given: ToolFormat, abilities: Abilities) -> FoundFormat:
    """A format that the config names: where the template renders calls in another one, they are written as text."""
    if probing.one and passes(given, probing):
        return _found(given, "given", abilities, probing)
    warning = ""
    if probing.one:
        warning = f"the chat template renders calls in another form than {given.name!r}: they are written as text"
    return FoundFormat(given, "given", _as_text(abilities), warning)


def _as_text(abilities: Abilities) -> Abilities:
    """Without what would show tools and calls in a form that is not the one of replies."""
    return abilities._replace(tools=False, calls=None, two_calls=False, beside=False)


def _find_probing(tokenizer: Tokenizer, expected: ToolFormat) -> Probing:
    """The first way in which the template renders a call; else the first that renders any chat."""
    kinds: tuple[Arguments, ...] = ("objects", "texts")
    ways = [
        Probing(tokenizer, probe, kind, shows_tools=shows_tools, in_system=expected.tools_in_system)
        for shows_tools in (True, False)
        for probe in (RICH, PLAIN)
        for kind in kinds
    ]
    ways += [replace(way, in_variables=True) for way in ways]
    rendering = [way for way in ways if way.prompt_end] or ways[:1]
    return next((way for way in rendering if way.one), rendering[0])


def _abilities(probing: Probing, tool_format: ToolFormat, shown: ShownReasoning) -> Abilities:
    has_calls = bool(probing.one)
    return Abilities(
        tools=probing.has_tools,
        calls=probing.arguments if has_calls else None,
        two_calls=probing.has_two_results if has_calls else False,
        results=probing.has_result,
        system=probing.has_system,
        switch=probing.switch,
        reasoning=shown.key,
        short_ids=has_calls and probing.wants_short_ids,
        in_variables=probing.in_variables,
    )
