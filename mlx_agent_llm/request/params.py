"""SamplingParams: how one request is sampled and when it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from mlx_agent_llm.config import check_range
from mlx_agent_llm.errors import RequestError
from mlx_agent_llm.request.constraints import Choice, Constraint, Grammar, JSONSchema, Regex

_UNCUT = (JSONSchema, Regex, Grammar, Choice)  # constraints of the whole output, which a stop text would cut
MAX_LOGPROBS = 20  # as OpenAI; every row ranks as many, so that its result does not depend on what its neighbours ask


# What a model's makers may recommend: the smallest and the largest value.
_BOUNDS: Mapping[str, tuple[float, float | None]] = {
    "temperature": (0, 1e4),
    "top_p": (1e-9, 1),
    "top_k": (0, None),
    "min_p": (0, 1),
    "repetition_penalty": (1e-4, 1e4),
}


@dataclass(frozen=True)
class SamplingDefaults:
    """What a model's makers recommend for requests that do not say it; a bad value is a ValueError.

    The fields are those of SamplingParams; without a recommendation each is off, and the most probable token is taken.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            check_range(name, getattr(self, name), low, high, integer=name == "top_k")

    def fill(self, params: SamplingParams) -> SamplingParams:
        """The parameters with the recommendations where they say nothing."""
        missing = {one.name: getattr(self, one.name) for one in fields(self) if getattr(params, one.name) is None}
        return replace(params, **missing) if missing else params


@dataclass(frozen=True)
class SamplingParams:
    """How one request is sampled and when it ends; a bad value is a RequestError that names field, value and bound.

    max_tokens: most new tokens.
    min_tokens: until there are as many, no end token can be sampled: neither the model's own nor stop_token_ids. A stop
        text still ends the output, because it is never shown; with a constraint, which may leave nothing but the end,
        min_tokens is refused.
    temperature, top_p, top_k, min_p, repetition_penalty: None is what the model's makers recommend
        (Engine.sampling_defaults), and where they recommend nothing what turns each off: 0.0, 1.0, 0, 0.0 and 1.0.
    temperature: 0 takes the most probable token, otherwise logits are divided by it.
    top_p, top_k, min_p: keep the smallest set of tokens with that probability mass, the k most probable ones, and those
        at least min_p times as probable as the best one; 1.0, 0 and 0.0 keep all. Applied in the order top_k, top_p,
        min_p to the distribution after temperature.
    repetition_penalty: divides the positive logits of all tokens in the prompt or the output and multiplies the
        negative ones, as in CTRL (Keskar et al. 2019); 1.0 is off.
    presence_penalty, frequency_penalty: are subtracted from the logits of the output's tokens, once and as often as the
        token is there, as at OpenAI; -2 to 2.
    logit_bias: is added to the logits of these token ids; -100 to 100. Penalties and bias come before temperature and
        before the grammar, which no bias gets around.
    logprobs: None is off; k >= 0 gives for each output token its log-probability and the k most probable tokens at its
        place. They are of the model's own distribution, before penalties, bias, grammar, temperature and the cuts.
    seed: a request's tokens are a function of prompt, parameters and seed; None draws one from the engine.
    n: samples of each prompt; the i-th uses seed + i.
    stop: texts that end the output and are not part of it. An empty one is an error. In a chat they are looked for in
        free text alone: never in reasoning, in calls, in the marks around them, or in the JSON of a response_format.
    stop_token_ids: token ids that end the output beside the model's own end tokens; no call and no JSON is cut by them.
    ignore_eos: the model's own end tokens do not end the output.
    priority: higher runs first. Waiting raises it by one level every 10 seconds, so that nobody starves: a request goes
        before every one of one level more that came 10 seconds after it.
    timeout: seconds from submission after which the request fails with RequestTimeout.
    draft_text: a text that the output may quote or repeat, as one that is to be edited or what a tool returned. What of
        it may come next is computed ahead (EngineConfig.speculation); no token of the output is another one for that.
    constraint: what the output must be; the grammar is applied inside the sampler.
    cache_salt: a non-empty text; the KV of equal prefixes is shared only among requests of the same one (or of none).
    trace_id: a non-empty text by which the caller finds this request in the log, as the id of a run in a tracer.
    """

    max_tokens: int = 512
    min_tokens: int = 0
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    logprobs: int | None = None
    seed: int | None = None
    n: int = 1
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    priority: int = 0
    timeout: float | None = None
    draft_text: str | None = None
    constraint: Constraint | None = None
    cache_salt: str | None = None
    trace_id: str | None = None

    def __post_init__(self) -> None:
        try:
            stop = (self.stop,) if isinstance(self.stop, str) else _as_tuple("stop", self.stop)
            object.__setattr__(self, "stop", stop)
            object.__setattr__(self, "stop_token_ids", _as_tuple("stop_token_ids", self.stop_token_ids))
            object.__setattr__(self, "logit_bias", _as_dict("logit_bias", self.logit_bias))
            self._check()
        except ValueError as error:
            raise RequestError(str(error)) from None

    def _check(self) -> None:
        check_range("max_tokens", self.max_tokens, 1)
        check_range("min_tokens", self.min_tokens, 0, self.max_tokens)
        for name, (low, high) in _BOUNDS.items():
            if getattr(self, name) is not None:
                check_range(name, getattr(self, name), low, high, integer=name == "top_k")
        check_range("presence_penalty", self.presence_penalty, -2, 2, integer=False)
        check_range("frequency_penalty", self.frequency_penalty, -2, 2, integer=False)
        for token_id, bias in self.logit_bias.items():
            check_range("logit_bias token id", token_id, 0)
            check_range(f"logit_bias[{token_id}]", bias, -100, 100, integer=False)
        if self.logprobs is not None:
            check_range("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        check_range("n", self.n, 1)
        check_range("priority", self.priority, -(2**31), 2**31)
        if self.seed is not None:
            check_range("seed", self.seed, 0, 2**32 - self.n)
        if self.timeout is not None:
            check_range("timeout", self.timeout, 0, 1e9, integer=False)
        for name in ("cache_salt", "trace_id", "draft_text"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise ValueError(f"{name}={value!r} must be a non-empty text or None")
        for text in self.stop:
            if not isinstance(text, str) or not text:
                raise ValueError(f"stop={self.stop!r} must hold non-empty strings")
        for token_id in self.stop_token_ids:
            check_range("stop_token_ids", token_id, 0)
        if self.constraint is not None and not isinstance(self.constraint, Constraint):
            raise ValueError(f"constraint={self.constraint!r} must be a JSONSchema, Regex, Grammar or Choice")
        if isinstance(self.constraint, _UNCUT) and (self.stop or self.stop_token_ids):
            kind = type(self.constraint).__name__
            raise ValueError(f"stop and stop_token_ids contradict a {kind}: they would cut the output")
        if self.constraint is not None and self.ignore_eos:
            raise ValueError("ignore_eos=True contradicts a constraint, which ends by the end token")
        if self.constraint is not None and self.min_tokens:
            raise ValueError(
                f"min_tokens={self.min_tokens} must be 0 with a constraint, which may leave nothing but the end token"
            )


def _as_tuple(name: str, values: object) -> tuple[object, ...]:
    if not isinstance(values, Sequence):
        raise ValueError(f"{name}={values!r} must be a sequence")
    return tuple(values)


def _as_dict(name: str, values: object) -> dict[object, object]:
    if not isinstance(values, Mapping):
        raise ValueError(f"{name}={values!r} must be a mapping of token ids to numbers")
    return dict(values)  # a copy: who changes theirs later changes no parameter that was checked
