"""Every request that an engine takes, whatever way it came, every delta of its answer, and what they must add up to."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import jsonschema

from mlx_agent_llm import Delta, Engine, JSONSchema
from mlx_agent_llm.core.answers import Emission
from mlx_agent_llm.core.loop import EngineCore
from mlx_agent_llm.engine import submission
from mlx_agent_llm.request import Request
from tests.support.exact_model import EOS_TOKEN_ID


@dataclass
class Entry:
    request: Request
    deltas: list[Delta] = field(default_factory=list)

    @property
    def token_ids(self) -> tuple[int, ...]:
        return tuple(token_id for delta in self.deltas for token_id in delta.token_ids)

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)


class Ledger:
    """Notes the requests that engines make while it is open."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.num_inherited = 0  # tokens that forks were given

    @contextmanager
    def open(self) -> Iterator[None]:
        """Take note from here on."""

        def make(*arguments: Any, **options: Any) -> Request:
            request = Request(*arguments, **options)
            entry, sink = Entry(request), request.sink

            def note(delta: Delta) -> None:
                entry.deltas.append(delta)
                sink(delta)

            request.sink = note
            self.entries.append(entry)
            return request

        fork = EngineCore.fork

        def count(core: EngineCore, request: Request, parent_id: int) -> list[Emission]:
            emissions = fork(core, request, parent_id)
            self.num_inherited += sum(len(emission.delta.token_ids) for emission in emissions)
            return emissions

        with patch.object(submission, "Request", make), patch.object(EngineCore, "fork", count):
            yield

    def check(self, engine: Engine) -> None:
        """Assert that every request was answered once and as it asked, and that the engine's counts agree."""
        for entry in self.entries:
            check_entry(entry, engine.max_model_len)
        stats = engine.stats()
        assert stats.num_waiting == stats.num_running == stats.num_used_blocks == 0
        assert stats.num_free_blocks + stats.num_cached_blocks == stats.num_blocks
        usages = [entry.deltas[-1].usage for entry in self.entries]
        num_failed = sum(entry.deltas[-1].error is not None for entry in self.entries)
        num_tokens = sum(len(entry.token_ids) for entry in self.entries) - self.num_inherited
        assert num_tokens <= stats.num_generated_tokens <= num_tokens + num_failed
        assert stats.prefix_hit_tokens == sum(usage.cached_tokens for usage in usages if usage)
        assert stats.prefix_query_tokens <= sum(usage.prompt_tokens for usage in usages if usage)


def check_entry(entry: Entry, max_model_len: int) -> None:
    """Assert that one request was answered once, and as its parameters say."""
    request, params, token_ids = entry.request, entry.request.params, entry.token_ids
    assert [delta.finish_reason is not None for delta in entry.deltas] == [False] * (len(entry.deltas) - 1) + [True]
    last = entry.deltas[-1]
    assert last.usage is not None and last.usage.prompt_tokens == len(request.prompt_token_ids)
    assert (last.error is not None) == (last.finish_reason == "error")
    assert len(token_ids) <= params.max_tokens
    if last.error is None:
        assert last.usage.completion_tokens == len(token_ids)
    if last.finish_reason == "length" and not last.forced_close:
        assert len(token_ids) == params.max_tokens or len(request.token_ids) == max_model_len
    if last.finish_reason in ("stop", "length") and isinstance(params.constraint, JSONSchema):
        jsonschema.validate(json.loads(entry.text), params.constraint.json_schema)
    assert not any(stop in entry.text for stop in params.stop)
    ends = {*params.stop_token_ids, *([] if params.ignore_eos else [EOS_TOKEN_ID])}
    assert not ends & set(token_ids[: params.min_tokens] + token_ids[:-1]), "it went on after its end"


def compare(entries: Sequence[Entry], undisturbed: Engine) -> None:
    """Assert that requests got the tokens that they get where nothing fails; those that were cut short, the first."""
    handles = [
        undisturbed.submit(
            list(entry.request.prompt_token_ids),
            replace(entry.request.params, seed=entry.request.seed, timeout=None, priority=0),
        )
        for entry in entries
    ]
    for entry, handle in zip(entries, handles, strict=True):
        expected, reason = handle.result(timeout=60), entry.deltas[-1].finish_reason
        if reason in ("cancelled", "error"):
            assert entry.token_ids == expected.token_ids[: len(entry.token_ids)]
        else:
            assert (entry.token_ids, entry.text) == (expected.token_ids, expected.text)
