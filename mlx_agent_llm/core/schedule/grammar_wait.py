"""Requests whose grammars are still compiled: they get their matchers between two steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, wait

from mlx_agent_llm.request import Request

_SECONDS = 0.01  # not longer, because there may be new requests


def hand_out_matchers(requests: Iterable[Request], fail: Callable[[Request, Exception], None]) -> None:
    """Give the requests whose grammars are compiled by now their matchers; `fail` is told of one that cannot be."""
    for request in [one for one in requests if one.grammar is not None and one.grammar.done()]:
        try:
            take_matcher(request)
        except Exception as fault:  # the fault is this request's alone
            fail(request, fault)


def take_matcher(request: Request) -> None:
    """Make the matcher of a request's grammar, which is waited for."""
    assert request.grammar is not None
    request.matcher, request.grammar = request.grammar.result().matcher(), None


def wait_for_grammars(requests: Iterable[Request]) -> None:
    """Nothing can be computed before one of the grammars is there."""
    wait([request.grammar for request in requests if request.grammar is not None], _SECONDS, FIRST_COMPLETED)
