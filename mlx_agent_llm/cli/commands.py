"""Commands: what typer does, but what was called wrongly is one line, as is everything else that goes wrong."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from mlx_agent_llm.cli.failure import print_line

NAME = "mlx-agent"


class Commands(TyperGroup):
    """A group of commands; wrong arguments are a line that ends with where help is, and exit code 2."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command, and end the process with its exit code unless `standalone_mode` is False."""
        run = partial(super().main, args, NAME, complete_var, False, windows_expand_args, **extra)
        if not standalone_mode:
            return run()
        try:
            code = run() or 0
        except TyperException as error:
            code = _tell(error)
        except typer.Abort:  # a question that was not agreed to, or that nobody could be asked
            code = _fail("Nothing was done: nobody agreed to it", 1)
        sys.exit(code)


def help_without_command(context: typer.Context) -> None:
    """Show help where no command is named, and end with exit code 2."""
    if context.invoked_subcommand is None:
        print(context.get_help(), end="")
        raise typer.Exit(2)


def _tell(error: TyperException) -> int:
    context: typer.Context | None = getattr(error, "ctx", None)
    command = NAME if context is None else context.command_path
    text = " ".join(error.format_message().split()).removesuffix(".")
    return _fail(f"{text}. See `{command} --help`", error.exit_code)


def _fail(line: str, code: int) -> int:
    print_line(line)
    return code
