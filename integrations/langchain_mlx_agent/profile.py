"""What LangChain is told about the model: agents and middleware decide by it."""

from __future__ import annotations

from langchain_core.language_models import ModelProfile

from mlx_agent_llm import Engine
from mlx_agent_llm.chat import tool_format


def model_profile(engine: Engine | None) -> ModelProfile:
    """What every model here can do; only an engine knows how long its context is and whether it reasons."""
    profile = ModelProfile(
        text_inputs=True,
        text_outputs=True,
        image_inputs=False,
        audio_inputs=False,
        video_inputs=False,
        pdf_inputs=False,
        tool_calling=True,
        tool_choice=True,
        tool_call_streaming=True,
        structured_output=True,
        open_weights=True,
    )
    if engine is not None:
        profile["max_input_tokens"] = profile["max_output_tokens"] = engine.max_model_len - 1
        profile["reasoning_output"] = tool_format(engine.tokenizer, engine.config.tool_format).reasoning is not None
    return profile
