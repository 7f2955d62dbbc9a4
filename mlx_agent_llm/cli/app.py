"""The commands. Each one's command.py declares its options and imports the rest when it runs."""

from __future__ import annotations

import typer

from mlx_agent_llm.cli.bench.command import bench
from mlx_agent_llm.cli.chat.command import chat
from mlx_agent_llm.cli.commands import Commands, help_without_command
from mlx_agent_llm.cli.demo.command import demo
from mlx_agent_llm.cli.doctor.command import doctor
from mlx_agent_llm.cli.eval.command import evaluate
from mlx_agent_llm.cli.extract.command import extract
from mlx_agent_llm.cli.kv.command import kv
from mlx_agent_llm.cli.models.command import models
from mlx_agent_llm.cli.serve import serve
from mlx_agent_llm.cli.top.command import top

app = typer.Typer(
    cls=Commands,
    callback=help_without_command,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Many agents on one in-process engine.",
)
app.command()(bench)
app.command()(chat)
app.command()(demo)
app.command()(doctor)
app.command("eval")(evaluate)
app.command()(extract)
app.command()(serve)
app.command()(top)
app.add_typer(kv, name="kv")
app.add_typer(models, name="models")
