"""How the demo looks: the agents side by side while they run, and two tables at the end."""

from __future__ import annotations

from collections.abc import Sequence

from rich.columns import Columns
from rich.console import Group
from rich.panel import Panel
from rich.table import Table

from mlx_agent_llm import EngineStats
from mlx_agent_llm.cli.demo.agent import Agent


def live_view(agents: Sequence[Agent], stats: EngineStats) -> Group:
    """One panel an agent, and a line about the engine."""
    panels = [Panel(agent.transcript or "...", title=agent.task, width=38, height=10) for agent in agents]
    line = (
        f"running {stats.num_running}  waiting {stats.num_waiting}  blocks used {stats.num_used_blocks} "
        f"(shared {stats.num_shared_blocks})  prefix hits {stats.prefix_hit_rate:.0%}  "
        f"generated {stats.num_generated_tokens}"
    )
    return Group(Columns(panels), line)


def agent_tables(agents: Sequence[Agent]) -> Group:
    """What each agent called and answered, and what it cost."""
    return Group(_work_table(agents), _cost_table(agents))


def engine_table(stats: EngineStats, seconds: float) -> Table:
    """What the engine did for all of them."""
    table = Table(title="Engine", title_justify="left", show_header=False)
    table.add_row("prompt tokens looked up / found / computed", _slashed(stats))
    table.add_row("prefix hit rate", f"{stats.prefix_hit_rate:.1%}")
    table.add_row("blocks shared at the most / in the pool", f"{stats.peak_shared_blocks} / {stats.num_blocks}")
    table.add_row("batch size mean / largest", f"{stats.mean_batch_size:.1f} / {stats.max_batch_size}")
    table.add_row("generated tokens", str(stats.num_generated_tokens))
    table.add_row("generated tokens/s, prompts included", f"{stats.num_generated_tokens / seconds:.1f}")
    table.add_row("steps, mean time", f"{stats.num_steps}, {stats.mean_step_time * 1e3:.0f} ms")
    return table


def _work_table(agents: Sequence[Agent]) -> Table:
    table = Table("task", "calls", "answer", title="Agents", title_justify="left")
    for agent in agents:
        calls = [f"{call['name']}({_arguments(call['arguments'])}) = {call['result']}" for call in agent.tool_calls]
        table.add_row(agent.task, "\n".join(calls), agent.answer)
    return table


def _cost_table(agents: Sequence[Agent]) -> Table:
    table = Table("task")
    for name in ("prompt", "cached", "new", "first token", "tok/s"):
        table.add_column(name, justify="right")
    for agent in agents:
        tokens = (agent.prompt_tokens, agent.cached_tokens, agent.new_tokens)
        first = "-" if agent.seconds_to_first_token is None else f"{agent.seconds_to_first_token:.1f} s"
        table.add_row(agent.task, *map(str, tokens), first, f"{agent.tokens_per_second:.1f}")
    return table


def _slashed(stats: EngineStats) -> str:
    return f"{stats.prefix_query_tokens} / {stats.prefix_hit_tokens} / {stats.num_prompt_tokens_computed}"


def _arguments(arguments: dict[str, object]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())
