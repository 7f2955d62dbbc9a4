"""TypedDict classes as pydantic reads them: those of `typing` on Python 3.11, and LangChain's way to describe keys."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, NotRequired, Required, Union, get_args, get_origin, get_type_hints

from pydantic import Field
from typing_extensions import TypedDict, is_typeddict

_QUALIFIERS = (Required, NotRequired)


def readable(kind: Any) -> Any:
    """A type whose TypedDicts pydantic reads, with the descriptions of `Annotated[type, default, description]`.

    A key with a default other than ... is not required. A TypedDict of which no key is required requires all of them:
    {} would satisfy it.
    """
    rebuilt = _rebuilt(kind, {})
    if is_typeddict(rebuilt) and not rebuilt.__required_keys__:
        rebuilt.__required_keys__, rebuilt.__optional_keys__ = rebuilt.__optional_keys__, frozenset()
    return rebuilt


def _rebuilt(kind: Any, known: dict[Any, Any]) -> Any:
    if is_typeddict(kind):
        return known[kind] if kind in known else _rebuilt_dict(kind, known)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return Annotated[(_rebuilt(arguments[0], known), *arguments[1:])]
    if not any(is_typeddict(one) or get_args(one) for one in arguments):
        return kind
    parts = tuple(_rebuilt(one, known) for one in arguments)
    return Union[parts] if origin in (Union, UnionType) else origin[parts]  # noqa: UP007  # of parts only known now


def _rebuilt_dict(kind: Any, known: dict[Any, Any]) -> Any:
    """Known before its keys are, which may be of the same class."""
    known[kind] = rebuilt = TypedDict(kind.__name__, {})  # type: ignore[operator]  # made of what was read
    rebuilt.__doc__, rebuilt.__module__ = kind.__doc__, kind.__module__
    hints = get_type_hints(kind, include_extras=True)
    keys = {name: get_args(hint)[0] if get_origin(hint) in _QUALIFIERS else hint for name, hint in hints.items()}
    rebuilt.__annotations__ = {name: _rebuilt(_described(hint), known) for name, hint in keys.items()}
    required = {name for name, hint in hints.items() if _is_required(hint, name in kind.__required_keys__)}
    rebuilt.__required_keys__ = frozenset(name for name in required if not _has_default(keys[name]))
    rebuilt.__optional_keys__ = frozenset(keys.keys() - rebuilt.__required_keys__)
    return rebuilt


def _is_required(hint: Any, by_default: bool) -> bool:
    """What the class says of a key counts where its hint does not: of a hint in quotes it has not read that."""
    origin = get_origin(hint)
    return origin is Required or (by_default and origin is not NotRequired)


def _has_default(hint: Any) -> bool:
    """Whether LangChain's default stands first among what is annotated: with a description as its second."""
    metadata = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return len(metadata) == 2 and isinstance(metadata[1], str) and metadata[0] is not ...


def _described(hint: Any) -> Any:
    if get_origin(hint) is not Annotated:
        return hint
    kind, *metadata = get_args(hint)
    text = next((one for one in reversed(metadata) if isinstance(one, str)), None)
    return Annotated[kind, Field(description=text)] if text is not None else hint
