import io
import sys

import pytest

from mlx_agent_llm.models.progress import loading_bar


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "shows"), [(Terminal(), True), (io.StringIO(), False)])
def test_only_a_terminal_shows_what_is_loaded(
    stream: io.StringIO, shows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with loading_bar("model.gguf", 2000) as advance:
        advance(500)
        advance(1500)
    assert ("loading model.gguf" in stream.getvalue()) is shows
