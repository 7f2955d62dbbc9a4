"""The mlx-agent command. Nothing here imports MLX before a command needs it: `--help` has no time for that.

Exit codes: 0 it is done; 1 it failed, and a line says why; 2 it was called wrongly; 3 only a part of it could be done;
130 it was interrupted.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command; what a user can mend is one line and exit code 1, not a traceback."""
    _open_missing_streams()
    from mlx_agent_llm.cli.app import app
    from mlx_agent_llm.errors import MLXAgentError

    try:
        app()
    except (MLXAgentError, ImportError, OSError) as error:
        from mlx_agent_llm.cli.failure import tell

        tell(error)
        sys.exit(1)
    except KeyboardInterrupt:  # while a command's modules are imported, where typer does not see it
        sys.exit(130)


def _open_missing_streams() -> None:
    """A service manager may start a process without standard streams, and nothing expects that there are none."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))
