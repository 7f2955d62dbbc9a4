"""The chat page in a browser without a window: it sends, streams, stops, forks and reloads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from mlx_agent_llm.server.app import DrainingServer
from tests.support.foreign_models import ThinkingTokenizer
from tests.support.servers import ADD, ADD_CALL, client_of, listening, serving, thinking_engine, url_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

MARKDOWN = """# A heading

Some **bold** text, `code`, <b>no markup</b> and [a link](https://example.com).

1. one
2. two
   - inner

| a | b |
|---|---|
| 1 | 2 |

```python
print("hello")
```
"""


async def test_the_page_needs_no_key_and_nothing_from_elsewhere() -> None:
    with serving(["Hello."], keys=["secret"]) as app:
        async with client_of(app) as client:
            pages = {
                path: await client.get(path)
                for path in (
                    "/",
                    "/page/chat.js",
                    "/page/chat.css",
                    "/page/markdown.js",
                    "/page/wire.js",
                    "/page/engine.js",
                )
            }
            assert (await client.get("/page/route.py")).status_code == 401
            assert (await client.get("/page/route.py", headers={"x-api-key": "secret"})).status_code == 404
    for path, page in pages.items():
        assert page.status_code == 200, path
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "://" not in page.text.replace("https?://", "").replace(r"https?:\/\/", ""), path
    assert pages["/"].headers["content-type"].startswith("text/html")


def reply(prompt: str) -> str:
    said = prompt.rpartition("user")[2]
    if "forever" in said:
        return "Hello. " * 500
    if "markdown" in said:
        return MARKDOWN
    if "Who" in said:
        return '{"name": "Ada"}'
    return "It is 42." if "42" in said else ADD_CALL if "19" in said else "Hello to you."


@pytest.fixture(scope="module")
def server() -> Iterator[DrainingServer]:
    with listening(reply) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, server: DrainingServer) -> Iterator[Page]:
    context = browser.new_context()
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(url_of(server))
    page.wait_for_selector("#model option", state="attached")
    yield page
    context.close()
    assert problems == []


def say(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")


def wait_for_end(page: Page) -> None:
    page.wait_for_selector("#send:visible")


@pytest.mark.clients
def test_it_sends_streams_counts_and_remembers(page: Page) -> None:
    say(page, "Hi")
    wait_for_end(page)
    assert page.inner_text(".assistant .body") == "Hello to you."
    assert "prompt tokens" in page.inner_text(".assistant .foot") and "14 written" in page.inner_text(
        ".assistant .foot"
    )
    page.reload()
    page.wait_for_selector(".assistant .body")
    assert page.inner_text(".user .body") == "Hi" and page.inner_text(".assistant .body") == "Hello to you."
    say(page, "And again")
    wait_for_end(page)
    assert page.locator(".assistant").count() == 2
    page.wait_for_selector("#engine dl")
    assert "Prefix hits" in page.inner_text("#engine")


@pytest.mark.clients
def test_it_stops_and_the_server_stops_with_it(page: Page, server: DrainingServer) -> None:
    say(page, "forever")
    page.locator(".assistant .body", has_text="Hello. Hello.").wait_for()
    page.click("#stop")
    wait_for_end(page)
    assert "stopped" in page.inner_text(".assistant .foot")
    engine = server.service.models.models[0].engine
    assert engine is not None
    page.wait_for_timeout(300)
    assert engine.stats().num_running == 0


@pytest.mark.clients
def test_markdown_becomes_elements_and_never_markup(page: Page) -> None:
    say(page, "markdown")
    wait_for_end(page)
    body = page.locator(".assistant .body")
    assert body.locator("h1").inner_text() == "A heading"
    assert body.locator("ol > li").count() == 2 and body.locator("ol ul > li").inner_text() == "inner"
    assert body.locator("td").all_inner_texts() == ["1", "2"]
    assert body.locator("pre code").inner_text() == 'print("hello")'
    assert body.locator("a").get_attribute("href") == "https://example.com"
    assert body.locator("b").count() == 0 and "<b>no markup</b>" in body.inner_text()


@pytest.mark.clients
def test_it_shows_calls_takes_their_results_and_shows_objects(page: Page) -> None:
    page.click("summary")
    page.fill("#tools", json.dumps([ADD]))
    say(page, "What is 19 + 23?")
    wait_for_end(page)
    assert page.inner_text(".call .name") == "add" and '"a": 19' in page.inner_text(".call pre")
    page.fill(".call input", "42")
    page.click(".call button")
    page.locator(".assistant").nth(1).wait_for()
    wait_for_end(page)
    assert page.locator(".assistant .body").nth(1).inner_text() == "It is 42."
    page.click("#new")
    page.fill("#tools", "")
    page.fill("#schema", '{"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}')
    say(page, "Who?")
    wait_for_end(page)
    assert json.loads(page.inner_text(".assistant pre")) == {"name": "Ada"}


@pytest.mark.clients
def test_a_fork_goes_on_beside_its_chat(page: Page) -> None:
    for text in ("Hi", "And again"):
        say(page, text)
        wait_for_end(page)
    page.locator(".assistant .foot button").first.click()
    assert page.locator("#chats li").count() == 2 and page.locator(".turn").count() == 2
    say(page, "Another way")
    wait_for_end(page)
    assert page.locator(".turn").count() == 4
    page.locator("#chats .name").first.click()
    assert page.locator(".user .body").all_inner_texts() == ["Hi", "And again"]


@pytest.mark.clients
def test_errors_are_shown(page: Page) -> None:
    page.click("summary")
    page.fill("#schema", "{")
    say(page, "Hi")
    assert "no JSON" in page.inner_text("#problem")


@pytest.mark.clients
def test_reasoning_is_folded_and_a_key_is_asked_for(browser: Any) -> None:
    engine = thinking_engine("<think>Who was it?</think>Ada.")
    assert isinstance(engine.tokenizer, ThinkingTokenizer)
    with listening(engine, keys=["secret"]) as server:
        page = browser.new_page()
        page.goto(url_of(server))
        page.wait_for_selector("#key:visible")
        page.fill("#key", "secret")
        page.press("#key", "Tab")
        page.wait_for_selector("#model option", state="attached")
        say(page, "Who?")
        wait_for_end(page)
        assert page.inner_text(".assistant .body") == "Ada."
        assert not page.locator(".reasoning div").is_visible()
        page.click(".reasoning summary")
        assert page.inner_text(".reasoning div") == "Who was it?"
        page.context.close()
