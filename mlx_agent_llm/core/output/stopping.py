"""From sampled tokens to deltas: when a request ends, and which text may be shown before that is decided."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from mlx_agent_llm.core.output.detokenizer import Detokenizer
from mlx_agent_llm.errors import GenerationError, MLXAgentError
from mlx_agent_llm.request import Delta, FinishReason, FreeText, Request, TextPiece


class Stopping:
    """Holds the output of every open request between its tokens."""

    def __init__(
        self,
        token_bytes: Sequence[bytes],
        eos_token_ids: Collection[int],
        *,
        strip_leading_space: bool,
    ) -> None:
        self._token_bytes = token_bytes
        self._eos_token_ids = frozenset(eos_token_ids)
        self._strip_leading_space = strip_leading_space
        self._outputs: dict[int, _Output] = {}

    def advance(self, request: Request, token_id: int) -> Delta:
        """Take one sampled token: the matcher accepts it, its text is shown, and the request may end.

        A token after which the text could not be completed any more is not taken: the text is completed instead.
        Raises GenerationError when the matcher rejects the token: fail closed.
        """
        if request.matcher is not None and not request.matcher.accept(token_id):
            raise GenerationError(f"request {request.request_id}: the grammar rejected sampled token {token_id}")
        output = self._outputs.get(request.request_id) or self._open(request)
        is_end = token_id in output.end_token_ids and output.may_end_by(token_id, self._eos_token_ids)
        if request.budget is not None and not is_end:
            if not request.budget.take(token_id, request.max_num_tokens - len(request.token_ids) - 1):
                return self._force_close(request, request.budget.closing_tokens())
        request.token_ids.append(token_id)
        if is_end:
            return self.end(request, "stop", token_ids=(token_id,))
        text, is_stopped = output.text_stop.feed(output.detokenizer.add(token_id))
        if is_stopped:
            return self._close(request, "stop", text, (token_id,), output.text_stop.found)
        if request.matcher is not None and request.matcher.is_finished:
            return self.end(request, "stop", text, (token_id,))
        if len(request.token_ids) >= request.max_num_tokens:
            return self.end(request, "length", text, (token_id,))
        return Delta(text, (token_id,))

    def advance_all(self, request: Request, token_ids: Iterable[int]) -> Delta:
        """Take tokens that nobody sampled for this request, up to one that ends it; all of it as one delta."""
        text, delta = "", Delta()
        taken: list[int] = []
        for token_id in token_ids:
            delta = self.advance(request, token_id)
            text += delta.text
            taken += delta.token_ids
            if request.is_finished:
                break
        return delta._replace(text=text, token_ids=tuple(taken))

    def end(self, request: Request, reason: FinishReason, text: str = "", token_ids: tuple[int, ...] = ()) -> Delta:
        """The last delta, with the text that was held back; a stop string may still cut it."""
        output = self._open(request)
        rest, is_stopped = output.text_stop.finish(output.detokenizer.finish())
        return self._close(request, "stop" if is_stopped else reason, text + rest, token_ids, output.text_stop.found)

    def fail(self, request: Request, error: MLXAgentError) -> Delta:
        """The last delta of a request that failed; nothing of its text is touched, which may be what is broken."""
        return self._close(request, "error", "", ())._replace(error=error)

    def end_token_ids(self, request: Request) -> frozenset[int]:
        """The tokens that end the request's output: the model's own, unless they are ignored, and the caller's."""
        own = frozenset[int]() if request.params.ignore_eos else self._eos_token_ids
        return own.union(request.params.stop_token_ids) if request.params.stop_token_ids else own

    def _force_close(self, request: Request, token_ids: Sequence[int]) -> Delta:
        """Complete the text with tokens that no forward computes; a stop string may still cut it."""
        num_left = request.max_num_tokens - len(request.token_ids)
        if len(token_ids) > num_left:  # never where the engine let the request in
            raise GenerationError(
                f"request {request.request_id}: {len(token_ids)} tokens are needed to complete the text, "
                f"and {num_left} are left"
            )
        output = self._open(request)
        # A forward that was dispatched already has computed the token that is not taken.
        request.kv.num_computed_tokens = min(request.kv.num_computed_tokens, len(request.token_ids))
        request.token_ids += token_ids
        text, is_stopped = output.text_stop.feed("".join(map(output.detokenizer.add, token_ids)))
        if is_stopped:
            delta = self._close(request, "stop", text, tuple(token_ids), output.text_stop.found)
        else:
            delta = self.end(request, "length", text, tuple(token_ids))
        return delta._replace(forced_close=True)

    def _open(self, request: Request) -> _Output:
        output = self._outputs.get(request.request_id)
        if output is None:
            shown = request.shown_tokens
            output = self._outputs[request.request_id] = _Output(
                Detokenizer(self._token_bytes, shown, strip_leading_space=self._strip_leading_space),
                TextStop(request.params.stop, _free_text_of(request)),
                self.end_token_ids(request),
            )
        return output

    def _close(
        self,
        request: Request,
        reason: FinishReason,
        text: str,
        token_ids: tuple[int, ...],
        stop_text: str | None = None,
    ) -> Delta:
        self._outputs.pop(request.request_id, None)
        request.finish_reason = reason
        logprobs = None if request.params.logprobs is None else ()  # the loop fills in those of the tokens
        usage, timings = request.usage, request.timings
        return Delta(text, token_ids, reason, usage, timings, logprobs=logprobs, stop_text=stop_text)


class _Output(NamedTuple):
    """The text of an open request so far, as what is left to show of it, and what ends it."""

    detokenizer: Detokenizer
    text_stop: TextStop
    end_token_ids: frozenset[int]

    def may_end_by(self, token_id: int, eos_token_ids: Collection[int]) -> bool:
        """Whether one of its end tokens ends it here: within a call the model's own alone, which the grammar allows."""
        return token_id in eos_token_ids or not self.text_stop.is_in_calls


class TextStop:
    """Finds stop strings in streamed text and holds back what may be the beginning of one.

    The first stop string to be complete ends the text, however the text is cut into pieces; `found` is that one.
    free_text: says in which of the text they are looked for, all of one within the same stretch; None is in all of it.
    """

    def __init__(self, stop: Sequence[str], free_text: FreeText | None = None) -> None:
        self._stop = tuple(stop)
        self._free_text = free_text
        self._held = ""
        self.found: str | None = None

    @property
    def is_in_calls(self) -> bool:
        """Whether what follows is no free text any more."""
        return self._free_text is not None and self._free_text.has_calls

    def feed(self, text: str) -> tuple[str, bool]:
        """The text that is safe to show, and whether a stop string was found (nothing after it is shown)."""
        if self._free_text is None:
            return self._look_at(text) if self._stop else (text, False)
        return self._look_at_all(self._free_text.feed(text))

    def finish(self, text: str = "") -> tuple[str, bool]:
        """The same of the last text, and what turned out to be no stop string."""
        shown, is_stopped = self.feed(text)
        if self._free_text is not None and not is_stopped:
            rest, is_stopped = self._look_at_all(self._free_text.finish())
            shown += rest
        return shown + self._release(), is_stopped

    def _look_at_all(self, pieces: Sequence[TextPiece]) -> tuple[str, bool]:
        shown = ""
        for piece in pieces:
            if not piece.is_free:
                shown += self._release() + piece.text
                continue
            safe, is_stopped = self._look_at(piece.text)
            shown += safe
            if is_stopped:
                return shown, True
        return shown, False

    def _look_at(self, text: str) -> tuple[str, bool]:
        text = self._held + text
        found = [(text.index(stop) + len(stop), text.index(stop), stop) for stop in self._stop if stop in text]
        if found:
            self._held = ""
            _, end, self.found = min(found)
            return text[:end], True
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def _release(self) -> str:
        text, self._held = self._held, ""
        return text


def _free_text_of(request: Request) -> FreeText | None:
    """What finds the free text of a request that something but its grammar and the model may end."""
    has_stops = request.params.stop or request.params.stop_token_ids
    return request.free_text() if request.free_text is not None and has_stops else None


def _overlap(text: str, stop: str) -> int:
    """The length of the longest proper beginning of `stop` that `text` ends with."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
