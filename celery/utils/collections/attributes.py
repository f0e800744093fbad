"""Keys as attributes, and attributes as keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

__all__ = ("AttributeDict", "AttributeDictMixin", "DictAttribute", "force_mapping")


class AttributeDictMixin:
    """Keys read and written as attributes."""

    def __getattr__(self, k: str) -> Any:
        try:
            return self[k]  # type: ignore[index]  # mixed into mappings
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {k!r}") from None

    def __setattr__(self, key: str, value: Any) -> None:
        self[key] = value


class AttributeDict(dict, AttributeDictMixin):  # type: ignore[type-arg]
    """A dict whose keys are attributes too."""


class DictAttribute:
    """Attributes of ``obj`` read and written as keys."""

    obj: Any = None

    def __init__(self, obj: Any) -> None:
        object.__setattr__(self, "obj", obj)

    def __getattr__(self, key: str) -> Any:
        return getattr(self.obj, key)

    def __setattr__(self, key: str, value: Any) -> None:
        setattr(self.obj, key, value)

    def __getitem__(self, key: str) -> Any:
        try:
            return getattr(self.obj, key)
        except AttributeError:
            raise KeyError(key) from None

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self.obj, key, value)

    def __contains__(self, key: str) -> bool:
        return hasattr(self.obj, key)

    def get(self, key: str, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def setdefault(self, key: str, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            self[key] = default
            return default

    def __iter__(self) -> Iterator[str]:
        return iter(dir(self.obj))

    iterkeys = keys = __iter__

    def itervalues(self) -> Iterator[Any]:
        return (getattr(self.obj, key) for key in self)

    values = itervalues

    def iteritems(self) -> Iterator[tuple[str, Any]]:
        return ((key, getattr(self.obj, key)) for key in self)

    items = iteritems


MutableMapping.register(DictAttribute)


def force_mapping(m: Any) -> Any:
    """Return ``m``, made a mapping of its attributes if it is none."""
    return m if isinstance(m, Mapping) else DictAttribute(m)
