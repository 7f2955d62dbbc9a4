"""The suites of LangChain's own packages for OpenAI and Ollama, with our class in place of theirs.

They run as they come, over a model without sense. What does not pass stands here with its reason, and nothing else may.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.corpora import corpus
from tests.support.foreign_suite import run_suite

SENSE = "needs a model with sense"
MEDIA = "images and sounds: the model reads text only"
OPENAI = "OpenAI's service: its keys, headers, tiers and parameters"
CLIENT = "patches the client of a server"
THOUGHTS = "without a switch, thoughts go to reasoning_content: they are never in the text"
LEVELS = "needs a template with levels of reasoning"

SUITES: dict[str, tuple[list[str], dict[str, str]]] = {
    "langchain-openai": (
        ["tests/integration_tests/chat_models/test_base.py"],
        {
            "test_chat_openai_model": OPENAI,
            "test_callable_api_key": OPENAI,
            "test_callable_api_key_async": OPENAI,
            "test_chat_openai_invalid_streaming_params": "a stream with n=5 is refused when it is asked for",
            "test_openai_invoke": OPENAI,
            "test_stream": OPENAI,
            "test_astream": OPENAI,
            "test_flex_usage_responses": OPENAI,
            "test_response_metadata": OPENAI,
            "test_async_response_metadata": OPENAI,
            "test_response_metadata_streaming": OPENAI,
            "test_async_response_metadata_streaming": OPENAI,
            "test_disable_parallel_tool_calling": SENSE,
            "test_openai_structured_output": SENSE,
            "test_openai_proxy": OPENAI,
            "test_openai_response_headers": OPENAI,
            "test_openai_response_headers_async": OPENAI,
            "test_image_token_counting_jpeg": MEDIA,
            "test_image_token_counting_png": MEDIA,
            "test_audio_output_modality": MEDIA,
            "test_audio_input_modality": MEDIA,
            "test_prediction_tokens": OPENAI,
            "test_reasoning_effort_parameter": LEVELS,
            "test_reasoning_effort_call_time_kwarg": LEVELS,
            "test_multi_party_conversation": SENSE,
            "test_structured_output_and_tools": SENSE,
            "test_tools_and_structured_output": SENSE,
            "test_prompt_cache_key_invoke": OPENAI,
            "test_prompt_cache_key_usage_methods_integration": OPENAI,
            "test_explicit_prompt_cache_breakpoint_invoke": "a prompt longer than the model's context is never cut",
            "test_schema_parsing_failures": OPENAI,
            "test_schema_parsing_failures_responses_api": OPENAI,
            "test_schema_parsing_failures_async": OPENAI,
            "test_schema_parsing_failures_responses_api_async": OPENAI,
            "test_streaming_tool_call_v1_v2_parity": "compares two answers: their calls have ids of their own",
        },
    ),
    "langchain-ollama": (
        [f"tests/integration_tests/chat_models/test_chat_models{part}.py" for part in ("", "_reasoning")],
        {
            "test_init_model_not_found": CLIENT,
            "test_init_connection_error": CLIENT,
            "test_init_response_error": CLIENT,
            "test_tool_streaming": SENSE,
            "test_tool_astreaming": SENSE,
            "test_agent_loop": LEVELS,
            "test_stream_reasoning_none": THOUGHTS,
            "test_invoke_reasoning_none": THOUGHTS,
            "test_reasoning_modes_behavior": THOUGHTS,
        },
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("name", SUITES)
def test_all_but_what_is_listed_passes(name: str, tmp_path: Path) -> None:
    files, reasons = SUITES[name]
    outcome = run_suite(corpus(name), files, tmp_path / "report.xml", ["-p", "foreign_models", "--noconftest"])
    failed = {item for item, result in outcome if result != "passed"}
    assert failed - reasons.keys() == set()
    assert reasons.keys() - failed == set(), "it passes: it needs no reason any more"
    assert sum(result == "passed" for _, result in outcome) >= (15 if name == "langchain-ollama" else 30)
