"""The mlx-agent command."""

from __future__ import annotations

import sys

from rich.console import Console

from mlx_agent_llm.cli.without_mlx import tell
from mlx_agent_llm.errors import MLXAgentError
from mlx_agent_llm.process import installation


def main() -> None:
    """Run the command; what a user can mend is one line and exit code 1, not a traceback."""
    if (problem := installation.problem()) is not None:
        tell(problem, with_versions=sys.argv[1:] == ["doctor"])
        sys.exit(1)
    from mlx_agent_llm.cli.app import app

    try:
        app()
    except (MLXAgentError, ImportError) as error:
        Console(stderr=True).print(f"{type(error).__name__}: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)
