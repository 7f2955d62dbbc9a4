"""Grammars as a lexer reads JSON: texts cut into strings, brackets, separators and what lies between.

No string of JSON begins another one. So where every leaf that begins with a quote holds whole strings, only what begins
otherwise has to be compared, whatever may stand beside it: brackets, separators, numbers and words, which are few. That
takes no search for the leaves that may be open together, of which a grammar of thousands of rules has too many.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache

from mlx_agent_llm.constrain.backends.comparison import TooComplexError, compare, first_of
from mlx_agent_llm.constrain.backends.network import Network, State
from mlx_agent_llm.constrain.backends.quotes import BEYOND, ESCAPED, INSIDE, OTHER, reach_of
from mlx_agent_llm.languages.context_free import (
    ChoiceNode,
    ContextFreeGrammar,
    DistinctNode,
    Node,
    PatternNode,
    RepeatNode,
    SequenceNode,
    TextNode,
)
from mlx_agent_llm.languages.regular import (
    ANY_TEXT,
    NOTHING,
    Intersection,
    Language,
    Literal,
    Union,
    complement,
    concat,
    intersection,
    literal,
)
from mlx_agent_llm.languages.regular.char_set import ANY_CHARACTER, CharSet, coarsest_partition

MAX_STRING_STATES = 50_000
_LEXEME = re.compile(r'"(?:[^"\\]|\\.)*"|[][{}]|[\s,:]+|[^][{}\s,:"]+|"', re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_QUOTE, _BACKSLASH = CharSet.of('"'), CharSet.of("\\")
_UNQUOTED = complement(concat(literal('"'), ANY_TEXT))


def in_lexemes(grammar: ContextFreeGrammar) -> ContextFreeGrammar:
    """An equal grammar each of whose texts is one lexeme."""
    rules = {name: _cut(body) for name, body in grammar.rules.items()}
    return ContextFreeGrammar(_cut(grammar.root), rules, grammar.markers)


def has_clear_lexemes(grammar: ContextFreeGrammar) -> bool:
    """Whether the longest match is always the right one, wherever leaves stand; False says nothing."""
    network = Network(grammar)
    found: dict[Language, list[State]] = defaultdict(list)
    for state in network.leaves:
        assert state.leaf is not None, "it is a state at a leaf"
        found[state.leaf].append(state)
    ends = {leaf: reach_of(leaf)[0] for leaf in found}
    try:
        if not all(ends[leaf] & (INSIDE | ESCAPED | BEYOND) == 0 or _ends_at_its_quote(leaf) for leaf in found):
            return False
        return _are_told_apart(network, {leaf: states for leaf, states in found.items() if ends[leaf] & OTHER})
    except TooComplexError:
        return False


def _cut(node: Node) -> Node:
    match node:
        case TextNode(value):
            lexemes = _LEXEME.findall(value)
            return node if len(lexemes) < 2 else SequenceNode(tuple(map(TextNode, lexemes)))
        case DistinctNode(language, before):
            for char in before:
                language = language.derive(char)
            return SequenceNode((*map(TextNode, _LEXEME.findall(before)), PatternNode(language)))
        case SequenceNode(parts):
            return SequenceNode(tuple(_cut(part) for part in parts))
        case ChoiceNode(options):
            return ChoiceNode(tuple(_cut(option) for option in options))
        case RepeatNode(item, least, most):
            return RepeatNode(_cut(item), least, most)
    return node


def _ends_at_its_quote(leaf: Language) -> bool:
    """Whether a text of the leaf that begins with a quote is one string."""
    match leaf:
        case Literal(text=text):
            return not text.startswith('"') or _STRING.fullmatch(text) is not None
        case Union(children=options):
            return all(map(_ends_at_its_quote, options))
        case Intersection(children=parts):
            return any(map(_ends_at_its_quote, parts))
    return _are_rests_of_strings(leaf.derive('"'))


def _are_rests_of_strings(language: Language) -> bool:
    """Whether every text of a language goes on to the first quote without a backslash before it, and ends there."""
    seen = {(language, False)}
    for rest, is_escaped in (queue := [*seen]):
        if len(seen) > MAX_STRING_STATES:
            raise TooComplexError
        if rest.is_nullable:
            return False
        for char in coarsest_partition(frozenset([*rest.next_classes(), _QUOTE, _BACKSLASH])).examples:
            after = rest.derive(char)
            if after is NOTHING:
                continue
            if char == '"' and not is_escaped:
                if first_of(after):
                    return False
            elif (step := (after, char == "\\" and not is_escaped)) not in seen:
                seen.add(step)
                queue.append(step)
    return True


def _are_told_apart(network: Network, leaves: dict[Language, list[State]]) -> bool:
    """Whether none of the leaves, strings aside, goes on where another one may end."""
    found: dict[Language, list[State]] = defaultdict(list)
    for leaf, states in leaves.items():
        found[_unquoted(leaf)] += states
    return not any(
        compare(one, other, ANY_CHARACTER).goes_on
        and compare(one, other, _next_characters(network, found[one])).goes_on
        for one, other in _pairs(found)
    )


@lru_cache(maxsize=1024)
def _unquoted(leaf: Language) -> Language:
    """Its texts that do not begin with a quote."""
    return intersection(leaf, _UNQUOTED)


def _pairs(leaves: Collection[Language]) -> Iterator[tuple[Language, Language]]:
    """The pairs of which the first may begin the second; texts, of which there may be thousands, only where it does."""
    texts = {leaf.text: leaf for leaf in leaves if isinstance(leaf, Literal)}
    for text, leaf in texts.items():
        yield from ((texts[text[:end]], leaf) for end in range(1, len(text)) if text[:end] in texts)
    firsts = {leaf: first_of(leaf) for leaf in leaves}
    for one in (leaf for leaf in leaves if not isinstance(leaf, Literal)):
        for other in leaves:
            if not firsts[one].isdisjoint(firsts[other]):
                yield from {(one, other), (other, one)}


def _next_characters(network: Network, states: Iterable[State]) -> CharSet:
    """The characters that may follow the leaves of these states."""
    left: list[State | None] = [state.after for state in states]
    seen: set[State] = set()
    leaves: set[Language] = set()
    while left:
        state = left.pop()
        if state is None or state in seen:
            continue
        seen.add(state)
        if state.leaf is not None:
            leaves.add(state.leaf)
        elif state.call is not None:
            left.append(network.starts[state.call])
        else:
            left += network.callers(state.rule) if state.is_end else state.branches
    return CharSet(span for leaf in leaves for span in first_of(leaf).ranges)
