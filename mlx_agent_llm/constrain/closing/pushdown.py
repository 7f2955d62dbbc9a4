"""Which texts a ContextFreeGrammar holds, character by character: a nondeterministic pushdown automaton.

A state is the set of stacks that the text so far leaves; stacks share their frames, and a state stays valid when it is
advanced. A grammar whose texts can be told apart as they are read, as JSON's can, has one to three stacks at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.languages.context_free import (
    ChoiceNode,
    ContextFreeGrammar,
    DistinctNode,
    Node,
    PatternNode,
    RepeatNode,
    RuleNode,
    SequenceNode,
    TextNode,
)
from mlx_agent_llm.languages.context_free.shortest import ShortestTexts
from mlx_agent_llm.languages.regular import Language, empty_text, least_number_of_texts, nothing, some_texts

MAX_STACKS = 10_000

_EMPTY, _NOTHING = empty_text(), nothing()


class Frame:
    """What is still to be matched: a sequence from part `index` on, or a repetition after `index` items; then `rest`.

    The outermost frame has no node: nothing is left there. Frames of one text with equal content are one object.
    """

    __slots__ = ("_children", "entry", "index", "node", "rest")

    def __init__(self, node: Node | None = None, index: int = 0, rest: Frame | None = None) -> None:
        self.node = node
        self.index = index
        self.rest = rest
        self.entry: Entry | None = None  # found when the frame is entered first
        self._children: dict[tuple[int, int], Frame] = {}

    def push(self, node: Node, index: int) -> Frame:
        """The frame of this node in front of this one."""
        key = id(node), index  # the grammar keeps its nodes
        if key not in self._children:
            self._children[key] = Frame(node, index, self)
        return self._children[key]


class Series(NamedTuple):
    """The texts of the DistinctNodes of one series so far, and what is read of the next one, with `before` in front.

    current: None between two texts.
    """

    taken: frozenset[str] = frozenset()
    current: str | None = None
    before: str = ""

    @property
    def has_begun(self) -> bool:
        """Whether there is a text, or the beginning of one."""
        return bool(self.taken) or self.current is not None

    @property
    def rests(self) -> list[str]:
        """What would complete the current text to one that is taken."""
        if self.current is None:
            return []
        texts = (self.before + text for text in self.taken)
        return [text[len(self.current) :] for text in texts if text.startswith(self.current)]

    def text_left(self, leaf: Language) -> str | None:
        """A short text of what is left of a leaf that is not taken; None where there is none."""
        rests = set(self.rests)
        texts = some_texts(leaf, 1 << len(rests).bit_length())  # more than are taken
        return next((text for text in texts if text not in rests), None)

    def leaves_some(self, leaf: Language) -> bool:
        """Whether a text of the leaf is not taken."""
        has_many = not self.taken or least_number_of_texts(leaf) > len(self.taken)
        return has_many or not self.rests or self.text_left(leaf) is not None

    def read(self, char: str) -> Series:
        """The series after one more character of the current text."""
        return self if self.current is None else self._replace(current=self.current + char)

    def finished(self) -> Series:
        """The series after the current text."""
        return self if self.current is None else Series(self.taken | {self.current[len(self.before) :]})


_NO_SERIES = Series()


class Stack(NamedTuple):
    """A leaf that is being matched, as a text from `offset` on or as the language of what is left, and the rest."""

    leaf: str | Language
    offset: int
    rest: Frame
    series: Series = _NO_SERIES


class Start(NamedTuple):
    """A leaf that may come next, and the rest."""

    node: TextNode | PatternNode
    rest: Frame

    def stack(self, series: Series) -> Stack | None:
        """The stack after what the series has so far; None where nothing is left of the leaf."""
        if isinstance(self.node, TextNode):
            return Stack(self.node.value, 0, self.rest, series)
        language = self.node.language
        if not isinstance(self.node, DistinctNode):
            return Stack(language, 0, self.rest, series)
        before = self.node.before
        series = Series(series.taken if before else frozenset(), "", before)
        return Stack(language, 0, self.rest, series) if series.leaves_some(language) else None


class Entry(NamedTuple):
    """Where the matching of something can begin, and whether it may be over without any character."""

    starts: tuple[Start, ...]
    is_complete: bool


class State(NamedTuple):
    """All that a text so far may be the beginning of; without stacks, and not complete, it is that of no text."""

    stacks: tuple[Stack, ...]
    is_complete: bool  # it belongs to the grammar
    partial: bytes = b""  # the beginning of a character after what the stacks have read


_DEAD = State((), is_complete=False)
_Configuration = tuple[Node | None, int, Frame | None]  # what is matched next, as the fields of a frame


class Pushdown:
    """Reads texts of one grammar; a left-recursive one, or one without any text, is a ConstraintError."""

    def __init__(self, grammar: ContextFreeGrammar, shortest: ShortestTexts | None = None) -> None:
        self._grammar = grammar
        self._shortest = shortest or ShortestTexts(grammar)
        if self._shortest.cost(grammar.root) == float("inf"):
            raise ConstraintError("nothing can satisfy the constraint: its grammar has no finite text")
        self._check_left_recursion()

    def start(self) -> State:
        """The state before the first character."""
        entry = self._enter(self._grammar.root, 0, Frame())
        stacks = (start.stack(_NO_SERIES) for start in entry.starts)
        return State(tuple(stack for stack in stacks if stack is not None), entry.is_complete)

    def accepts(self, text: str) -> bool:
        """Whether the whole text belongs to the grammar."""
        return self.advance(self.start(), text.encode(errors="surrogatepass")).is_complete

    def advance(self, state: State, data: bytes) -> State:
        """The state after the data, which may end within a character; ConstraintError for one of too many stacks."""
        data = state.partial + data
        try:
            text, partial = data.decode(), b""
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                return _DEAD
            text, partial = data[: error.start].decode(), data[error.start :]
        stacks, is_complete = state.stacks, state.is_complete
        for char in text:
            stacks, is_complete = self._step(stacks, char)
        return State(stacks, is_complete and not partial, partial)

    def _step(self, stacks: tuple[Stack, ...], char: str) -> tuple[tuple[Stack, ...], bool]:
        found: dict[Stack, None] = {}  # in order, each once
        is_complete = False
        for leaf, offset, rest, series in stacks:
            if isinstance(leaf, str):
                if leaf[offset] != char:
                    continue
                if offset + 1 < len(leaf):
                    found[Stack(leaf, offset + 1, rest, series)] = None
                    continue
            else:
                after = leaf.derive(char)
                series = series.read(char)
                if not series.leaves_some(after):
                    continue
                if not _is_over(after):
                    found[Stack(after, 0, rest, series)] = None
                if not after.is_nullable or "" in series.rests:
                    continue
                series = series.finished()
            entry = self._entry_of(rest)
            found.update((stack, None) for start in entry.starts if (stack := start.stack(series)) is not None)
            is_complete = is_complete or entry.is_complete
        if len(found) > MAX_STACKS:
            raise ConstraintError(f"the grammar is too ambiguous: a text can be read in more than {MAX_STACKS} ways")
        return tuple(found), is_complete

    def _entry_of(self, rest: Frame) -> Entry:
        if rest.entry is None:
            rest.entry = self._enter(rest.node, rest.index, rest.rest)
        return rest.entry

    def _enter(self, node: Node | None, index: int, rest: Frame | None) -> Entry:
        """The leaves that a node from `index` on, with this rest, can begin with."""
        starts: dict[tuple[int, Frame], Start] = {}
        seen = set()
        is_complete = False
        left: list[_Configuration] = [(node, index, rest)]
        while left:
            node, index, rest = left.pop()
            if (id(node), index, rest) in seen:
                continue
            seen.add((id(node), index, rest))
            if node is None or rest is None:
                is_complete = True
            elif isinstance(node, TextNode | PatternNode):
                leaf = node.value if isinstance(node, TextNode) else node.language
                if not _is_over(leaf):
                    starts.setdefault((id(node), rest), Start(node, rest))
                if _may_be_empty(leaf):
                    left.append((rest.node, rest.index, rest.rest))
            else:
                left += self._unfold(node, index, rest)
        return Entry(tuple(starts.values()), is_complete)

    def _unfold(
        self, node: SequenceNode | ChoiceNode | RepeatNode | RuleNode, index: int, rest: Frame
    ) -> list[_Configuration]:
        """The configurations that this one stands for. The last part of a sequence leaves nothing of it after."""
        end: _Configuration = (rest.node, rest.index, rest.rest)
        match node:
            case ChoiceNode(options):
                return [(option, 0, rest) for option in options]
            case RuleNode(name):
                return [(self._grammar.rules[name], 0, rest)]
            case SequenceNode(parts):
                if index == len(parts):
                    return [end]
                return [(parts[index], 0, rest.push(node, index + 1) if index + 1 < len(parts) else rest)]
            case RepeatNode(item, least, most):
                found = [end] if index >= least else []
                if most is None or index < most:
                    count = min(index + 1, least) if most is None else index + 1  # beyond `least` all counts are alike
                    found.append((item, 0, rest.push(node, count) if count != most else rest))
                return found

    def _check_left_recursion(self) -> None:
        """A rule that begins with itself would be entered without end."""
        begun = {name: set(self._left_rules(body)) for name, body in self._grammar.rules.items()}
        settled: set[str] = set()
        for start in begun:
            path, left = [start], [iter(begun[start])]  # depth first, without recursion
            while path:
                name = next(left[-1], None)
                if name is None:
                    settled.add(path.pop())
                    left.pop()
                elif name in path:
                    raise ConstraintError(f"rule {name!r} is left-recursive: it begins with itself")
                elif name not in settled:
                    path.append(name)
                    left.append(iter(begun[name]))

    def _left_rules(self, node: Node) -> Iterator[str]:
        """The rules that a text of the node may begin with a text of."""
        match node:
            case RuleNode(name):
                yield name
            case ChoiceNode(options):
                for option in options:
                    yield from self._left_rules(option)
            case RepeatNode(item):
                yield from self._left_rules(item)
            case SequenceNode(parts):
                for part in parts:
                    yield from self._left_rules(part)
                    if self._shortest.cost(part) > 0:
                        break


def _is_over(leaf: str | Language) -> bool:
    """Whether nothing, or nothing but the empty text, is left of a leaf."""
    return not leaf if isinstance(leaf, str) else leaf is _EMPTY or leaf is _NOTHING


def _may_be_empty(leaf: str | Language) -> bool:
    return not leaf if isinstance(leaf, str) else leaf.is_nullable
