"""Grammars built by hand, random ones with their texts, and a matcher that needs no backend."""

import random
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from mlx_agent_llm.constrain.closing.pushdown import Pushdown, State
from mlx_agent_llm.languages import regular
from mlx_agent_llm.languages.context_free import (
    ChoiceNode,
    ContextFreeGrammar,
    Node,
    PatternNode,
    RepeatNode,
    RuleNode,
    SequenceNode,
    TextNode,
)
from mlx_agent_llm.languages.regular.char_set import CharSet

_PLAIN = regular.characters(~(CharSet.of('"\\') | CharSet.span("\0", "\x1f")))
_ESCAPE = regular.concat(regular.literal("\\"), regular.characters(CharSet.of('"\\/bfnrt')))
_DIGIT = regular.characters(CharSet.span("0", "9"))
_NATURAL = regular.concat(regular.characters(CharSet.span("1", "9")), regular.repeat(_DIGIT, 0, 14))

STRING = PatternNode(
    regular.concat(regular.literal('"'), regular.repeat(regular.union(_PLAIN, _ESCAPE), 0), regular.literal('"'))
)
NUMBER = PatternNode(regular.union(regular.literal("0"), _NATURAL))
JSON_RULES: dict[str, Node] = {
    "any": ChoiceNode(
        (STRING, NUMBER, TextNode("true"), TextNode("false"), TextNode("null"), RuleNode("array"), RuleNode("object"))
    ),
    "array": SequenceNode(
        (TextNode("["), ChoiceNode((TextNode("]"), SequenceNode((RuleNode("any"), RuleNode("items"))))))
    ),
    "items": ChoiceNode((TextNode("]"), SequenceNode((TextNode(", "), RuleNode("any"), RuleNode("items"))))),
    "object": SequenceNode(
        (TextNode("{"), ChoiceNode((TextNode("}"), SequenceNode((RuleNode("member"), RuleNode("members"))))))
    ),
    "members": ChoiceNode((TextNode("}"), SequenceNode((TextNode(", "), RuleNode("member"), RuleNode("members"))))),
    "member": SequenceNode((STRING, TextNode(": "), RuleNode("any"))),
}
JSON = ContextFreeGrammar(RuleNode("any"), JSON_RULES)
PERSON = ContextFreeGrammar(
    SequenceNode(
        (
            TextNode('{"name": '),
            STRING,
            TextNode(', "age": '),
            NUMBER,
            TextNode(', "address": {"street": '),
            STRING,
            TextNode(', "town": '),
            STRING,
            TextNode("}}"),
        )
    )
)


def random_node(rng: random.Random, depth: int) -> Node:
    """A small node over the alphabet ab€, often ambiguous or nullable; rules are called r0 and r1."""
    kind = rng.choice(["text", "pattern", "pattern"] + ["sequence", "choice", "repeat", "rule"] * (depth > 0))
    match kind:
        case "text":
            return TextNode("".join(rng.choices("ab€", k=rng.randrange(3))))
        case "pattern":
            one = regular.characters(CharSet.of(rng.choice(["a", "b", "ab", "a€", "ab€"])))
            least = rng.randrange(3)
            return PatternNode(regular.repeat(one, least, rng.choice([None, least, least + 1])))
        case "sequence":
            return SequenceNode(tuple(random_node(rng, depth - 1) for _ in range(rng.randrange(4))))
        case "choice":
            return ChoiceNode(tuple(random_node(rng, depth - 1) for _ in range(rng.randrange(1, 4))))
        case "repeat":
            least = rng.randrange(3)
            return RepeatNode(random_node(rng, depth - 1), least, rng.choice([None, least, least + 2]))
        case _:
            return RuleNode(rng.choice(["r0", "r1"]))


def texts_of(grammar: ContextFreeGrammar, alphabet: str, longest: int) -> set[str]:
    """All its texts of at most so many characters, by the definition of each kind of node: as slow as it is simple."""
    known: dict[str, set[str]] = {name: set() for name in grammar.rules}

    def texts(node: Node) -> set[str]:
        match node:
            case TextNode(value):
                found = {value}
            case PatternNode(language):
                found = {text for text in _all_texts(alphabet, longest) if language.matches(text)}
            case SequenceNode(parts):
                found = _joined([texts(part) for part in parts], longest)
            case ChoiceNode(options):
                found = set().union(*map(texts, options))
            case RepeatNode(item, least, most):
                # Empty items may fill up the count, so no more than `longest` others matter.
                items, found = texts(item), set()
                counts = range(least, (least + longest if most is None else most) + 1)
                for count in counts:
                    found |= _joined([items] * count, longest)
            case RuleNode(name):
                found = known[name]
        return {text for text in found if len(text) <= longest}

    while True:
        before = {name: set(found) for name, found in known.items()}
        for name, body in grammar.rules.items():
            known[name] = texts(body)
        if known == before:
            return texts(grammar.root)


def _joined(parts: Sequence[set[str]], longest: int) -> set[str]:
    found = {""}
    for part in parts:
        found = {left + right for left in found for right in part if len(left) + len(right) <= longest}
    return found


def _all_texts(alphabet: str, longest: int) -> Iterator[str]:
    layer = [""]
    for _ in range(longest + 1):
        yield from layer
        layer = [text + char for text in layer for char in alphabet]


def is_dead(state: State) -> bool:
    """Whether no text of the grammar begins like this; half a character may not show it yet."""
    return not state.stacks and not state.is_complete


class PushdownMatcher:
    """The engine's Matcher on nothing but the pushdown: slow, exact, and for grammars that no backend compiles."""

    def __init__(self, grammar: ContextFreeGrammar, token_bytes: Sequence[bytes], end: int) -> None:
        self._pushdown = Pushdown(grammar)
        self._token_bytes = token_bytes
        self._end = end
        self._states = [self._pushdown.start()]
        self._has_ended = False

    def accept(self, token_id: int) -> bool:
        if token_id == self._end:
            self._has_ended = self._states[-1].is_complete
            return self._has_ended
        after = self._pushdown.advance(self._states[-1], self._token_bytes[token_id])
        if is_dead(after) or not self._is_alive(token_id):
            return False
        self._states.append(after)
        return True

    def fill_mask(self, mask: npt.NDArray[np.int32], row: int) -> None:
        bits = np.zeros(mask.shape[1] * 32, np.uint8)
        bits[[token_id for token_id in range(len(self._token_bytes)) if self._is_alive(token_id)]] = 1
        bits[self._end] = self._states[-1].is_complete
        mask[row] = np.packbits(bits, bitorder="little").view(np.int32)

    def rollback(self, num_tokens: int) -> None:
        if num_tokens:
            del self._states[-num_tokens:]

    def jump_forward(self) -> bytes:
        state, forced = self._states[-1], b""
        while not state.is_complete and len(forced) < 200:
            following = [byte for byte in range(256) if self._leads_on(state, bytes([byte]))]
            if len(following) != 1:
                break
            forced += bytes(following)
            state = self._pushdown.advance(state, bytes(following))
        return forced

    @property
    def is_finished(self) -> bool:
        alive = any(self._leads_on(self._states[-1], bytes([byte])) for byte in range(256))
        return self._has_ended or (self._states[-1].is_complete and not alive)

    def _is_alive(self, token_id: int) -> bool:
        return bool(self._token_bytes[token_id]) and self._leads_on(self._states[-1], self._token_bytes[token_id])

    def _leads_on(self, state: object, data: bytes) -> bool:
        after = self._pushdown.advance(state, data)  # type: ignore[arg-type]
        if after.partial:  # half a character is alive when some whole one is
            return any(not is_dead(self._pushdown.advance(after, rest)) for rest in _ways_on(after.partial))
        return not is_dead(after)


def _ways_on(partial: bytes) -> Iterator[bytes]:
    """What completes a character that was begun: a few ways, the euro sign's among them."""
    for whole in ("é", "ÿ", "€", "ࠀ", "\uffff", "😀", "\U0010ffff"):
        if whole.encode().startswith(partial):
            yield whole.encode()[len(partial) :]
    length = 4 if partial[0] >= 0xF0 else 3 if partial[0] >= 0xE0 else 2
    for last in (0x80, 0xBF):
        yield bytes([last]) * (length - len(partial))
