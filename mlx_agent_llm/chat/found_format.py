"""The tool format of a model, found by what its chat template renders, and what else the template can do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple
from weakref import WeakKeyDictionary

from mlx_agent_llm.chat.derive.bodies import locate
from mlx_agent_llm.chat.derive.gate import passes
from mlx_agent_llm.chat.derive.probes import PLAIN, RICH, Arguments, PlaceOfText, Probing
from mlx_agent_llm.chat.derive.reasoning import ShownReasoning, find_reasoning
from mlx_agent_llm.chat.derive.syntax import blanks_around, derive_syntax
from mlx_agent_llm.chat.derive.text_marks import derive_text_marks
from mlx_agent_llm.chat.families import MARKS_OF_REASONING, TOOL_FORMATS, find_by_signs
from mlx_agent_llm.chat.families.generic_json import GENERIC_JSON
from mlx_agent_llm.chat.reply.calls import JSONCall, NamedCall
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
    two_calls: whether a turn may hold two. beside: whether text is shown in the turn of a call, or in one before it;
    None where it is not. results: whether a result is shown at the end of a chat, after a call as data, or, where calls
    are None, after one as text. system: whether it takes a turn of
    the system; later_systems: and further ones after others. switch: the option that turns reasoning on and off.
    reasoning: the key of a turn that holds it. in_variables: whether it takes the tools as a text in a variable of its
    own. wants_list: whether a chat without tools needs an empty list of them. without_content: whether it shows calls
    where their turn's text is None alone.
    """

    tools: bool = False
    calls: Arguments | None = None
    two_calls: bool = False
    beside: PlaceOfText | None = None
    results: bool = False
    system: bool = False
    later_systems: bool = False
    switch: str | None = None
    reasoning: str | None = None
    in_variables: bool = False
    wants_list: bool = False
    without_content: bool = False


class FoundFormat(NamedTuple):
    """A format, where it comes from, what the template can do, and what is wrong with it, "" if nothing is."""

    tool_format: ToolFormat
    source: Source
    abilities: Abilities
    warning: str = ""


_NO_RESULTS = "the chat template shows calls but not their results: both are written as text"
_REFUSED = "no chat can be rendered, the model needs another chat template: "
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
    ways = _ways(tokenizer, by_signs)
    shown = find_reasoning(ways[0], MARKS_OF_REASONING)
    expected = replace(by_signs, reasoning=shown.marks or by_signs.reasoning)
    candidates = _candidates if name == "auto" else _as_given
    for way in ways:
        for source, tool_format in candidates(way, expected) if way.one else ():
            if passes(tool_format, way):
                return _found(tool_format, source, way, shown)
    abilities = _abilities(ways[0], shown)
    if any(way.one for way in ways):
        return _as_text(expected, name, abilities)
    return _without_calls(expected, name, ways[0], abilities)


def _ways(tokenizer: Tokenizer, expected: ToolFormat) -> list[Probing]:
    """The ways in which the template renders a chat, at least one."""
    kinds: tuple[Arguments, ...] = ("objects", "texts")
    numbered, in_system = expected.ids == "numbered", expected.tools_in_system
    ways = [
        Probing(tokenizer, probe, kind, shows_tools, in_system, in_variables, numbered, without_content)
        for in_variables in (False, True)
        for without_content in (False, True)
        for shows_tools in (True, False)
        for probe in (RICH, PLAIN)
        for kind in kinds
    ]
    rendering = [way for way in ways[: len(ways) // 2] if way.prompt_end]
    return rendering or [way for way in ways if way.prompt_end] or ways[:1]


def _candidates(way: Probing, expected: ToolFormat) -> Iterator[tuple[Source, ToolFormat]]:
    """The families whose marks the rendered call holds, the expected one first, and what is derived from the call."""
    others = (one for one in TOOL_FORMATS.values() if one.name not in (expected.name, GENERIC_JSON.name))
    for family in (expected, *others):
        words = [(one.section_begin + one.begin).split()[:1] for one in family.calls.spellings]
        if family.signs and any(all(word in way.one for word in first) for first in words):
            yield "family", _adapted(replace(family, reasoning=expected.reasoning), way)
    syntax = derive_syntax(way)
    if syntax is not None:
        yield "derived", _derived(expected, syntax, way)


def _as_given(way: Probing, given: ToolFormat) -> Iterator[tuple[Source, ToolFormat]]:
    yield "given", _adapted(given, way)


def _adapted(family: ToolFormat, way: Probing) -> ToolFormat:
    """A family with the blanks of calls and the marks of texts that the template writes, and as many calls."""
    located = locate(way.one, way.probe.first)
    calls = family.calls if located is None else _spaced(family.calls, located.body)
    leading, trailing = blanks_around(way.calls_alone(way.one))
    if any(leading and (one.section_begin + one.begin).startswith(leading) for one in calls.spellings):
        leading = ""  # it is a part of how calls begin
    most = family.calls.most if way.two or family.in_channels else 1  # there each call is a message of its own
    adapted = replace(family, calls=replace(calls, leading=leading, trailing=trailing, most=most))
    if not family.text_begin or family.in_channels:
        return adapted
    marks = derive_text_marks(way, family.reasoning)
    return replace(adapted, text_begin=marks.begin, text_end=marks.end) if marks.begin else adapted


def _spaced(syntax: CallSyntax, rendered: NamedCall | JSONCall) -> CallSyntax:
    """The syntax with the separators of JSON that the template writes."""
    others = tuple(replace(one, body=one.body.spaced_like(rendered)) for one in syntax.others)
    return replace(syntax, body=syntax.body.spaced_like(rendered), others=others)


def _derived(expected: ToolFormat, syntax: CallSyntax, way: Probing) -> ToolFormat:
    """The derived marks, with what a family says beside them."""
    name = "derived" if expected.name == GENERIC_JSON.name else expected.name
    derived = replace(expected, name=name, calls=syntax, calls_beside_json=None)
    if expected.text_begin:
        return derived
    begin, end = derive_text_marks(way, expected.reasoning)
    return replace(derived, text_begin=begin, text_end=end)


def _found(tool_format: ToolFormat, source: Source, way: Probing, shown: ShownReasoning) -> FoundFormat:
    ids = "short" if way.wants_short_ids else tool_format.ids
    abilities = _abilities(way, shown)
    warning = "" if abilities.results else _NO_RESULTS
    return FoundFormat(replace(tool_format, ids=ids), source, abilities, warning)


def _without_calls(expected: ToolFormat, name: str, way: Probing, abilities: Abilities) -> FoundFormat:
    """What the template's signs say, or its name: it renders no calls."""
    if way.refusal and not way.prompt_end:
        return FoundFormat(expected, "given" if name != "auto" else "generic", abilities, _REFUSED + way.refusal)
    if name != "auto":
        return FoundFormat(expected, "given", abilities)
    if expected.name == GENERIC_JSON.name:
        return FoundFormat(expected, "generic", abilities)
    return FoundFormat(expected, "signs", abilities._replace(results=way.has_result_of_text))


def _as_text(expected: ToolFormat, name: str, abilities: Abilities) -> FoundFormat:
    """Tools, calls and results as text: what the template renders is not what the format writes."""
    as_text = abilities._replace(tools=False, calls=None, two_calls=False, beside=None, results=False)
    if name != "auto":
        warning = (
            f"the chat template renders calls in another form than tool_format={name!r}: they are shown as text; "
            "tool_format='auto' looks for the template's own form"
        )
        return FoundFormat(expected, "given", as_text, warning)
    warning = "the chat template renders calls in a form that cannot be read back: they are written as generic_json"
    return FoundFormat(replace(GENERIC_JSON, reasoning=expected.reasoning), "generic", as_text, warning)


def _abilities(way: Probing, shown: ShownReasoning) -> Abilities:
    has_calls = bool(way.one)
    return Abilities(
        tools=way.has_tools,
        calls=way.arguments if has_calls else None,
        two_calls=has_calls and way.has_two_results,
        beside=way.place_of_text if has_calls else None,
        results=has_calls and way.has_result,
        system=way.has_system,
        later_systems=way.has_later_systems,
        switch=way.switch,
        reasoning=shown.key,
        in_variables=way.in_variables,
        wants_list=way.wants_list,
        without_content=way.without_content,
    )
