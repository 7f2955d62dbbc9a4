"""Marks of reasoning that templates show in part, or not as one tag each."""

from __future__ import annotations

from mlx_agent_llm.chat.reply.syntax import Reasoning

# Here are my reasoning steps: ... [BEGIN FINAL RESPONSE]
APRIEL = Reasoning("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]", sign="[BEGIN FINAL RESPONSE]")

# <|inner_prefix|> ... <|inner_suffix|>
APERTUS = Reasoning("<|inner_prefix|>", "<|inner_suffix|>", sign="<|inner_prefix|>")

# <|open|>think<|sep|> ... <|close|>think<|sep|><|open|>response<|sep|>
KIMI_K3 = Reasoning(
    "<|open|>think<|sep|>",
    "<|close|>think<|sep|>",
    sign="<|open|>think<|sep|>",
    bridge="<|open|>response<|sep|>",
    gap=0,
)

# <|think|> ... <|end|><|begin|>assistant
SOLAR = Reasoning("<|think|>", "<|end|>", sign="<|think|>", bridge="<|begin|>assistant", gap=0)
