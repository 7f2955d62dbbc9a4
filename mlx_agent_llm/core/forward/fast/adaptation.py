"""A model's modules in forms of ours for as long as an engine serves it, and as they were afterwards.

A form is a subclass of a module's own class that stands in its place and computes the same. What it needs besides are
attributes of that subclass, so that the module itself holds nothing of ours.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import mlx.nn as nn

_ONE_AT_A_TIME = threading.RLock()  # engines are made on threads of their own, and may serve one model


class Form:
    """The mixin of a class that stands in place of a module's own."""

    own_class: type
    num_users: int  # adaptations that need it
    attributes: tuple[str, ...]  # what the form needs besides


class Adaptation:
    """The modules that one engine needs in a form of ours.

    Engines may serve one model at the same time: a module gets its own class back when the last of them is done.
    """

    def __init__(self) -> None:
        self._modules: list[Any] = []

    def keep(self, module: nn.Module) -> bool:
        """Keep a form that the module has already, until this is undone too; False where it has its own class."""
        if not isinstance(module, Form):
            return False
        type(module).num_users += 1
        self._modules.append(module)
        return True

    def give(self, module: nn.Module, form: type[Form], **attributes: Any) -> None:
        """Let a module that has its own class compute as `form` does, with attributes of that form."""
        own_class = type(module)
        fields = {
            "own_class": own_class,
            "num_users": 1,
            "attributes": tuple(attributes),
            "__module__": own_class.__module__,  # the model's name in errors
        }
        name = form.__name__.lstrip("_") + own_class.__name__
        module.__class__ = type(name, (form, own_class), attributes | fields)
        self._modules.append(module)

    def take_back(self, module: Any) -> None:
        """Give the module that was given its form last its own class back, unless another engine needs it so."""
        with _ONE_AT_A_TIME:
            last = self._modules.pop()
            assert last is module, "forms are taken back in the order in which they stand on each other"
            form: type[Form] = type(last)
            form.num_users -= 1
            if form.num_users == 0:
                _give_back(last, form)

    def undo(self) -> None:
        """Give the modules that no other engine needs so their own classes back; harmless when called again."""
        with _ONE_AT_A_TIME:
            while self._modules:
                self.take_back(self._modules[-1])


Adapt = Callable[[nn.Module, Adaptation], None]


def adapt(model: nn.Module, *ways: Adapt) -> Adaptation:
    """Adapt a model in several ways, one after the other; what raises leaves the model as it was."""
    adaptation = Adaptation()
    with _ONE_AT_A_TIME:
        try:
            for way in ways:
                way(model, adaptation)
        except BaseException:
            adaptation.undo()
            raise
    return adaptation


def give_all(modules: Iterable[nn.Module], form: type[Form]) -> Adapt:
    """The way that gives modules one form, but for those that have a form already."""

    def give(model: nn.Module, adaptation: Adaptation) -> None:
        for module in modules:
            if not adaptation.keep(module):
                adaptation.give(module, form)

    return give


def _give_back(module: nn.Module, form: type[Form]) -> None:
    """Give a module its own class."""
    module.__class__ = form.own_class
    for name in form.attributes:
        delattr(form, name)  # a class lives on until Python looks for circles, and these may hold weights
