"""How to complete a text of a grammar within a budget of tokens, from wherever it stands.

The cost of a state is a sum over what is still to be matched, each part spelled for itself. It is never too low: tokens
that reach over the borders of parts could only make it less. Where texts of a series must differ it may be too low, and
the tokens themselves are counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from weakref import WeakKeyDictionary

from mlx_agent_llm.constrain.closing.pushdown import Pushdown, Series, Stack, State
from mlx_agent_llm.constrain.closing.reserve import most_tokens_to_close
from mlx_agent_llm.constrain.closing.spelling import Spelling
from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.languages.context_free import ContextFreeGrammar, has_distinct
from mlx_agent_llm.languages.context_free.shortest import ShortestTexts
from mlx_agent_llm.languages.regular import Language
from mlx_agent_llm.languages.regular.char_set import CharSet


class Closing:
    """Completes texts of one grammar with the tokens of one vocabulary; all requests that ask for it share this.

    Raises ConstraintError for a grammar without any finite text, for a left-recursive one, and where the vocabulary
    cannot spell what the grammar needs.
    """

    def __init__(self, grammar: ContextFreeGrammar, spelling: Spelling) -> None:
        self._grammar = grammar
        self._spelling = spelling
        self._bytes = ShortestTexts(grammar)
        self._pushdown = Pushdown(grammar, self._bytes)
        self._text_counts: dict[str, list[float]] = {}
        self._is_distinct = has_distinct(grammar)  # then a cost is a lower bound: it counts equal texts of a series
        self._languages: WeakKeyDictionary[Language, tuple[float, str]] = WeakKeyDictionary()
        if not spelling.has_every_byte and math.isinf(self.cost(self.start())):
            raise ConstraintError("the vocabulary has no tokens for the shortest text of the constraint")

    @cached_property
    def _shortest(self) -> ShortestTexts:
        return ShortestTexts(self._grammar, measure=lambda text: self._counts(text)[0])

    @cached_property
    def minimum(self) -> int:
        """Tokens that a whole text needs."""
        return len(self.closing_tokens(self.start()))

    @cached_property
    def reserve(self) -> float:
        """As long as so many tokens are left, every text can be completed; infinite where there is no such number."""
        return math.inf if self._is_distinct else most_tokens_to_close(self._grammar, self._shortest, self._counts)

    def find_reserve(self) -> None:
        """Find the reserve, which may take a while, before it is asked for."""
        _ = self.reserve

    def fits_into(self, num_tokens: int) -> bool:
        """Whether some whole text has at most so many tokens; quick where it has no more bytes either."""
        has_few_bytes = (
            self._spelling.has_every_byte
            and not self._is_distinct
            and self._bytes.cost(self._grammar.root) <= num_tokens
        )
        return has_few_bytes or self.minimum <= num_tokens

    def start(self) -> State:
        """The state of the empty text."""
        return self._pushdown.start()

    def text_of(self, token_id: int) -> bytes:
        """What a token writes."""
        return self._spelling.text_of(token_id)

    def advance(self, state: State, data: bytes) -> State:
        """The state after the data, which may end within a character."""
        return self._pushdown.advance(state, data)

    def is_alive(self, state: State) -> bool:
        """Whether the text so far is the beginning of a text of the grammar."""
        if state.partial:
            return any(self.is_alive(after) for _, after in self._ways_to_finish_a_character(state))
        return state.is_complete or bool(state.stacks)

    def cost(self, state: State) -> float:
        """How many tokens complete the text, as an upper bound; infinite where nothing does."""
        if state.partial:
            ways = self._ways_to_finish_a_character(state)
            return min((self._spell(data)[0] + self.cost(after) for data, after in ways), default=math.inf)
        return 0 if state.is_complete else min(map(self._stack_cost, state.stacks), default=math.inf)

    def fits(self, state: State, num_tokens: int) -> bool:
        """Whether at most so many tokens complete the text."""
        cost = self.cost(state)
        return (cost <= num_tokens and not self._is_distinct) or (
            math.isfinite(cost) and len(self.closing_tokens(state)) <= num_tokens
        )

    def closing_tokens(self, state: State) -> list[int]:
        """The tokens that complete the text; none where it is complete."""
        return self._spelling.fewest_tokens(self._closing_data(state), self._grammar.markers)

    def _closing_data(self, state: State) -> bytes:
        if state.partial:
            ways = self._ways_to_finish_a_character(state)
            data, after = min(ways, key=lambda way: self._spell(way[0])[0] + self.cost(way[1]))
            return data + self._closing_data(after)
        if self._is_distinct:
            return self._leaf_by_leaf(state)
        return b"" if state.is_complete else self._write(min(state.stacks, key=self._stack_cost)).encode()

    def _leaf_by_leaf(self, state: State) -> bytes:
        """The rest of a text in which later leaves depend on earlier ones."""
        data = b""
        while not state.is_complete:
            rests = {stack: rest for stack in state.stacks if (rest := self._rest_of_leaf(stack))}
            written = rests[min(rests, key=self._stack_cost)].encode()
            data, state = data + written, self._pushdown.advance(state, written)
        return data

    def _ways_to_finish_a_character(self, state: State) -> Iterator[tuple[bytes, State]]:
        """The missing bytes and the state after them, for one character of each kind that may stand there."""
        chars = characters_beginning_with(state.partial)
        for char in dict.fromkeys(char for stack in state.stacks for char in _next_characters(stack, chars)):
            missing = char.encode()[len(state.partial) :]
            yield missing, self._pushdown.advance(state, missing)

    def _stack_cost(self, stack: Stack) -> float:
        leaf, offset, frame, series = stack
        if isinstance(leaf, str):
            cost = self._counts(leaf)[len(leaf[:offset].encode())]
        else:
            cost = self._shortest_left(leaf, series)[0]
        while frame.node is not None and frame.rest is not None:
            cost += self._shortest.cost(frame.node, frame.index)
            frame = frame.rest
        return cost

    def _rest_of_leaf(self, stack: Stack) -> str:
        leaf, series = stack.leaf, stack.series
        return leaf[stack.offset :] if isinstance(leaf, str) else self._shortest_left(leaf, series)[1]

    def _write(self, stack: Stack) -> str:
        written, frame = [self._rest_of_leaf(stack)], stack.rest
        while frame.node is not None and frame.rest is not None:
            written.append(self._shortest.write(frame.node, frame.index))
            frame = frame.rest
        return "".join(written)

    def _shortest_left(self, leaf: Language, series: Series) -> tuple[float, str]:
        found = self._shortest_of(leaf)
        if found[1] not in series.rests:
            return found
        text = series.text_left(leaf)
        return (math.inf, "") if text is None else (self._spell(text.encode())[0], text)

    def _shortest_of(self, language: Language) -> tuple[float, str]:
        if language not in self._languages:
            text = language.shortest()
            self._languages[language] = (math.inf, "") if text is None else (self._spell(text.encode())[0], text)
        return self._languages[language]

    def _counts(self, text: str) -> list[float]:
        """Tokens of a text of the grammar from each of its bytes on."""
        if text not in self._text_counts:
            self._text_counts[text] = self._spell(text.encode())
        return self._text_counts[text]

    def _spell(self, data: bytes) -> list[float]:
        return self._spelling.counts(data, self._grammar.markers)


def characters_beginning_with(data: bytes) -> CharSet:
    """The characters whose UTF-8 encoding begins with these one to three bytes."""
    lead = data[0]
    length, bits = (4, lead & 0x07) if lead >= 0xF0 else (3, lead & 0x0F) if lead >= 0xE0 else (2, lead & 0x1F)
    for byte in data[1:]:
        bits = bits << 6 | byte & 0x3F
    num_missing = 6 * (length - len(data))
    least = {2: 0x80, 3: 0x800, 4: 0x10000}[length]
    return CharSet([(max(bits << num_missing, least), min((bits + 1 << num_missing) - 1, 0x10FFFF))])


def _next_characters(stack: Stack, chars: CharSet) -> list[str]:
    """One character of each class that the stack tells apart, out of `chars`."""
    leaf, offset = stack.leaf, stack.offset
    if isinstance(leaf, str):
        return [leaf[offset]] if leaf[offset] in chars else []
    classes = [common for one in leaf.next_classes() if (common := one & chars)]
    taken = CharSet.of("".join(rest[:1] for rest in stack.series.rests))
    alone = [chr(code) for one in classes for code in (one & taken).code_points()]
    return [*alone, *(others.example() for one in classes if (others := one - taken))]
