"""Tool formats, one file a family."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mlx_agent_llm.chat.tool_formats.base import CallParser, ToolFormat
from mlx_agent_llm.chat.tool_formats.generic_json import GenericJSON

TOOL_FORMATS: Mapping[str, ToolFormat] = MappingProxyType({"generic_json": GenericJSON()})

__all__ = ["TOOL_FORMATS", "CallParser", "GenericJSON", "ToolFormat"]
