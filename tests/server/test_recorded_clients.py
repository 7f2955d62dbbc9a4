"""What clients send by their public documentation, as fixtures: every request is answered right."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlx_agent_llm import Engine
from mlx_agent_llm.models import LoadedModel
from mlx_agent_llm.server.gate import Gate
from tests.support.servers import CONFIG, client_of, events_of, serving

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = sorted(path.stem for path in FIXTURES.glob("*.json"))
RULES = "Read a file before you change it. Run the tests. "
TITLE, NOTE = '{"title": "Two files"}', "There is one: buy milk."
ARGUMENTS = '"arguments": {"path": "notes.txt"}'


def reply(prompt: str) -> str:
    """What the model says to the fixtures' conversations."""
    if "Buy milk." in prompt:
        return NOTE
    if "notes.txt?" in prompt:
        name = "Read" if '"Read"' in prompt else "read_file"
        return f'<tool_call>{{"name": "{name}", {ARGUMENTS}}}</tool_call>'
    return TITLE if "Name this" in prompt else "Hello."


async def send(app: Gate, name: str, num_rules: int = 60) -> tuple[httpx.Response, Any]:
    """The response to a fixture's request, and what the fixture expects."""
    fixture = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    body = json.dumps(fixture["body"]).replace("{rules}", RULES * num_rules)
    async with client_of(app, **{"content-type": "application/json", **fixture["headers"]}) as client:
        return await client.post(fixture["path"], content=body), fixture["expected"]


def answer_of(path: str, response: httpx.Response) -> dict[str, Any]:
    """The text and the calls of an answer, as its client adds them up."""
    if not response.headers["content-type"].startswith("text/event-stream"):
        assert response.status_code == 200, response.text
        return {"text": response.json()["choices"][0]["message"]["content"]}
    events = [event for event in events_of(response) if isinstance(event, dict)]
    if path == "/v1/responses":
        return answer_of_items(events[-1]["response"]["output"])
    return answer_of_deltas(events) if path == "/v1/messages" else answer_of_chunks(events)


def answer_of_items(items: list[Any]) -> dict[str, Any]:
    last = items[-1]
    if last["type"] == "message":
        return {"text": last["content"][0]["text"]}
    return {"call": {"name": last["name"], "arguments": json.loads(last["arguments"])}}


def answer_of_deltas(events: list[Any]) -> dict[str, Any]:
    text = "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")
    given = "".join(
        event["delta"].get("partial_json", "") for event in events if event["type"] == "content_block_delta"
    )
    names = [event["content_block"].get("name") for event in events if event["type"] == "content_block_start"]
    return {"text": text} if text else {"call": {"name": names[-1], "arguments": json.loads(given)}}


def answer_of_chunks(chunks: list[Any]) -> dict[str, Any]:
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    text = "".join(delta.get("content") or "" for delta in deltas)
    calls = [call["function"] for delta in deltas for call in delta.get("tool_calls", ())]
    if text:
        return {"text": text}
    return {"call": {"name": calls[0]["name"], "arguments": json.loads("".join(call["arguments"] for call in calls))}}


@pytest.mark.parametrize("name", NAMES)
async def test_a_clients_request_is_answered_right(name: str) -> None:
    with serving(reply) as app:
        response, expected = await send(app, name)
    if "fields" in expected:
        assert response.status_code == 200 and list(response.json()) == expected["fields"], response.text
    else:
        assert answer_of(response.request.url.path, response) == expected


async def check_the_second_turn(app: Gate, num_rules: int) -> None:
    """Its header and its nudge are new; all else is found."""
    await send(app, "claude_code_first", num_rules)
    response, _ = await send(app, "claude_code_second", num_rules)
    [usage] = [event["usage"] for event in events_of(response) if event["type"] == "message_delta"]
    assert usage["cache_read_input_tokens"] >= 0.95 * (usage["input_tokens"] + usage["cache_read_input_tokens"])


async def test_the_second_turn_of_a_coding_client_finds_its_prefix() -> None:
    with serving(reply) as app:
        await check_the_second_turn(app, 100)


@pytest.mark.long
async def test_the_second_turn_of_a_coding_client_finds_its_prefix_on_the_demo_model(demo: LoadedModel) -> None:
    with serving(Engine(demo, CONFIG)) as app:
        await check_the_second_turn(app, 250)
