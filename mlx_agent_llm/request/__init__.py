"""One request: what is asked (SamplingParams), what it becomes (Request) and what comes back (Delta, RequestOutput)."""

from mlx_agent_llm.request.constraints import CheckedKeywords, Choice, Constraint, Grammar, JSONSchema, Regex
from mlx_agent_llm.request.draft import NO_DRAFT, Draft
from mlx_agent_llm.request.free_text import FreeText, TextPiece
from mlx_agent_llm.request.grammar import Budget, CompiledGrammar, ForcedTokens, Matcher
from mlx_agent_llm.request.kv_state import KVState, StateSpan
from mlx_agent_llm.request.output import Delta, FinishReason, RequestOutput, Timings, TokenLogprob, Usage
from mlx_agent_llm.request.params import MAX_LOGPROBS, SamplingDefaults, SamplingParams
from mlx_agent_llm.request.request import Request

__all__ = [
    "MAX_LOGPROBS",
    "NO_DRAFT",
    "Budget",
    "CheckedKeywords",
    "Choice",
    "CompiledGrammar",
    "Constraint",
    "Delta",
    "Draft",
    "FinishReason",
    "ForcedTokens",
    "FreeText",
    "Grammar",
    "JSONSchema",
    "KVState",
    "Matcher",
    "Regex",
    "Request",
    "RequestOutput",
    "SamplingDefaults",
    "SamplingParams",
    "StateSpan",
    "TextPiece",
    "Timings",
    "TokenLogprob",
    "Usage",
]
