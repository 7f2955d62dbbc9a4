"""The commands about models: what is here, what one is like, what is served."""

from __future__ import annotations

from typing import Annotated

import typer

from mlx_agent_llm.cli.options import JSONFile

models = typer.Typer(
    invoke_without_command=True, help="Which models there are, what they are like, and which are served."
)

Words = Annotated[list[str] | None, typer.Argument(help="Only those whose names contain one of these.")]
ModelArgument = Annotated[str, typer.Argument(help='"demo", a hub id, a local directory or a .gguf file.')]
HubId = Annotated[str, typer.Argument(help="A hub id: owner/name.")]


@models.callback()
def _list_unless_told_otherwise(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_models()


@models.command("list")
def list_models(words: Words = None, json_file: JSONFile = None) -> None:
    """Show the models in the hub's cache on this machine, and which of them are served."""
    from mlx_agent_llm.cli.models.cache import show_cache

    show_cache(words or [], json_file)


@models.command()
def pull(model: HubId, json_file: JSONFile = None) -> None:
    """Download a model into the hub's cache; what an earlier call got is not downloaded again."""
    from mlx_agent_llm.cli.models.cache import pull_model

    pull_model(model, json_file)


@models.command()
def rm(
    model: HubId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json_file: JSONFile = None,
) -> None:
    """Delete a model from the hub's cache."""
    from mlx_agent_llm.cli.models.cache import remove_model

    remove_model(model, json_file, is_sure=yes)


@models.command()
def show(model: ModelArgument, json_file: JSONFile = None) -> None:
    """Show layers, context, what its KV takes, how many agents fit into this memory, and how it calls tools."""
    from mlx_agent_llm.cli.models.card import show_card

    show_card(model, json_file)


@models.command()
def recommend(
    context: Annotated[int, typer.Option(min=16, help="Tokens of each agent.")] = 8192,
    json_file: JSONFile = None,
) -> None:
    """Show which well-known models fit into this memory, with how many agents, and how fast they can decode at most."""
    from mlx_agent_llm.cli.models.recommend import show_recommendations

    show_recommendations(context, json_file)


@models.command()
def types(words: Words = None, json_file: JSONFile = None) -> None:
    """Show the model types of mlx-lm, which of them are served, and why the others are not."""
    from mlx_agent_llm.cli.models.types import show_types

    show_types(words or [], json_file)
