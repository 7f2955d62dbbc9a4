"""Tool formats, one small file a family: how its models are told of tools, call them and get results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from mlx_agent_llm.chat.families.command_r import COMMAND_R
from mlx_agent_llm.chat.families.deepseek import DEEPSEEK_V3, DEEPSEEK_V31
from mlx_agent_llm.chat.families.gemma import FUNCTIONGEMMA, GEMMA4
from mlx_agent_llm.chat.families.generic_json import GENERIC_JSON
from mlx_agent_llm.chat.families.glm4 import GLM4, GLM47
from mlx_agent_llm.chat.families.granite import GRANITE
from mlx_agent_llm.chat.families.harmony import HARMONY
from mlx_agent_llm.chat.families.kimi_k2 import KIMI_K2
from mlx_agent_llm.chat.families.llama3_json import LLAMA3_JSON
from mlx_agent_llm.chat.families.minimax import MINIMAX_M2, MINIMAX_M3
from mlx_agent_llm.chat.families.mirothinker import MIROTHINKER
from mlx_agent_llm.chat.families.mistral import BRACKETS, MISTRAL, MISTRAL_V3
from mlx_agent_llm.chat.families.muse_glimmer import MUSE_GLIMMER
from mlx_agent_llm.chat.families.phi4 import PHI4
from mlx_agent_llm.chat.families.pythonic import LFM2, PYTHONIC
from mlx_agent_llm.chat.families.qwen3 import QWEN3
from mlx_agent_llm.chat.families.qwen3_coder import QWEN3_CODER
from mlx_agent_llm.chat.families.reasoning import APERTUS, APRIEL, KIMI_K3, SOLAR
from mlx_agent_llm.chat.families.smollm2 import SMOLLM2
from mlx_agent_llm.chat.families.xlam import XLAM
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import THINK, Reasoning
from mlx_agent_llm.errors import RequestError

# The first one whose signs a template holds is its format: what is special stands before what is general.
_FORMATS = (
    HARMONY,
    MUSE_GLIMMER,
    MIROTHINKER,
    KIMI_K2,
    DEEPSEEK_V3,
    DEEPSEEK_V31,
    MINIMAX_M3,
    MINIMAX_M2,
    GLM47,
    GLM4,
    QWEN3_CODER,
    FUNCTIONGEMMA,
    GEMMA4,
    COMMAND_R,
    MISTRAL,
    MISTRAL_V3,
    LFM2,
    PYTHONIC,
    PHI4,
    GRANITE,
    XLAM,
    QWEN3,
    LLAMA3_JSON,
    SMOLLM2,
    GENERIC_JSON,
)
TOOL_FORMATS: Mapping[str, ToolFormat] = MappingProxyType({one.name: one for one in _FORMATS})
MARKS_OF_REASONING = tuple(
    marks
    for marks in (
        MUSE_GLIMMER.reasoning,
        MINIMAX_M3.reasoning,
        HARMONY.reasoning,
        COMMAND_R.reasoning,
        GEMMA4.reasoning,
        KIMI_K3,
        SOLAR,
        APERTUS,
        APRIEL,
        BRACKETS,
    )
    if marks is not None
)
# Templates that show no calls, and by what else the form is known in which their models write them.
_MORE_SIGNS = ((("SmolLM", "reasoning_mode"), QWEN3), (("List of tools: [", "keep_past_thinking"), LFM2))


def find_by_signs(template: str, name: str = "auto") -> ToolFormat:
    """The format whose signs the source of a chat template holds, or the one of that name; RequestError for no name."""
    if name != "auto" and name not in TOOL_FORMATS:
        raise RequestError(f"tool_format={name!r} must be 'auto' or one of {', '.join(map(repr, TOOL_FORMATS))}")
    found = TOOL_FORMATS[name] if name != "auto" else _find(template)
    return replace(found, reasoning=_find_reasoning(template))


def _find(template: str) -> ToolFormat:
    known = (*_MORE_SIGNS, *((one.signs, one) for one in _FORMATS))
    return next(one for signs, one in known if all(sign in template for sign in signs))


def _find_reasoning(template: str) -> Reasoning | None:
    return next((marks for marks in (*MARKS_OF_REASONING, THINK) if marks.sign in template), None)


__all__ = ["MARKS_OF_REASONING", "TOOL_FORMATS", "ToolFormat", "find_by_signs"]
