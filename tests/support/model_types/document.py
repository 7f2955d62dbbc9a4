"""The page of the documentation that the table of model types is printed on."""

from __future__ import annotations

from mlx_lm.utils import MODEL_REMAPPING

from mlx_agent_llm.models.served_types import ServedType, TypeTable

_KINDS = {
    "KVCache": "attention",
    "RotatingKVCache": "window",
    "ChunkedKVCache": "chunked window",
    "ArraysCache": "state",
    "LayerCache": "its own",
}


def document(table: TypeTable) -> str:
    """The page, of nothing but the table."""
    served = [row for row in table.types if row.verdict == "equal"]
    others = [row for row in table.types if row.verdict != "equal"]
    remapped = ", ".join(f"`{name}` (`{target}`)" for name, target in sorted(MODEL_REMAPPING.items()))
    return f"""# Model types

{len(served)} of the {len(table.types)} model types of mlx-lm {table.mlx_lm} are served, {len(others)} are not. What
stands here is measured: for each type a tiny model with random weights says, over paged layers, what it says with
mlx-lm's own cache, token for token (up to ties that rounding decides) and with the same log-probabilities. It is
compared alone and among six rows of ragged length, with chunks of prompts smaller and larger than a window, with rows
that join late, prefix hits at, before and after a block's border and within it, forks, preemptions, and runs of tokens
that a grammar forces. `mlx-agent models` prints the table.

A model is tried when it is loaded, too: some random tokens are computed over paged layers and with mlx-lm's own cache,
and a model whose logits differ is an `UnsupportedModelError` that names the first layer that does.
`EngineConfig(check_model=False)` leaves that out.

A directory may be one that mlx-lm converted or one that transformers saved: what transformers writes from its version 5
on under other names than those that mlx-lm reads (`rope_parameters` above all) is read as meant; tests compare tiny
models of the common types with transformers' own logits. Where mlx-lm would turn heads otherwise than a configuration
says (a `rope_scaling` that its class does not read, or `partial_rotary_factor`, or another base for layers with a
window) it is an `UnsupportedModelError` with the name of the field.

Layers: *attention* keeps keys and values of every token (or a latent of both), *window* those of the last ones,
*state* is recurrent and keeps a state of fixed size; what stands beside a + belongs to one layer.

| type | layers |
|---|---|
{_lines(served)}

## Not served

| type | layers | reason |
|---|---|---|
{_lines(others)}

## Other names

mlx-lm reads these types as others: {remapped}.
"""


def _lines(rows: list[ServedType]) -> str:
    return "\n".join(_line(row) for row in rows)


def _line(row: ServedType) -> str:
    layers = row.layers
    for kind, words in sorted(_KINDS.items(), key=lambda item: -len(item[0])):
        layers = layers.replace(kind, words)
    cells = [f"`{row.model_type}`", layers]
    if row.verdict != "equal":
        cells.append(f"{row.verdict}: {row.reason}".replace("|", "\\|"))
    return f"| {' | '.join(cells)} |"
