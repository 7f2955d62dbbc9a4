"""What callers hand over as texts, checked before anything is computed, and what they are told of long ones."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence

from mlx_agent_llm.errors import RequestError


def check_texts(name: str, texts: Sequence[str]) -> None:
    """Raise a RequestError unless texts is a list of at least one text; name: what the caller calls it."""
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise RequestError(f"{name} must be a list of texts, not {type(texts).__name__}")
    if not texts:
        raise RequestError(f"{name}=[] must hold at least one text")
    for index, text in enumerate(texts):
        check_text(f"{name}[{index}]", text)


def check_text(name: str, text: str) -> None:
    """Raise a RequestError unless it is a text; a lone surrogate is no character, and no tokenizer takes it."""
    if not isinstance(text, str):
        raise RequestError(f"{name}={text!r:.60} must be a text, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"{name} holds a lone surrogate at {error.start}") from None


class TruncationWarning:
    """Tells the callers of a model once that texts are cut."""

    def __init__(self) -> None:
        self._told = threading.Lock()  # taken once

    def tell(self, num_truncated: int, num_texts: int, max_tokens: int) -> None:
        """A UserWarning, the first time that any are."""
        if num_truncated and self._told.acquire(blocking=False):
            message = f"{num_truncated} of {num_texts} texts are cut to the {max_tokens} tokens of the model"
            warnings.warn(f"{message}; later ones are without a warning", stacklevel=4)
