"""What a setting is: its type, its default and its names."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ("Option", "Namespace", "flatten", "searchresult")


def _to_bool(text: Any) -> bool:
    from celery.utils.serialization import strtobool

    return bool(strtobool(text))


class Option:
    """Type, default and old names of one setting.

    ``default`` is the value where nothing is configured, ``type`` a key of ``typemap``, ``old`` a set of old
    names in lower case.  ``deprecate_by``, ``remove_by`` (versions) and ``alt`` (what to use instead) tell of
    its end.
    """

    default: Any
    type: str
    alt: str | None = None
    deprecate_by: str | None = None
    remove_by: str | None = None
    old: set[str] = set()
    typemap: dict[str, Callable[[Any], Any]] = {
        "string": str,
        "str": str,
        "bytes": lambda value: value.encode() if isinstance(value, str) else bytes(value),
        "int": int,
        "float": float,
        "any": lambda value: value,
        "bool": _to_bool,
        "dict": dict,
        "tuple": tuple,
        "list": list,
    }

    def __init__(self, default: Any = None, *args: Any, **kwargs: Any) -> None:
        self.default = default
        self.type: str = kwargs.pop("type", None) or "string"
        for name, value in kwargs.items():
            setattr(self, name, value)

    def to_python(self, value: Any) -> Any:
        """Turn ``value``, often text from a command line, into this option's type."""
        return self.typemap[self.type](value)

    def __repr__(self) -> str:
        return f"<Option: type->{self.type} default->{self.default!r}>"


class searchresult(NamedTuple):
    """Where ``find`` found a setting: below ``namespace``, or at the top (``None``)."""

    namespace: str | None
    key: str
    type: Any


searchresult.__module__ = Option.__module__ = "celery.app.defaults"


def Namespace(__old__: Iterable[str] | None = None, **options: Option) -> dict[str, Option]:
    """Return ``options``, each with the old names that the patterns ``__old__`` (``celery_{0}``) give it."""
    for name, option in options.items():
        if __old__ is not None and not option.old:
            option.old = {pattern.format(name) for pattern in __old__}
    return options


def _joined(prefix: str, name: str, option: Option) -> Iterable[tuple[str, Option]]:
    return ((prefix + name, option),)


def flatten(
    d: Mapping[str, Any],
    root: str = "",
    keyfilter: Callable[[str, str, Option], Iterable[tuple[str, Any]]] = _joined,
) -> Iterator[tuple[str, Any]]:
    """Walk nested namespaces, level by level, and yield ``(full name, option)``."""
    waiting: deque[tuple[str, Mapping[str, Any]]] = deque([(root, d)])
    while waiting:
        prefix, options = waiting.popleft()
        for name, option in options.items():
            if isinstance(option, Mapping):
                waiting.append((f"{prefix}{name}_", option))
            else:
                yield from keyfilter(prefix, name, option)
