"""Generate, chat and ask for JSON on the demo model: prints each text, why it ended and how many tokens it took."""

from pydantic import BaseModel

from mlx_agent_llm import Engine, SamplingParams


class City(BaseModel):
    """What the answer is asked to be."""

    name: str
    country: str


def main() -> None:
    with Engine.load("demo") as engine:
        [output] = engine.generate(["The three primary colors are"], SamplingParams(max_tokens=16))
        print(f"generate: {output.text!r}, {output.finish_reason} after {output.usage.completion_tokens} tokens")

        question = [{"role": "user", "content": "What is the capital of France?"}]
        answer = engine.chat(question, params=SamplingParams(max_tokens=24))
        print(f"chat: {answer.text!r}, {answer.finish_reason} after {answer.usage.completion_tokens} tokens")

        # The grammar sees to the form; whether the values are right is up to the model.
        city = engine.chat(question, response_format=City, params=SamplingParams(max_tokens=24))
        print(f"parsed: {city.parsed or city.parse_error!r}")


if __name__ == "__main__":
    main()
