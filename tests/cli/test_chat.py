"""mlx-agent chat: through a pipe and a terminal, with tools, on a model that says what it is told to."""

import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from select import select
from typing import Any

import pytest
import uvicorn
from mcp.server.fastmcp import FastMCP
from rich.console import Console
from starlette.responses import PlainTextResponse
from typer.testing import CliRunner

from mlx_agent_llm import Engine
from mlx_agent_llm.chat import ToolCall
from mlx_agent_llm.cli.app import app
from mlx_agent_llm.cli.chat.mcp_servers import ServerEntry, why
from mlx_agent_llm.cli.chat.screen import Screen
from mlx_agent_llm.testing import ScriptedModel
from tests.support.engines import MakeEngine

TOOLS = '''
"""Tools of a test."""
from math import sqrt

def double(number: int) -> int:
    """Twice a number."""
    return 2 * number

def fail(reason: str) -> str:
    """Always fails."""
    raise ValueError(reason)

def _private(x):
    return x
'''
MCP_SERVER = '''
import os
from mcp.server.fastmcp import FastMCP
server = FastMCP("test", log_level="ERROR")

@server.tool()
def shout(text: str) -> str:
    """Make a text loud."""
    return text.upper() + os.environ.get("MARK", "") + os.environ.get("SECRET_OF_THE_PARENT", "")

server.run()
'''
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> Run:
    """run(replies, lines, *arguments): exit code, standard output and standard error."""

    def run_chat(replies: Sequence[str], lines: str, *arguments: str) -> tuple[int, str, str]:
        engine = make_engine(ScriptedModel(replies), kv_cache_tokens=16384)
        monkeypatch.setattr(Engine, "load", lambda name: engine)
        result = CliRunner().invoke(app, ["chat", "scripted", *arguments], input=lines, env={"COLUMNS": "200"})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    return run_chat


def call(name: str, **arguments: object) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


@pytest.fixture
def tools_file(tmp_path: Path) -> str:
    (tmp_path / "my_tools.py").write_text(TOOLS)
    return str(tmp_path / "my_tools.py")


def test_lines_of_a_pipe_are_answered_with_what_was_said_before(run: Run) -> None:
    code, printed, _ = run(["first answer", "second answer"], "one\ntwo\n/history\n")
    assert code == 0
    assert printed.splitlines() == [
        *("first answer", "second answer"),
        *("user: one", "assistant: first answer", "user: two", "assistant: second answer"),
    ]


def test_undo_takes_the_last_turn_back_and_fork_keeps_the_other_branch(run: Run) -> None:
    _, printed, _ = run(["A", "B"], "one\n/fork\n/undo\n/history\nagain\n/branch 0\n/history\n")
    assert printed.splitlines() == [
        *("A", "branch 1 of 2", "taken back", "no message yet", "A"),
        *("branch 0: 2 messages", "user: one", "assistant: A"),
    ]


def test_a_saved_chat_goes_on(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    run(["A", "B"], f"one\n/save {file}\n")
    assert json.loads(file.read_text()) == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "A"},
    ]
    _, printed, _ = run(["A", "B"], "two\n", "--continue", str(file), "--system", "Be short.")
    assert printed == "B\n"


def test_json_is_the_conversation_and_alone_on_standard_output(run: Run) -> None:
    code, printed, errors = run(["A"], "one\n/history\n", "--json", "-")
    assert code == 0 and "assistant: A" in errors
    assert json.loads(printed)["messages"] == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "A"},
    ]


def test_stats_tell_of_the_last_answer_and_the_engine(run: Run) -> None:
    _, printed, _ = run(["A"], "one\n/stats\n")
    assert "2 new; first token after" in printed and "tokens generated" in printed


def test_a_command_that_is_none_is_one_line_and_the_chat_goes_on(run: Run) -> None:
    code, printed, errors = run(["A"], "/what\n/branch 7\n/save\none\n")
    assert code == 3 and printed == "A\n"
    assert errors.splitlines() == [
        "/what is no command; /help shows those that there are",
        "/branch 7 must be a number from 0 to 0",
        "/save needs the name of a file",
    ]


def test_a_message_that_fails_is_taken_back(run: Run) -> None:
    code, printed, errors = run(["A"], "x" * 20000 + "\n/history\n")
    assert code == 3 and "no message yet" in printed and "max_model_len=8192" in errors


def test_a_tool_of_a_file_is_called_and_its_result_answered(run: Run, tools_file: str) -> None:
    replies = [call("double", number=21), "It is 42."]
    code, printed, _ = run(replies, "What is twice 21?\n", "--tools", tools_file, "--yes")
    assert code == 0
    assert "→ double(number=21)\n← 42\nIt is 42.\n" in printed


def test_a_model_that_would_rather_talk_calls_first_where_it_has_to(run: Run, tools_file: str) -> None:
    replies = ["It is 7.", "It is 14."]
    _, printed, _ = run(replies, "What is twice 7?\n", "--tools", tools_file, "--yes")
    assert printed == "It is 7.\n"
    _, printed, _ = run(replies, "What is twice 7?\n", "--tools", tools_file, "--yes", "--call-first")
    assert printed.startswith("→ ") and printed.endswith("\nIt is 14.\n") and printed.count("→") == 1
    code, _, errors = run(replies, "", "--call-first")
    assert code == 2 and "--call-first: it needs --tools or --mcp" in " ".join(errors.replace("│", " ").split())


def test_the_end_of_the_input_is_no_leave_to_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", end)
    screen = Screen(Console(), is_plain_text=False, runs_all_calls=False)
    assert not screen.may_call(ToolCall("1", "double", {"number": 1}, '{"number": 1}'))


def test_a_tool_that_fails_is_told_to_the_model(run: Run, tools_file: str) -> None:
    _, printed, _ = run([call("fail", reason="no luck"), "Sorry."], "Try.\n", "--tools", tools_file, "--yes")
    assert "← error: ValueError: no luck\nSorry." in printed


def test_calls_run_unasked_only_with_yes(run: Run, tools_file: str) -> None:
    code, _, errors = run([], "hello\n", "--tools", tools_file)
    assert code == 2 and "--yes" in errors


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("def f(x: int) -> int:\n  return (", "cannot be imported: SyntaxError"),
        ("import no_such_module", "cannot be imported: ModuleNotFoundError"),
        ("def f(x):\n    return x", "parameter 'x' needs an annotation"),
        ("NOTHING = 1", "defines no public function"),
    ],
)
def test_a_broken_tools_file_is_told_before_the_model_is_loaded(
    text: str, problem: str, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "broken.py"
    file.write_text(text)
    code, _, errors = run([], "", "--tools", str(file), "--yes")
    assert code == 2 and problem in " ".join(errors.replace("│", " ").split()) and "Traceback" not in errors


def test_answers_are_json_of_the_schema(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text('{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}')
    _, printed, _ = run(['{"a": 7}'], "one\n", "--schema", str(file))
    assert json.loads(printed) == {"a": 7}


@pytest.mark.parametrize("schema", ["nothing.json", "no_such_module:Model", "json:JSONDecoder", "nothing"])
def test_a_schema_that_is_none_is_told(schema: str, run: Run) -> None:
    code, _, errors = run([], "", "--schema", schema)
    assert code == 2 and "--schema" in errors and "Traceback" not in errors


def test_tools_of_an_mcp_server_are_called_and_a_broken_entry_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_PARENT", "secret")
    (tmp_path / "server.py").write_text(MCP_SERVER)
    servers = {
        "broken": {"command": "no-such-program"},
        "odd": {"args": []},
        "good": {"command": sys.executable, "args": [str(tmp_path / "server.py")], "env": {"MARK": "!"}},
    }
    file = tmp_path / "servers.json"
    file.write_text(json.dumps({"mcpServers": servers}))
    code, printed, errors = run([call("shout", text="hey"), "Done."], "Shout.\n", "--mcp", str(file), "--yes")
    assert code == 0, errors
    assert '→ shout(text="hey")\n← HEY!\nDone.\n' in printed  # its own variables, and none of this process
    assert "'broken' is left out: FileNotFoundError" in errors
    assert "'odd' is left out" in errors and "a command or a url" in errors


@pytest.fixture
def mcp_url() -> Iterator[str]:
    """A server over HTTP that answers nobody without its key."""
    app = FastMCP("http", log_level="ERROR")
    app.tool()(shout_back)
    serve = app.streamable_http_app()

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and (b"authorization", b"Bearer key") not in scope["headers"]:
            await PlainTextResponse("no", 401)(scope, receive, send)
        else:
            await serve(scope, receive, send)

    server = uvicorn.Server(uvicorn.Config(guarded, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/mcp"
    server.should_exit = True
    thread.join()


def shout_back(text: str) -> str:
    """Make a text loud."""
    return text.upper()


def test_tools_of_an_mcp_server_over_http_are_called_with_the_entry_s_headers(
    run: Run, tmp_path: Path, mcp_url: str
) -> None:
    servers = {
        "refused": {"url": mcp_url},
        "nobody": {"url": "http://127.0.0.1:9/mcp"},
        "good": {"url": mcp_url, "headers": {"Authorization": "Bearer key"}},
    }
    file = tmp_path / "servers.json"
    file.write_text(json.dumps({"mcpServers": servers}))
    code, printed, errors = run([call("shout_back", text="hey"), "Done."], "Shout.\n", "--mcp", str(file), "--yes")
    assert code == 0, errors
    assert '→ shout_back(text="hey")\n← HEY\nDone.\n' in printed
    assert "'refused' is left out: " in errors and "401" in errors and "'nobody' is left out: ConnectError" in errors


def test_the_option_that_brings_tools_is_named_where_nobody_could_be_asked(run: Run, tmp_path: Path) -> None:
    code, _, errors = run([], "", "--mcp", str(tmp_path / "servers.json"))
    assert code == 2 and "--mcp: nobody could be asked" in " ".join(errors.replace("│", " ").split())


def test_a_file_without_servers_is_told(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "servers.json"
    file.write_text("[]")
    code, _, errors = run([], "", "--mcp", str(file), "--yes")
    assert code == 2 and "mcpServers" in errors


def test_why_a_server_is_left_out_is_one_line() -> None:
    assert why(ExceptionGroup("many", [ExceptionGroup("more", [ConnectionError("refused")])])) == (
        "ConnectionError: refused"
    )
    with pytest.raises(ValueError) as broken:
        ServerEntry.model_validate({"command": 7, "args": []})
    assert why(broken.value) == "command: Input should be a valid string"


ON_A_TERMINAL = """
import sys
from mlx_agent_llm import Engine, EngineConfig
from mlx_agent_llm.testing import ScriptedModel
model = ScriptedModel(REPLIES)
engine = Engine.from_parts(model, model.tokenizer, EngineConfig(kv_cache_tokens=16384, check_model=False))
Engine.load = lambda name: engine
sys.argv = ["mlx-agent", "chat", "scripted", *sys.argv[1:]]
from mlx_agent_llm.cli import main
main()
"""


class Terminal:
    """A chat on a terminal of its own: what it shows, and what is typed."""

    def __init__(self, replies: str, *arguments: str) -> None:
        self._end, other = pty.openpty()
        script = ON_A_TERMINAL.replace("REPLIES", replies)
        command = [sys.executable, "-c", script, *arguments]
        environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"}
        self.process = subprocess.Popen(
            command, stdin=other, stdout=other, stderr=other, env=environment, start_new_session=True,
            preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(other)
        self.shown = ""

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 120
        while text not in self.shown:
            assert select([self._end], [], [], max(0, deadline - time.monotonic()))[0], self.shown
            self.shown += os.read(self._end, 4096).decode(errors="replace")
        self.shown = self.shown.partition(text)[2]

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def end(self) -> int:
        try:
            while os.read(self._end, 4096):
                pass
        except OSError:  # the other end is closed
            pass
        os.close(self._end)
        return self.process.wait(60)


@pytest.mark.skipif(sys.platform != "linux", reason="the test takes its terminal as Linux does")
@pytest.mark.long  # waits for what a terminal shows
def test_on_a_terminal_calls_are_asked_for_and_ctrl_c_takes_a_message_back(tools_file: str) -> None:
    replies = f"lambda p: 'x' * 4000 if 'long' in p else {call('double', number=4)!r} if '8' not in p else 'It is 8.'"
    terminal = Terminal(replies, "--tools", tools_file, "--max-tokens", "4000")
    terminal.wait_for("> ")
    terminal.type("twice 4\n")
    terminal.wait_for("run it? [y/N]")
    terminal.type("y\n")
    terminal.wait_for("It is 8.")
    terminal.wait_for("> ")
    terminal.type("something long\n")
    terminal.wait_for("xxx")
    terminal.type("\x03")
    terminal.wait_for("the message is taken back")
    terminal.wait_for("> ")  # until the line is being edited, a terminal hands this key on as another one
    terminal.type("\x04")
    assert terminal.end() == 0
