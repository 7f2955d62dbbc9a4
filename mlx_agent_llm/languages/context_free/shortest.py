"""The shortest text of every node of a grammar, by Knuth's generalisation of Dijkstra's algorithm (Knuth 1977)."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping

from mlx_agent_llm.languages.context_free.nodes import (
    ChoiceNode,
    ContextFreeGrammar,
    Node,
    PatternNode,
    RepeatNode,
    RuleNode,
    SequenceNode,
    TextNode,
    rule_names,
)


def utf8_length(text: str) -> int:
    """Bytes of a text."""
    return len(text.encode())


class ShortestTexts:
    """What the cheapest text of a node costs, and which it is; the cost of parts adds up to that of the whole.

    measure: the cost of a text that stands in the grammar, 0 for the empty one alone.
    """

    def __init__(self, grammar: ContextFreeGrammar, measure: Callable[[str], float] = utf8_length) -> None:
        self._measure = measure
        self._leaf_texts: dict[int, str | None] = {}  # by id: comparing nodes would compare whole trees
        self._leaf_costs: dict[int, float] = {}
        self._costs: dict[tuple[int, int], float] = {}  # of a node from an index on; the nodes live as long as this
        self._grammar = grammar
        self._rule_costs: dict[str, float] = {}
        self._find_rule_costs(grammar.rules)
        self._costs.clear()  # those of rules that were found later were infinite

    def cost(self, node: Node, index: int = 0) -> float:
        """Of a sequence from part `index` on, or a repetition after `index` items; infinite where there is no text."""
        key = id(node), index
        if key not in self._costs:
            self._costs[key] = self._find_cost(node, index)
        return self._costs[key]

    def write(self, node: Node, index: int = 0) -> str:
        """The cheapest text of what `cost` is the cost of, which has to be finite."""
        written: list[str] = []
        left = [(node, index)]
        while left:
            node, index = left.pop()
            match node:
                case TextNode() | PatternNode():
                    written.append(self._leaf_text(node) or "")
                case SequenceNode(parts):
                    left += [(part, 0) for part in reversed(parts[index:])]
                case ChoiceNode(options):
                    left.append((min(options, key=self.cost), 0))
                case RepeatNode(item, least, _):
                    left += [(item, 0)] * (least - index)
                case RuleNode(name):
                    left.append((self._grammar.rules[name], 0))
        return "".join(written)

    def _find_rule_costs(self, rules: Mapping[str, Node]) -> None:
        """The cheapest rule of those whose cost is not settled yet depends on settled ones alone."""
        users: dict[str, list[str]] = {name: [] for name in rules}
        for name, body in rules.items():
            for used in set(rule_names(body)):
                users[used].append(name)
        queue = [(self._find_cost(body), name) for name, body in rules.items()]
        heapq.heapify(queue)
        while queue and (cheapest := heapq.heappop(queue))[0] < math.inf:
            cost, name = cheapest
            if name in self._rule_costs:
                continue
            self._rule_costs[name] = cost
            for user in users[name]:
                if user not in self._rule_costs:
                    heapq.heappush(queue, (self._find_cost(rules[user]), user))

    def _find_cost(self, node: Node, index: int = 0) -> float:
        match node:
            case TextNode() | PatternNode():
                return self._leaf_cost(node)
            case SequenceNode(parts):
                return sum(self._find_cost(part) for part in parts[index:])
            case ChoiceNode(options):
                return min(self._find_cost(option) for option in options)
            case RepeatNode(item, least, _):
                return self._find_cost(item) * (least - index) if index < least else 0
            case RuleNode(name):
                return self._rule_costs.get(name, math.inf)

    def _leaf_cost(self, node: TextNode | PatternNode) -> float:
        if id(node) not in self._leaf_costs:
            text = self._leaf_text(node)
            self._leaf_costs[id(node)] = math.inf if text is None else self._measure(text)
        return self._leaf_costs[id(node)]

    def _leaf_text(self, node: TextNode | PatternNode) -> str | None:
        if isinstance(node, TextNode):
            return node.value
        if id(node) not in self._leaf_texts:
            self._leaf_texts[id(node)] = node.language.shortest()
        return self._leaf_texts[id(node)]
