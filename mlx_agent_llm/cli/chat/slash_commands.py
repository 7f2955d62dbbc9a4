"""What can be typed instead of a message."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from mlx_agent_llm.cli.chat.conversation import Conversation
from mlx_agent_llm.cli.options import write_file
from mlx_agent_llm.core.stats import EngineStats
from mlx_agent_llm.engine import Engine

HELP = """/help             this
/history          the messages of this branch
/undo             take the last message back, with its answer
/fork             go on in a copy of this branch, which shares its memory
/branch N         go on in another branch
/save FILE        write the messages as JSON; `mlx-agent chat --continue FILE` goes on with them
/stats            tokens and times of the last answer, and of the engine
/exit             end; so does Ctrl-D. Ctrl-C stops an answer."""


def run_command(line: str, conversation: Conversation, engine: Engine) -> str:
    """What a command has to say; a ValueError where it is none, or lacks something."""
    name, _, argument = line[1:].partition(" ")
    commands: dict[str, Callable[[], str]] = {
        "help": lambda: HELP,
        "history": lambda: _history(conversation),
        "undo": lambda: "taken back" if conversation.undo() else "there is nothing to take back",
        "fork": lambda: f"branch {conversation.fork()} of {len(conversation.branches)}",
        "branch": lambda: _branch(conversation, argument.strip()),
        "save": lambda: _save(conversation, argument.strip()),
        "stats": lambda: _stats(conversation, engine.stats()),
    }
    if name not in commands:
        raise ValueError(f"/{name} is no command; /help shows those that there are")
    return commands[name]()


def _history(conversation: Conversation) -> str:
    lines = [f"{message['role']}: {_shown(message)}" for message in conversation.messages]
    return "\n".join(lines) or "no message yet"


def _shown(message: dict[str, object]) -> str:
    calls = message.get("tool_calls")
    return f"{message['content']} {json.dumps(calls)}" if calls else str(message["content"])


def _branch(conversation: Conversation, argument: str) -> str:
    last = len(conversation.branches) - 1
    if not argument.isdecimal() or int(argument) > last:
        raise ValueError(f"/branch {argument} must be a number from 0 to {last}")
    conversation.current = int(argument)
    return f"branch {argument}: {len(conversation.messages)} messages"


def _save(conversation: Conversation, argument: str) -> str:
    if not argument:
        raise ValueError("/save needs the name of a file")
    write_file(Path(argument).expanduser(), json.dumps(conversation.messages, indent=2))
    return f"{len(conversation.messages)} messages are in {argument}"


def _stats(conversation: Conversation, stats: EngineStats) -> str:
    lines = [
        f"engine: {stats.num_generated_tokens} tokens generated, {stats.tokens_per_second:.1f} a second of its steps; "
        f"prefix hits {stats.prefix_hit_rate:.0%}; blocks used {stats.num_used_blocks}, kept "
        f"{stats.num_cached_blocks} of {stats.num_blocks}"
    ]
    if (reply := conversation.last_reply) is not None:
        usage, timings = reply.usage, reply.timings
        lines.insert(
            0,
            f"last answer: {usage.prompt_tokens} prompt tokens, {usage.cached_tokens} of them found; "
            f"{usage.completion_tokens} new; first token after {timings.ttft:.2f} s, all after {timings.total:.2f} s",
        )
    return "\n".join(lines)
