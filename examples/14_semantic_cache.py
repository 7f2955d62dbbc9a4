"""Keeps a tool's answers by the meaning of what it was asked: prints what was looked up, and every answer."""

from collections.abc import Callable

import numpy as np

from mlx_agent_llm import Embedder

QUESTIONS = (
    "When does the ferry leave?",
    "At what time does the ferry depart?",
    "When does the library open?",
    "When does the library close?",
)
THRESHOLD = 0.88  # of the cosine; "open" and "close" have 0.85 here, paraphrases 0.91: measure it on your questions


class SemanticCache:
    """A tool that is called only for questions that are unlike all earlier ones."""

    def __init__(self, tool: Callable[[str], str], embedder: Embedder) -> None:
        self._tool, self._embedder = tool, embedder
        self._vectors = np.empty((0, embedder.dimensions), np.float32)
        self._answers: list[str] = []

    def __call__(self, question: str) -> str:
        """The tool's answer to this question or to the one most like it."""
        vector = self._embedder.embed([question], prompt_name="query")
        cosines = (self._vectors @ vector.T)[:, 0]
        if cosines.max(initial=-1) < THRESHOLD:
            self._vectors = np.concatenate([self._vectors, vector])
            self._answers.append(self._tool(question))
            return self._answers[-1]
        return self._answers[cosines.argmax()]


def look_up(question: str) -> str:
    print(f"looked up: {question}")
    return f"what was found for {question!r}"


with Embedder.load("demo-embedder") as embedder:
    ask = SemanticCache(look_up, embedder)
    for question in QUESTIONS:
        print(f"{question} {ask(question)}")
