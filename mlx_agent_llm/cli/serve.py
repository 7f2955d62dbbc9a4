"""mlx-agent serve: models behind OpenAI's and Anthropic's APIs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlx_agent_llm.cli.options import check_folder, write_json

if TYPE_CHECKING:
    from mlx_agent_llm.server.app import DrainingServer
    from mlx_agent_llm.server.service import Service
    from mlx_agent_llm.server.settings import ServerSettings

Model = Annotated[str | None, typer.Argument(help='"demo", a hub id, a local directory or a .gguf file.')]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="NAME=MODEL", help="A further model by a name of its own, loaded when asked for."),
]
MaxLoaded = Annotated[int | None, typer.Option(min=1, help="Models that stay loaded at a time; by default all.")]
EmbedderName = Annotated[str | None, typer.Option("--embedder", help="An embedding model for /v1/embeddings.")]
RerankerName = Annotated[str | None, typer.Option("--reranker", help="A reranking model for /v1/rerank.")]
Warm = Annotated[
    Path | None, typer.Option("--warm", exists=True, dir_okay=False, help="System prompts to compute first (JSON).")
]
Host = Annotated[str, typer.Option(help="Another host than loopback needs --api-key-file.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")]
KeyFile = Annotated[
    Path | None, typer.Option("--api-key-file", exists=True, dir_okay=False, help="API keys, one a line.")
]
Certificate = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="For TLS, with --private-key.")]
PrivateKey = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="For TLS, with --certificate.")]
DefaultMaxTokens = Annotated[int, typer.Option(min=1, help="Of answers whose request does not say.")]
MaxOpen = Annotated[int, typer.Option(min=1, help="Requests of one key that are open at a time.")]
ReadyFile = Annotated[
    Path | None,
    typer.Option("--json", callback=check_folder, help='Write where it serves to this file; "-" is standard output.'),
]
DrainSeconds = Annotated[float, typer.Option(min=0.01, help="For open requests after SIGTERM.")]


def serve(
    model: Model = None,
    models: Models = None,
    max_loaded: MaxLoaded = None,
    embedder: EmbedderName = None,
    reranker: RerankerName = None,
    warm: Warm = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key_file: KeyFile = None,
    certificate: Certificate = None,
    private_key: PrivateKey = None,
    default_max_tokens: DefaultMaxTokens = 4096,
    max_open_requests: MaxOpen = 128,
    drain_seconds: DrainSeconds = 30.0,
    json_file: ReadyFile = None,
) -> None:
    """Serve models over HTTP, in the APIs of OpenAI and Anthropic."""
    from mlx_agent_llm import Embedder, Reranker
    from mlx_agent_llm.server.app import Address, DrainingServer
    from mlx_agent_llm.server.keys import Keys
    from mlx_agent_llm.server.settings import ServerSettings

    settings = ServerSettings(
        default_max_tokens=default_max_tokens, max_open_requests=max_open_requests, drain_seconds=drain_seconds
    )
    address = Address(host, port, certificate, private_key)
    keys = Keys() if api_key_file is None else Keys.read(api_key_file)
    sources = _sources(model, models or [])

    def tell(source: str) -> None:
        typer.echo(f"serving {source} on {_url(server)}", err=True)
        if source == next(iter(sources.values())):  # the default, which is loaded first
            write_json(json_file, {"url": _url(server), "models": list(sources)})

    service = _service(sources, max_loaded, warm, settings, tell)
    service.embedder = None if embedder is None else Embedder.load(embedder)
    service.reranker = None if reranker is None else Reranker.load(reranker)
    try:
        server = DrainingServer(service, address, keys)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    try:
        server.run()
    except SystemExit:  # it could not listen, and has said why; its own exit code means something else here
        raise typer.Exit(1) from None
    if server.load_error is not None:
        raise server.load_error


def _url(server: DrainingServer) -> str:
    config = server.config
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"http{'s' if config.is_ssl else ''}://{host}:{server.port}"


def _service(
    sources: dict[str, str],
    max_loaded: int | None,
    warm: Path | None,
    settings: ServerSettings,
    tell: Callable[[str], None],
) -> Service:
    """The service; `tell` learns of each model's source when it is loaded."""
    from mlx_agent_llm.engine import Engine
    from mlx_agent_llm.server.served_models import ServedModels
    from mlx_agent_llm.server.service import Service
    from mlx_agent_llm.server.warm_prompts import load_warm, read_warm_prompts

    try:
        prompts = [] if warm is None else read_warm_prompts(warm)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None

    def load(source: str) -> Engine:
        engine = load_warm(source, prompts=prompts)
        tell(source)
        return engine

    return Service(ServedModels(sources, load, max_loaded), settings)


def _sources(model: str | None, named: list[str]) -> dict[str, str]:
    """Names and what they are loaded from, the default first."""
    sources = {} if model is None else {model: model}
    for text in named:
        name, separator, source = text.partition("=")
        if not separator or not name or not source or name in sources:
            raise typer.BadParameter(f"--model {text} must be NAME=MODEL, each name once")
        sources[name] = source
    if not sources:
        raise typer.BadParameter("give a MODEL, or --model NAME=MODEL")
    return sources
