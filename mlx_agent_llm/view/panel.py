"""How an engine looks: queue, blocks, prefixes, tokens a second and where the time of a step goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mlx_agent_llm.view.snapshot import Rates, Snapshot

_BAR = 40  # characters
_MANY_PHASES = 6  # those that take the most time are named


def engines_view(now: Sequence[Snapshot], before: Sequence[Snapshot]) -> RenderableType:
    """A panel for each engine; before: earlier snapshots of them, for what is counted by the second."""
    if not now:
        return Text("no engine is open")
    panels = Table.grid()  # and not a Group, which notebooks cannot show
    earlier = {one.engine: one for one in before}
    for one in now:
        panels.add_row(_panel(one, earlier.get(one.engine)))
    return panels


def _panel(now: Snapshot, before: Snapshot | None) -> Panel:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for row in _rows(now, before):
        table.add_row(*row)
    return Panel(table, title=f"{now.model} {now.engine}".strip(), title_align="left")


def _rows(now: Snapshot, before: Snapshot | None) -> Iterator[tuple[str, RenderableType]]:
    yield "requests", f"{now.num_running} running, {now.num_waiting} waiting, {now.num_preemptions} preemptions so far"
    yield "KV blocks", _blocks(now)
    found = f"{now.prefix_hit_tokens:,} of {now.prefix_query_tokens:,} prompt tokens"
    yield "prefixes", f"{now.prefix_hit_rate:.0%} found: {found}"
    yield "tokens", f"{now.num_generated_tokens:,} generated, {now.num_prompt_tokens_computed:,} of prompts computed"
    if before is not None:
        rates = Rates(before, now)
        yield "tokens/s", f"{rates.generated:,.1f} generated, {rates.prompt:,.1f} of prompts"
    yield "a step", f"{1e3 * now.mean_step_time:.1f} ms, {now.mean_batch_size:.1f} rows (mean of the last 1,000)"
    yield "its phases", _phases(now.mean_phase_times)


def _blocks(now: Snapshot) -> Text:
    """Used, kept for later and free blocks as parts of one bar."""
    total = max(now.num_blocks, 1)
    used = round(_BAR * now.num_used_blocks / total)
    kept = min(round(_BAR * now.num_cached_blocks / total), _BAR - used)
    bar = Text.assemble(("█" * used, "green"), ("▒" * kept, "cyan"), ("░" * (_BAR - used - kept), "dim"))
    numbers = f" {now.num_used_blocks} used ({now.num_shared_blocks} shared), {now.num_cached_blocks} kept"
    return Text.assemble(bar, f"{numbers}, of {now.num_blocks}")


def _phases(seconds: Mapping[str, float]) -> str:
    """The longest first, as parts of a step."""
    total = sum(seconds.values())
    if not total:
        return "no step yet"
    longest = sorted(seconds.items(), key=lambda item: -item[1])[:_MANY_PHASES]
    return ", ".join(f"{name} {part / total:.0%}" for name, part in longest)
