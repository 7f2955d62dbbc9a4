"""The tokenizer of a model that is elsewhere, as far as the frameworks' classes use one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import overload

from mlx_agent_llm.remote.server import RemoteServer


class KnownTokenBytes(Sequence[bytes]):
    """Token id -> the bytes that it adds to the text, of the tokens that log-probabilities have named so far."""

    def __init__(self) -> None:
        self._known: dict[int, bytes] = {}

    def learn(self, token_bytes: Mapping[int, bytes]) -> None:
        """Take what a frame says."""
        self._known.update(token_bytes)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        assert isinstance(index, int)
        return self._known[index]

    def __len__(self) -> int:
        return len(self._known)


class RemoteTokenizer:
    """chat_template: the model's, None where it has none. token_bytes: of those tokens that an answer has named."""

    def __init__(self, server: RemoteServer, model: str, chat_template: str | None) -> None:
        self._server = server
        self._model = model
        self.chat_template = chat_template
        self.token_bytes = KnownTokenBytes()

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The token ids of a text."""
        body = {"model": self._model, "prompt": text, "add_special_tokens": add_special_tokens}
        token_ids: list[int] = self._server.ask("/v1/tokenize", body)["tokens"]
        return token_ids
