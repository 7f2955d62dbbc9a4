"""The end of each request in the log, with its id and numbers."""

import logging

import pytest

from mlx_agent_llm import SamplingParams
from mlx_agent_llm.errors import RequestTimeout
from tests.support.engines import MakeEngine


def test_every_request_that_ends_is_logged_with_its_numbers(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine()
    with caplog.at_level(logging.INFO, "mlx_agent_llm.requests"):
        engine.generate(["abc"], SamplingParams(max_tokens=4, ignore_eos=True, trace_id="run-7"))
        with pytest.raises(RequestTimeout):
            engine.submit("abc", SamplingParams(timeout=0)).result()
    done, failed = (vars(record) for record in caplog.records)
    assert (done["finish_reason"], done["prompt_tokens"], done["completion_tokens"]) == ("length", 3, 4)
    assert done["total_seconds"] >= done["ttft_seconds"] >= done["queue_seconds"] >= 0 and done["error"] is None
    assert (done["trace_id"], failed["trace_id"]) == ("run-7", None)
    assert failed["finish_reason"] == "error" and failed["error"].startswith("RequestTimeout: ")
    assert failed["request_id"] != done["request_id"]


def test_nothing_is_logged_unless_it_is_asked_for(make_engine: MakeEngine, caplog: pytest.LogCaptureFixture) -> None:
    make_engine().generate(["abc"], SamplingParams(max_tokens=2))
    assert not [record for record in caplog.records if record.name == "mlx_agent_llm.requests"]
