"""A source of drafts that says what a test wants, right or wrong."""

from collections.abc import Callable
from itertools import accumulate, repeat
from operator import mul
from weakref import proxy

from mlx_agent_llm.core.loop import EngineCore
from mlx_agent_llm.core.schedule.speculation.drafter import Outlook
from mlx_agent_llm.request import Request

Say = Callable[[Request, int], list[int]]


class ToldDrafter:
    """Drafts what a function says of its request and so many tokens; chance: that it promises for each of them."""

    def __init__(self, request: Request, say: Say, chance: float = 1.0) -> None:
        self._request: Request = proxy(request)  # who keeps its drafter as long as it lives must not be kept by it
        self._say = say
        self._chance = chance

    def follow(self) -> None:
        """Nothing is learned."""

    def outlook(self, *, is_read: bool) -> Outlook:
        return Outlook(1.0, accumulate(repeat(self._chance), mul))

    def tokens(self, count: int) -> list[int]:
        return self._say(self._request, count)


def tell(core: EngineCore, say: Say, chance: float = 1.0) -> None:
    """Let all requests of a core draft what the function says, those that have no drafter yet."""
    core.speculation.make_drafter = lambda request: ToldDrafter(request, say, chance)
