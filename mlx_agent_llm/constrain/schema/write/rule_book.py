"""The rules of a grammar while it is written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable

from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.languages.context_free import ChoiceNode, Node, RuleNode

MAX_RULES = 10_000


class RuleBook:
    """Rules by name, some of whose bodies are still to be written.

    prefix: begins the names of the rules, so that the rules of several schemas can stand in one grammar.
    """

    def __init__(self, prefix: str) -> None:
        self.rules: dict[str, Node] = {}
        self._prefix = prefix
        self._names: dict[Hashable, str] = {}
        self._open: deque[tuple[str, Callable[[], Node]]] = deque()

    def new_rule(self, kind: str) -> str:
        """The name of a new rule, whose body is still to be set; ConstraintError for one too many."""
        if len(self.rules) >= MAX_RULES:
            raise ConstraintError(f"schema is too large: its grammar needs more than {MAX_RULES} rules")
        name = f"{self._prefix}{kind}_{len(self.rules)}"
        self.rules[name] = ChoiceNode(())
        return name

    def rule(self, kind: str, body: Node) -> RuleNode:
        """A new rule with this body."""
        name = self.new_rule(kind)
        self.rules[name] = body
        return RuleNode(name)

    def later(self, kind: str, content: Hashable, body: Callable[[], Node]) -> RuleNode:
        """The one rule of this content, whose body is asked for by `finish`: so rules may refer to themselves."""
        if content not in self._names:
            self._names[content] = self.new_rule(kind)
            self._open.append((self._names[content], body))
        return RuleNode(self._names[content])

    def finish(self) -> None:
        """Write every body that was put off, and those that these put off."""
        while self._open:
            name, body = self._open.popleft()
            self.rules[name] = body()
