"""What LangChain is told about the model: agents and middleware decide by it."""

from __future__ import annotations

from langchain_core.language_models import ModelProfile

from langchain_mlx_agent.remote import AnyEngine


def model_profile(engine: AnyEngine | None, max_model_len: int | None = None) -> ModelProfile:
    """What every model here can do; only an engine knows whether it reasons.

    max_model_len: tokens of prompt and output together, as far as the model's files say it.
    """
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
    length = max_model_len if engine is None else engine.max_model_len
    if length is not None:
        profile["max_input_tokens"] = profile["max_output_tokens"] = length - 1
    if engine is not None:
        profile["reasoning_output"] = engine.can_reason
    return profile
