"""Qwen3-Reranker: a causal model that is asked whether a document answers a query, and says yes or no.

The prompt is that of its makers (Qwen3 Embedding, arXiv:2506.05176); the score is the probability of "yes" beside "no".
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from mlx_agent_llm.errors import ModelLoadError
from mlx_agent_llm.models.embedders.text_tokenizer import TokenizedTexts
from mlx_agent_llm.models.tokenizer import Tokenizer

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
MAX_TOKENS = 8192  # as its makers use it
_BEFORE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
_AFTER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


class Judge:
    """Prompts of pairs as token ids, and scores from the logits after them."""

    def __init__(self, tokenizer: Tokenizer, instruction: str, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._tokenizer = tokenizer
        self._instruction = instruction
        self._before, self._after = self._encode(_BEFORE), self._encode(_AFTER)
        self._yes, self._no = (self._token_id(word) for word in ("yes", "no"))

    def tokenize_pairs(self, pairs: Sequence[tuple[str, str]]) -> TokenizedTexts:
        """Prompts of queries and documents; of one that is too long, the document loses its end."""
        num_free = self.max_tokens - len(self._before) - len(self._after)
        asked = [self._encode(self._question(query, document)) for query, document in pairs]
        token_ids = [[*self._before, *ids[:num_free], *self._after] for ids in asked]
        return TokenizedTexts(
            token_ids, list(map(len, token_ids)), [index for index, ids in enumerate(asked) if len(ids) > num_free]
        )

    def read(self, logits: mx.array) -> mx.array:
        """Logits (S, vocab) -> scores (S, 1) in float32."""
        logits = logits.astype(mx.float32)
        return mx.sigmoid(logits[:, self._yes] - logits[:, self._no])[:, None]

    def _question(self, query: str, document: str) -> str:
        return f"<Instruct>: {self._instruction}\n<Query>: {query}\n<Document>: {document}"

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _token_id(self, word: str) -> int:
        token_ids = self._encode(word)
        if len(token_ids) != 1:
            raise ModelLoadError(f"{word!r} is {len(token_ids)} tokens: this is no tokenizer of Qwen3-Reranker")
        return token_ids[0]
