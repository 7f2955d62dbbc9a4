"""A batch of four prompts, a stream beside a running request, two streams on one event loop: prints what comes."""

import asyncio

from mlx_agent_llm import Engine, SamplingParams

PARAMS = SamplingParams(max_tokens=12)


async def show(engine: Engine, prompt: str) -> None:
    async for delta in engine.astream(prompt, PARAMS):
        print(f"  {prompt!r} goes on with {delta.text!r}")


async def show_both(engine: Engine) -> None:
    await asyncio.gather(show(engine, "The sun is"), show(engine, "The moon is"))


def main() -> None:
    with Engine.load("demo") as engine:
        print("one batch:")
        for output in engine.generate(["A cat", "A dog", "A bird", "A fish"], PARAMS):
            print(f"  {output.text!r} after {output.timings.total:.1f} s")

        print("a stream while another request runs:")
        handle = engine.submit("Once upon a time", PARAMS)  # returns at once; the handle can be cancelled
        print("  The sea is" + "".join(delta.text for delta in engine.stream("The sea is", PARAMS)))
        print(f"  meanwhile: {handle.result().text!r}")

        print("two streams on one event loop:")
        asyncio.run(show_both(engine))
        print(f"largest batch: {engine.stats().max_batch_size} rows")


if __name__ == "__main__":
    main()
