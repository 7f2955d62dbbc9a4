"""The commands, where MLX can be loaded."""

from __future__ import annotations

import typer

from mlx_agent_llm.cli import bench, demo, doctor, models, serve

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Many agents on one in-process engine.")
app.command()(bench.bench)
app.command()(demo.demo)
app.command()(doctor.doctor)
app.command()(models.models)
app.command()(serve.serve)
