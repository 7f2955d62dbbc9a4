"""What a chat shows: replies as Markdown while they are written on a terminal, as plain text into a pipe."""

from __future__ import annotations

import json

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

from mlx_agent_llm.chat import ChatDelta, ChatOutput, ToolCall

_MAX_RESULT = 400  # characters of a result that are shown; the model gets all of it


class Screen:
    """Shows replies and calls, and asks whether a call may run unless that is settled. Observes a conversation."""

    def __init__(self, console: Console, *, is_plain_text: bool, runs_all_calls: bool) -> None:
        self._console = console
        self._is_plain_text = is_plain_text or not console.is_terminal
        self._runs_all_calls = runs_all_calls
        self._live: Live | None = None
        self._text, self._reasoning = "", ""

    def see(self, delta: ChatDelta) -> None:
        """Show the reply so far; the end of a long one, while it grows."""
        self._text += delta.text
        self._reasoning += delta.reasoning
        if self._console.is_terminal:
            if self._live is None:
                self._live = Live(console=self._console, transient=True, vertical_overflow="ellipsis")
                self._live.start()
            self._live.update(self._view())
        else:
            self._console.out(delta.text, end="", highlight=False)

    def finish(self, reply: ChatOutput) -> None:
        """Show the whole reply, and what is wrong with it."""
        view = self._view()
        self.reset()
        if self._console.is_terminal:
            self._console.print(view)
        elif reply.text:
            self._console.out("")
        for call in reply.invalid_tool_calls:
            self.note(f"a call that is broken, and not run: {call.text} ({call.error})")
        if reply.finish_reason == "length":
            self.note("cut off by --max-tokens" if not reply.forced_close else "closed early for --max-tokens")

    def may_call(self, call: ToolCall) -> bool:
        """Show the call, and ask."""
        shown = f"{call.name}({', '.join(f'{name}={json.dumps(value)}' for name, value in call.arguments.items())})"
        self._console.print(Text(f"→ {shown}", style="cyan"), soft_wrap=True)
        if self._runs_all_calls:
            return True
        try:
            return input("  run it? [y/N] ").strip().lower() in ("y", "yes")
        except EOFError:  # Ctrl-D is no yes
            return False

    def see_result(self, call: ToolCall, result: str) -> None:
        """Show what the model is told."""
        shown = result if len(result) <= _MAX_RESULT else f"{result[:_MAX_RESULT]}... ({len(result):,} characters)"
        self._console.print(Text(f"← {shown}", style="dim"), soft_wrap=True)

    def note(self, text: str, *, style: str = "yellow") -> None:
        """A line about something else than the conversation's text."""
        self._console.print(Text(text, style=style), soft_wrap=True)

    def reset(self) -> None:
        """Forget the reply that was being shown: it is whole, or it was interrupted."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._text, self._reasoning = "", ""

    def _view(self) -> RenderableType:
        answer = Text(self._text) if self._is_plain_text else Markdown(self._text)
        return Group(Text(self._reasoning.strip(), style="dim italic"), answer) if self._reasoning else answer
