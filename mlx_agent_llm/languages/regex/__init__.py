"""Regular expressions as regular languages."""

from mlx_agent_llm.languages.regex.parser import parse_full_match, parse_regex

__all__ = ["parse_full_match", "parse_regex"]
