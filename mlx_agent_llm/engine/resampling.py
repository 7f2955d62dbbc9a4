"""Values whose grammar leaves keywords of their schema out: held back until they are checked, sampled again if need be.

A value that fails is sampled anew from the prompt on, with the next seed that none of n samples of one prompt has.
"""

from __future__ import annotations

from collections.abc import Callable

from mlx_agent_llm.constrain.grammars import Verdict, check_of
from mlx_agent_llm.errors import InvalidOutputError
from mlx_agent_llm.request import Delta, SamplingParams
from mlx_agent_llm.request.constraints import CheckedKeywords

MAX_ATTEMPTS = 3
SEED_STRIDE = 2**16


class CheckedDelivery:
    """Takes the deltas of a request, and delivers them as one when the value is valid.

    checked: what the grammar of the constraint leaves out. sample_again: starts the request anew with another seed.
    When the last attempt is not valid either, the request fails with an InvalidOutputError; at temperature 0 the first
    one is the last, because all others would be the same.
    """

    def __init__(
        self,
        params: SamplingParams,
        seed: int,
        checked: CheckedKeywords,
        deliver: Callable[[Delta], None],
        sample_again: Callable[[int], None],
    ) -> None:
        check = None if params.constraint is None else check_of(params.constraint)
        assert check is not None, "what is checked belongs to a constraint that says how"
        self._check = check
        self._seed = seed
        self._checked = checked
        self._deliver = deliver
        self._sample_again = sample_again
        self._num_left = MAX_ATTEMPTS if params.temperature else 1
        self._held: list[Delta] = []

    def __call__(self, delta: Delta) -> None:
        """Take a delta; the engine's thread calls this."""
        self._held.append(delta)
        if delta.finish_reason is None:
            return
        whole, verdict = self._join(), Verdict(is_checked=False)
        if delta.finish_reason not in ("error", "cancelled"):
            verdict = self._check.judge(whole.text)
        self._num_left -= 1
        if verdict.problem is None:
            self._deliver(whole._replace(checked=self._checked if verdict.is_checked else ()))
        elif self._num_left == 0:
            self._deliver(Delta(finish_reason="error", error=InvalidOutputError(verdict.problem, whole.text)))
        else:
            self._held = []
            self._seed = (self._seed + SEED_STRIDE) % 2**32
            self._sample_again(self._seed)

    def _join(self) -> Delta:
        """All deltas of this attempt as one."""
        last = self._held[-1]
        logprobs = None if last.logprobs is None else tuple(one for d in self._held for one in d.logprobs or ())
        return last._replace(
            text="".join(delta.text for delta in self._held),
            token_ids=tuple(token_id for delta in self._held for token_id in delta.token_ids),
            logprobs=logprobs,
        )
