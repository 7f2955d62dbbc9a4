"""Jump-forward: tokens that a grammar leaves no choice about are computed as one chunk, not sampled one by one.

As in SGLang's compressed finite state machines (Zheng et al. 2024), with the forced text spelled as the model would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlx_agent_llm.request import ForcedTokens, Matcher, Request

SpellForcedText = Callable[[Sequence[int], bytes], ForcedTokens]

_MIN_TOKENS = 2  # a single one is sampled as quickly as it is computed


class JumpForward:
    """Finds what the grammars force. spell: a text as tokens after given ones; None forces nothing."""

    def __init__(self, spell: SpellForcedText | None) -> None:
        self._spell = spell

    def give(
        self,
        requests: Sequence[Request],
        force: Callable[[Request, list[int]], None],
        fail: Callable[[Request, Exception], None],
    ) -> list[Request | None]:
        """Let `force` give each open request what its grammar forces; the requests whose next tokens are to be sampled.

        None stands in the place of the others. `fail` is told of a request whose matcher breaks. The step's forward has
        computed what comes before the forced tokens, and its logits are not needed; the next step computes them as one
        chunk.
        """
        receivers: list[Request | None] = []
        for request in requests:
            token_ids: list[int] = []
            if request.matcher is not None and not request.is_finished and not request.draft.token_ids:
                try:  # a draft holds what follows it
                    token_ids = self.find(request)
                except Exception as fault:  # the fault is this request's alone
                    fail(request, fault)
            if token_ids:
                force(request, token_ids)
            receivers.append(None if token_ids or request.is_finished else request)
        return receivers

    def find(self, request: Request, ahead: Sequence[int] = ()) -> list[int]:
        """The tokens that have to come next, or none where they are too few to be worth it.

        ahead: tokens after the request's that its matcher has accepted.

        A request that asks for logprobs gets none: those of a token are computed when it is sampled.
        """
        matcher = request.matcher
        if self._spell is None or matcher is None or request.params.logprobs is not None:
            return []
        data = matcher.jump_forward()
        if not data:
            return []
        forced = self._spell([*request.token_ids, *ahead] if ahead else request.token_ids, data)
        num_tokens = _num_usable(matcher, forced)
        return forced.token_ids[:num_tokens] if num_tokens >= _MIN_TOKENS else []


def _num_usable(matcher: Matcher, forced: ForcedTokens) -> int:
    """All tokens where the text is over after them; otherwise not the last ones, which what follows may merge with."""
    num_accepted = 0
    for token_id in forced.token_ids:
        if not matcher.accept(token_id):
            break  # the text of a control token, which may be text here and not the token
        num_accepted += 1
    is_over = num_accepted == len(forced.token_ids) and matcher.is_finished
    matcher.rollback(num_accepted)
    return num_accepted if is_over else min(forced.num_safe, num_accepted)
