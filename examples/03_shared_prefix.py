"""Eight requests at once on one long system prompt: prints what each took from the cache, and what was computed."""

import asyncio

from mlx_agent_llm import Engine, SamplingParams

HANDBOOK = """You answer visitors of the town library in one short sentence. This is what you know:
The library opens at 9 in the morning and closes at 6 in the evening. On Sundays it is closed.
A card costs 10 dollars a year and is free for children. Books can be kept for 3 weeks and films for 1 week.
A late book costs 20 cents a day. Two rooms on the first floor are for quiet work, one in the cellar is for groups.
The printer stands beside the entrance; a page costs 5 cents. Coffee is sold in the garden from April to October.
Mrs. Miller leads the library, Mr. Brown looks after the children's books, and Ms. Green repairs old maps."""
QUESTIONS = (
    "When do you open?",
    "When do you close?",
    "What does a card cost?",
    "How long can I keep a book?",
    "Where is the printer?",
    "Who leads the library?",
    "Who repairs old maps?",
    "Where is coffee sold?",
)


async def ask_all(engine: Engine) -> None:
    chats = [[{"role": "system", "content": HANDBOOK}, {"role": "user", "content": one}] for one in QUESTIONS]
    answers = await asyncio.gather(*(engine.achat(chat, params=SamplingParams(max_tokens=20)) for chat in chats))
    for question, answer in zip(QUESTIONS, answers, strict=True):
        usage = answer.usage
        print(f"{question} {answer.text!r}, {usage.cached_tokens} of {usage.prompt_tokens} prompt tokens cached")


def main() -> None:
    with Engine.load("demo") as engine:
        asyncio.run(ask_all(engine))
        stats = engine.stats()
    print(f"prompt tokens: {stats.prefix_query_tokens} asked for, {stats.num_prompt_tokens_computed} computed")
    print(f"prefix hit rate: {stats.prefix_hit_rate:.0%}, blocks shared at the most: {stats.peak_shared_blocks}")


if __name__ == "__main__":
    main()
