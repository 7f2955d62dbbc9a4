"""LangChain's and LangGraph's own tests of agents, with our class in place of their fake models.

They run as they come, over a model that wants to say what the fake would. What does not pass stands here with its
reason, and nothing else may.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.corpora import corpus
from tests.support.foreign_suite import run_suite

GRAMMAR = "its model breaks a schema: the grammar lets none do that"
NATIVE = "its model calls a tool for the value: the profile says that it can be asked for itself"
UNBOUND = "its model calls a tool that was not bound, which is a text"
BY_NAME = "its model binds tools by name alone: they have no arguments"
EMPTY = "asks without a message"
LONG = "its model says the whole conversation again and again: longer than the context"
CHUNKS = "counts chunks: there is one for each token"
PROFILE = "wants a model without a profile"
NAME = "wants a model of another name than its engine serves"
PROVIDER = "binds a tool that runs at a provider"
OPENAI = "OpenAI's classes"
OTHERS = "fails with the fake model of the suite, too, beside the versions that are installed here"

SUITES: dict[str, tuple[list[str], int, dict[str, str]]] = {
    "langchain": (
        # One measures how fast it is, the other wants a package that is not installed.
        ["tests/unit_tests/agents", "-k", "not constant_backoff and not missing_langchain_anthropic"],
        1050,
        {
            "test_structured_output_retry_first_attempt_invalid": GRAMMAR,
            "test_structured_output_retry_exceeds_max_retries": GRAMMAR,
            "test_structured_output_retry_validation_error": GRAMMAR,
            "test_structured_output_retry_zero_retries": GRAMMAR,
            "test_structured_output_retry_preserves_messages": GRAMMAR,
            "test_structured_output_parsing_error_without_retry": GRAMMAR,
            "test_structured_output_parsing_error_with_retry": GRAMMAR,
            "test_retry_with_custom_string_message": GRAMMAR,
            "test_validation_error_with_invalid_response": GRAMMAR,
            "test_tool_invocation_error_excludes_injected_state": GRAMMAR,
            "test_tool_invocation_error_excludes_injected_state_async": GRAMMAR,
            "test_create_agent_error": GRAMMAR,
            "test_create_agent_error_async": GRAMMAR,
            "test_default_raises_after_max_retries_exhausted": GRAMMAR,
            "test_async_default_raises_after_max_retries_exhausted": GRAMMAR,
            "test_max_retries_zero_gives_up_immediately": GRAMMAR,
            "test_on_parsing_failure_none_selects_no_tools": GRAMMAR,
            "test_on_parsing_failure_all_ignores_max_tools": GRAMMAR,
            "test_on_parsing_failure_callable_receives_response": GRAMMAR,
            "test_pydantic_model": NATIVE,
            "test_dataclass": NATIVE,
            "test_typed_dict": NATIVE,
            "test_json_schema": NATIVE,
            "test_wrap_model_call_narrows_response_format_tools": UNBOUND,
            "test_non_emulated_tools_execute_normally": BY_NAME,
            "test_empty_tools_to_emulate_does_nothing": BY_NAME,
            "test_mixed_emulated_and_real_tools": BY_NAME,
            "test_async_non_emulated_tools_execute_normally": BY_NAME,
            "test_async_mixed_emulated_and_real_tools": BY_NAME,
            "test_primary_model_succeeds": EMPTY,
            "test_primary_model_succeeds_async": EMPTY,
            "test_fallback_on_primary_failure": EMPTY,
            "test_fallback_on_primary_failure_async": EMPTY,
            "test_multiple_fallbacks": EMPTY,
            "test_multiple_fallbacks_async": EMPTY,
            "test_todo_middleware_agent_creation_with_middleware": LONG,
            "test_todo_middleware_agent_creation_with_middleware_async": LONG,
            "test_internal_whole_message_excluded_from_raw_event_log": CHUNKS,
            "test_summarization_middleware_initialization": PROFILE,
            "test_blocks_gemini_v2_with_tools": NAME,
            "test_allows_gemini_v3_with_tools": NAME,
            "test_blocks_gemini_latest_aliases": NAME,
            "test_openai_fallback_preserves_cache_key": OPENAI,
            "test_inference_to_native_output": OPENAI,
            "test_inference_to_tool_output": OPENAI,
            "test_strict_mode": OPENAI,
            "test_responses_integration_matrix": OPENAI,
            "test_return_direct_integration_matrix": OPENAI,
            "test_create_agent_jump": OTHERS,
            "test_simple_agent_graph": OTHERS,
            "test_agent_graph_with_jump_to_end_as_after_agent": OTHERS,
            "test_agent_graph_without_return_direct_tools": OTHERS,
            "test_agent_graph_with_return_direct_tool": OTHERS,
            "test_agent_graph_with_mixed_tools": OTHERS,
        },
    ),
    "langgraph-prebuilt": (
        ["tests"],
        220,
        {
            "test_model_with_tools": PROVIDER,
            "test_tool_node_messages_key": UNBOUND,
            "test_dynamic_model_with_tools": UNBOUND,
            "test_dynamic_model_state_dependent_tools": UNBOUND,
            "test_react_agent_subgraph_streaming_sync": CHUNKS,
            "test_react_agent_subgraph_streaming": CHUNKS,
            "test_tool_node_send_tool_call_gets_same_state_as_edge": OTHERS,
        },
    ),
}


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SUITES)
def test_agents_behave_as_with_their_fake_models_but_for_what_is_listed(name: str, tmp_path: Path) -> None:
    files, least, reasons = SUITES[name]
    options = ["-p", "foreign_agents", "-n", "2"]
    outcome = run_suite(corpus(name), files, tmp_path / "report.xml", options, timeout=3000)
    failed = {item for item, result in outcome if result in ("failure", "error")}
    assert failed - reasons.keys() == set()
    assert reasons.keys() - failed == set(), "it passes: it needs no reason any more"
    assert sum(result == "passed" for _, result in outcome) >= least
