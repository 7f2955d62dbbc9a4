"""Read a folder of documents into JSONL, all at once, with a progress bar: run it again and it goes on where it was."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Literal

from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel, Field
from rich.progress import Progress

from langchain_mlx_agent import ChatMLXAgent


class Event(BaseModel):  # noqa: D101
    title: str = Field(max_length=40)
    day: int = Field(ge=1, le=31)
    month: Literal["May", "June", "July", "August"]
    price: int = Field(ge=0, le=500)


def question(path: Path) -> str:
    return f"What is announced here?\n{path.read_text(encoding='utf-8')}"


async def extract(folder: Path, output: Path) -> None:
    output.touch()
    done = {json.loads(line)["document"] for line in output.read_text().splitlines()}
    paths = [path for path in sorted(folder.glob("*.txt")) if path.name not in done]
    print(f"{len(done)} documents were done before, {len(paths)} are left")
    with ChatMLXAgent(model="demo", max_tokens=96) as chat, Progress() as progress, output.open("a") as lines:
        task = progress.add_task("documents", total=len(paths))
        events = RunnableLambda(question) | chat.with_structured_output(Event)
        async for index, event in events.abatch_as_completed(paths, {"max_concurrency": 32}, return_exceptions=True):
            if isinstance(event, Exception):
                progress.print(f"skipped {paths[index].name}: {event}")
            else:
                print(json.dumps({"document": paths[index].name, **event.model_dump()}), file=lines, flush=True)
            progress.advance(task)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "documents"
    asyncio.run(extract(folder, Path(sys.argv[2] if len(sys.argv) > 2 else "events.jsonl")))
