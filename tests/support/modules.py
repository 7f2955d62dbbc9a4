"""How a model's modules look from outside."""

from typing import Any

import mlx.nn as nn


def looks(model: nn.Module) -> list[Any]:
    """Of each module its name, its class, what it holds and its other attributes."""
    return [
        (name, type(module), sorted(module), sorted(vars(module).keys() - {"_no_grad", "_training"}))
        for name, module in model.named_modules()
    ]
