"""A grammar as a recursive transition network (Woods 1970): what its leaves are, and what may follow each.

Counts of repetitions are left out, and large ones in leaves are taken to be open.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mlx_agent_llm.constrain.backends.relaxed import relaxed
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
from mlx_agent_llm.languages.regular import Language, literal

ROOT = ""  # the name of no rule


@dataclass(eq=False, slots=True)
class State:
    """A state of the network, in the body of a rule: at a leaf, at a call, at a branch, or at its end."""

    rule: str
    leaf: Language | None = None
    call: str | None = None
    after: State | None = None  # the leaf or the call
    branches: list[State] = field(default_factory=list)
    is_end: bool = False


class Network:
    """The states of all rules that the root reaches, and where each rule may return to.

    starts: the first state of each rule. leaves: all states at a leaf.
    """

    def __init__(self, grammar: ContextFreeGrammar) -> None:
        self._bodies = {**grammar.rules, ROOT: grammar.root}
        self._returns: dict[str, list[State]] = {name: [] for name in self._bodies}
        self._tail_callers: dict[str, list[str]] = {name: [] for name in self._bodies}
        self._callers: dict[str, tuple[State | None, ...]] = {}
        self.starts: dict[str, State] = {}
        self.leaves: list[State] = []
        self._unread = [ROOT]
        while self._unread:
            name = self._unread.pop()
            if name not in self.starts:
                self.starts[name] = self._build(self._bodies[name], State(name, is_end=True))

    def callers(self, rule: str) -> tuple[State | None, ...]:
        """The states that may come when a rule is over; None is the end of the text."""
        if rule not in self._callers:
            seen = dict.fromkeys([rule])
            for name in (queue := [rule]):
                fresh = [caller for caller in self._tail_callers[name] if caller not in seen]
                seen |= dict.fromkeys(fresh)
                queue += fresh
            found = dict.fromkeys(state for name in seen for state in self._returns[name])
            self._callers[rule] = (*found, None) if ROOT in seen else (*found,)
        return self._callers[rule]

    def _build(self, node: Node, end: State) -> State:
        """The first state of a node that leads to `end`."""
        match node:
            case TextNode(value):
                return self._build_leaf(literal(value), end) if value else end
            case PatternNode(language):
                start = self._build_leaf(relaxed(language), end)
                return State(end.rule, branches=[start, end]) if language.is_nullable else start
            case SequenceNode(parts):
                for part in reversed(parts):
                    end = self._build(part, end)
                return end
            case ChoiceNode(options):
                return State(end.rule, branches=[self._build(option, end) for option in options])
            case RepeatNode(item, least, most):
                return self._build_repeat(item, least, most, end)
            case RuleNode(name):
                return self._build_call(name, end)

    def _build_leaf(self, leaf: Language, end: State) -> State:
        self.leaves.append(State(end.rule, leaf=leaf, after=end))
        return self.leaves[-1]

    def _build_repeat(self, item: Node, least: int, most: int | None, end: State) -> State:
        if most == 0:
            return end
        between = end if most == 1 else State(end.rule)
        start = self._build(item, between)
        if most != 1:
            between.branches = [start, end]
        return start if least else State(end.rule, branches=[start, end])

    def _build_call(self, name: str, end: State) -> State:
        self._unread.append(name)
        if end.is_end:
            self._tail_callers[name].append(end.rule)
        else:
            self._returns[name].append(end)
        return State(end.rule, call=name, after=end)
