"""Which models may draft for which."""

from dataclasses import replace

import pytest

from mlx_agent_llm import UnsupportedModelError
from mlx_agent_llm.engine.draft_model import check_same_vocabulary
from mlx_agent_llm.models import from_parts
from mlx_agent_llm.testing import ByteTokenizer, ScriptedModel


class OtherTokenizer(ByteTokenizer):
    @property
    def token_bytes(self) -> list[bytes]:  # type: ignore[override]
        return [*super().token_bytes[:65], b"<A>", *super().token_bytes[66:]]


def test_a_draft_model_of_another_vocabulary_is_refused_with_the_first_token_that_differs() -> None:
    model = ScriptedModel(["x"])
    loaded = from_parts(model, model.tokenizer)
    check_same_vocabulary(loaded, replace(loaded, name="small"))
    message = r"draft_model='small' has another vocabulary than .*: token 65 is b'<A>' there and b'A' here"
    with pytest.raises(UnsupportedModelError, match=message):
        check_same_vocabulary(loaded, replace(loaded, name="small", tokenizer=OtherTokenizer()))
