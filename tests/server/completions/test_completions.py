"""OpenAI's completions: prompts are run as they stand."""

from typing import Any

import pytest

from tests.support.servers import ask, breaking, events_of, serving

PROMPT = "<|im_start|>assistant\n"


async def send(app: Any, prompt: Any = PROMPT, **options: Any) -> Any:
    return await ask(app, "/v1/completions", {"model": "default", "prompt": prompt, **options})


async def test_prompts_of_every_form_are_continued() -> None:
    with serving(["Hello."]) as app:
        token_ids = (await ask(app, "/v1/tokenize", {"model": "default", "prompt": PROMPT})).json()["tokens"]
        forms: list[Any] = [PROMPT, [PROMPT, PROMPT], token_ids, [token_ids, token_ids]]
        answers = [(await send(app, form)).json() for form in forms]
    assert [[choice["text"] for choice in answer["choices"]] for answer in answers] == [
        ["Hello."] * count for count in (1, 2, 1, 2)
    ]
    assert answers[1]["usage"]["prompt_tokens"] == 2 * answers[0]["usage"]["prompt_tokens"]
    assert answers[0]["choices"][0]["finish_reason"] == "stop"


async def test_a_stream_says_what_the_whole_says() -> None:
    options: dict[str, Any] = {"n": 2, "logprobs": 1, "max_tokens": 4}
    with serving(["Hello."]) as app:
        whole = (await send(app, **options)).json()
        *chunks, usage, done = events_of(
            await send(app, stream=True, stream_options={"include_usage": True}, **options)
        )
    assert done == "[DONE]" and usage["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"] == 8
    for index, choice in enumerate(whole["choices"]):
        own = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert "".join(one["text"] for one in own) == choice["text"] == "Hell"
        for name in ("tokens", "token_logprobs", "text_offset"):
            assert [value for one in own for value in one["logprobs"][name]] == choice["logprobs"][name]
        assert own[-1]["finish_reason"] == choice["finish_reason"] == "length"


async def test_a_constraint_holds() -> None:
    with serving(["Hello."]) as app:
        answer = (await send(app, structured_outputs={"regex": "[0-9]{2}"}, temperature=1, seed=1)).json()
    assert answer["choices"][0]["text"].isdigit()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"echo": True}, "echo"), ({"suffix": "x"}, "suffix"), ({"best_of": 2}, "best_of"), ({"n": 99}, "n=99")],
)
async def test_what_is_not_supported_is_named(options: dict[str, Any], message: str) -> None:
    with serving(["Hello."]) as app:
        response = await send(app, **options)
    assert response.status_code == 400 and message in response.json()["error"]["message"]


@pytest.mark.parametrize("prompt", ["", [], [[]], [9999], ["a", 1]])
async def test_a_prompt_that_is_none_is_refused(prompt: Any) -> None:
    with serving(["Hello."]) as app:
        response = await send(app, prompt)
    assert response.status_code == 400 and "prompt" in response.json()["error"]["message"]


async def test_a_stream_that_fails_ends_with_an_error_and_its_terminator() -> None:
    with serving(breaking("Hello, world.", after=6)) as app:
        *_, error, done = events_of(await send(app, stream=True))
    assert error["error"]["type"] == "server_error" and done == "[DONE]"
