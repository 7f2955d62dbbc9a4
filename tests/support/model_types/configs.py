"""The table of mlx-lm's model types: for each what its tiny model has beside the common dimensions.

Several layers of each kind that a type has; windows are shorter than what is computed.
"""

from __future__ import annotations

from tests.support.model_types.attention_types import attention_types
from tests.support.model_types.dimensions import common
from tests.support.model_types.parts import Config
from tests.support.model_types.state_types import state_types
from tests.support.model_types.window_types import window_types


def own_configs() -> dict[str, Config]:
    """What each type has beside the common dimensions."""
    table = attention_types() | window_types() | state_types()
    return dict(sorted(table.items(), key=lambda item: item[0].lower()))


def config_of(model_type: str) -> Config:
    """The configuration of a type's tiny model."""
    own = own_configs()[model_type]
    if "text_config" in own:
        text = common() | {"model_type": own["text_config"].get("model_type", model_type)}
        own = own | {"text_config": text | own["text_config"]}
    return common() | {"model_type": model_type} | own
