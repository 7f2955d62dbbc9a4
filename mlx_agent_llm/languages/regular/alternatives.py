"""Unions in a normal form that keeps derivatives small.

Counted repeats of one item are merged where their counts meet. Common beginnings are factored out, so that literals
become a trie, but what stands after them only when a derivative gets there: to go on at once can take for ever.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from mlx_agent_llm.languages.regular.char_set import CharSet
from mlx_agent_llm.languages.regular.concatenation import (
    ANY_CHAR,
    ANY_TEXT,
    characters,
    concat,
    literal,
    members,
    repeat,
)
from mlx_agent_llm.languages.regular.language import (
    EMPTY_TEXT,
    NOTHING,
    Characters,
    Concat,
    Language,
    Literal,
    Repeat,
    Union,
    intern_set,
)
from mlx_agent_llm.languages.regular.lengths import longest_of

Counts = tuple[int, int | None]  # least and most, None without end


def alternatives(languages: Iterable[Language]) -> Language:
    """The texts of any of the languages."""
    return _union_of(_settled(_options(languages), _factor_and_merge))


def _flat_union(languages: Iterable[Language]) -> Language:
    """The union without its common beginnings factored out."""
    return _union_of(_settled(_options(languages), _merge))


def _options(languages: Iterable[Language]) -> dict[Language, None]:
    options = distinct(Union, languages)
    options.pop(NOTHING, None)
    return options


def _settled(
    options: dict[Language, None], step: Callable[[dict[Language, None]], dict[Language, None]]
) -> dict[Language, None]:
    """The options after as many steps as change them: what one has merged may merge with more in the next."""
    while len(options) > 1 and (after := step(options)).keys() != options.keys():
        options = after
    return options


def _factor_and_merge(options: dict[Language, None]) -> dict[Language, None]:
    return _merge(_factor_heads(_factor_literals(options)))


def _merge(options: dict[Language, None]) -> dict[Language, None]:
    return _merge_characters(_merge_repeats(options))


def _union_of(options: dict[Language, None]) -> Language:
    """The union of options that nothing merges any more."""
    if ANY_TEXT in options:
        return ANY_TEXT
    if EMPTY_TEXT in options and sum(option.is_nullable for option in options) > 1:
        del options[EMPTY_TEXT]
    if len(options) < 2:
        return next(iter(options), NOTHING)
    return intern_set(Union, options)


def _head_and_tail(language: Language) -> tuple[Language, Language]:
    return (language.children[0], language.tail) if isinstance(language, Concat) else (language, EMPTY_TEXT)


def _merge_repeats(options: dict[Language, None]) -> dict[Language, None]:
    """Merge options that are counts of one item before one tail, where the counts meet."""
    if EMPTY_TEXT in options and ANY_CHAR in options:  # of other items, which one takes the empty text is not told
        options = {option: None for option in options if option is not ANY_CHAR}
        options[repeat(ANY_CHAR, 0, 1)] = None
    merged = dict(options)
    for (item, tail), counts in _counts_by_item(options).items():
        left = {option: count for option, count in counts.items() if option in merged}
        joined = join_intervals(left.values())
        if len(joined) < len(left):
            merged = {option: None for option in merged if option not in left}
            merged |= dict.fromkeys(concat(repeat(item, least, most), tail) for least, most in joined)
    return merged


def _counts_by_item(options: dict[Language, None]) -> dict[tuple[Language, Language], dict[Language, Counts]]:
    """For each repeated item and what follows it: the options that are counts of the item there, and the counts."""
    splits = {_head_and_tail(option): option for option in options}
    groups: defaultdict[tuple[Language, Language], dict[Language, Counts]] = defaultdict(dict)
    for (head, tail), option in splits.items():
        if isinstance(head, Repeat):
            groups[head.item, tail][option] = head.least_count, head.most_count
    for (item, tail), counts in groups.items():
        if (item, tail) in splits:
            counts[splits[item, tail]] = 1, 1  # also where the item is itself a repeat
        if tail in options:
            counts[tail] = 0, 0
    return groups


def join_intervals(intervals: Iterable[Counts]) -> list[Counts]:
    """The fewest intervals of counts that cover the same, in order; an end of None is none."""
    joined: list[Counts] = []
    for least, most in sorted(intervals, key=lambda interval: interval[0]):
        end = joined[-1][1] if joined else -2
        if end is None:
            break
        if least > end + 1:
            joined.append((least, most))
        else:
            joined[-1] = joined[-1][0], longest_of([end, most])
    return joined


def _factor_literals(options: dict[Language, None]) -> dict[Language, None]:
    """Merge options that begin with the same character of a literal into a trie."""
    groups: defaultdict[str, list[tuple[str, Language]]] = defaultdict(list)
    for option in options:
        head, tail = _head_and_tail(option)
        if isinstance(head, Literal) and head.text:
            groups[head.text[0]].append((head.text, tail))
    shared = {first: group for first, group in groups.items() if len(group) > 1}
    if not shared:
        return options
    others = [option for option in options if _first_character(option) not in shared]
    return dict.fromkeys([*others, *map(_trie, shared.values())])


def _first_character(language: Language) -> str | None:
    head = _head_and_tail(language)[0]
    return head.text[0] if isinstance(head, Literal) and head.text else None


def _trie(items: list[tuple[str, Language]]) -> Language:
    """The union of texts, each with its tail, branching where they differ; not recursive, for deep ones."""
    branches: list[tuple[int, list[Language]]] = [(0, [])]  # on the way to the last text: depth, and what follows there
    last = ""
    for text, tail in sorted(items, key=lambda item: item[0]):
        _close_branches(branches, _shared_length(last, text), last)
        if branches[-1][0] < len(text):
            branches.append((len(text), []))
        branches[-1][1].append(tail)
        last = text
    _close_branches(branches, 0, last)
    (tree,) = branches[0][1]  # all begin with the same character
    return tree


def _shared_length(one: str, other: str) -> int:
    """The length of the common beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (left, right) in pairs if left != right), min(len(one), len(other)))


def _close_branches(branches: list[tuple[int, list[Language]]], depth: int, text: str) -> None:
    """Fold every branch that is deeper than that into the one above."""
    while branches[-1][0] > depth:
        end, options = branches.pop()
        begin = max(depth, branches[-1][0])
        if branches[-1][0] < begin:
            branches.append((begin, []))
        head, rest = literal(text[begin:end]), options[0] if len(options) == 1 else _flat_union(options)
        branches[-1][1].append(head if rest is EMPTY_TEXT else concat(head, rest))


def _factor_heads(options: dict[Language, None]) -> dict[Language, None]:
    """Merge options with one first part."""
    groups: defaultdict[Language, list[Language]] = defaultdict(list)
    for option in options:
        head, tail = _head_and_tail(option)
        groups[head].append(tail)
    if len(groups) == len(options):
        return options
    return dict.fromkeys(concat(head, _flat_union(tails)) for head, tails in groups.items())


def _merge_characters(options: dict[Language, None]) -> dict[Language, None]:
    """Merge options of one character before one tail."""
    groups: defaultdict[Language, list[Language]] = defaultdict(list)
    for option in options:
        head, tail = _head_and_tail(option)
        if is_one_character(head):
            groups[tail].append(option)
    for tail, group in groups.items():
        if len(group) > 1:
            char_set = union_of_sets(character_set(_head_and_tail(option)[0]) for option in group)
            others = dict.fromkeys(option for option in options if option not in group)
            options = others | {concat(characters(char_set), tail): None}
    return options


def is_one_character(language: Language) -> bool:
    """Whether a language is a set of single characters."""
    return isinstance(language, Characters) or (isinstance(language, Literal) and len(language.text) == 1)


def character_set(language: Language) -> CharSet:
    """The characters of such a language."""
    if isinstance(language, Characters):
        return language.char_set
    assert isinstance(language, Literal)
    return CharSet.of(language.text)


def union_of_sets(char_sets: Iterable[CharSet]) -> CharSet:
    """The characters of any of the sets."""
    return CharSet(span for char_set in char_sets for span in char_set.ranges)


def distinct(kind: type[Language], languages: Iterable[Language]) -> dict[Language, None]:
    """The languages in order, each once, those of this kind replaced by their members."""
    return dict.fromkeys(member for language in languages for member in members(kind, language))
