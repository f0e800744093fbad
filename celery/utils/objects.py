"""Small tools for objects: attributes, contexts, lookup along the class tree."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import Any

__all__ = ("Bunch", "FallbackContext", "getitem_property", "mro_lookup")


class Bunch:
    """An object with the attributes it is given."""

    def __init__(self, **kwargs: Any) -> None:
        self.__dict__.update(kwargs)


def mro_lookup(
    cls: type, attr: str, stop: Container[type] | None = None, monkey_patched: Iterable[str] | None = None
) -> type | None:
    """Return the class in ``cls``'s order of resolution that defines ``attr``.

    ``None`` when a class in ``stop`` comes first, unless that one has ``attr`` from a module that is not
    among ``monkey_patched`` (so somebody replaced it on purpose).
    """
    for node in cls.mro():
        if stop and node in stop:
            value = node.__dict__.get(attr)
            origin = getattr(value, "__module__", None)
            if monkey_patched and value is not None and origin is not None and origin not in monkey_patched:
                return node
            return None
        if attr in node.__dict__:
            return node
    return None


class FallbackContext:
    """Enter ``provided`` as it is and leave it open; without one, make, enter and close ``fallback(*args)``."""

    def __init__(self, provided: Any, fallback: Callable[..., Any], *fb_args: Any, **fb_kwargs: Any) -> None:
        self.provided = provided
        self.fallback = fallback
        self.fb_args = fb_args
        self.fb_kwargs = fb_kwargs
        self._context: Any = None

    def __enter__(self) -> Any:
        if self.provided is not None:
            return self.provided
        context = self._context = self.fallback(*self.fb_args, **self.fb_kwargs)
        return context.__enter__()

    def __exit__(self, *exc_info: Any) -> Any:
        if self._context is not None:
            return self._context.__exit__(*exc_info)
        return None


class getitem_property:
    """An attribute that lives in the mapping itself: ``getitem_property("options.priority")``.

    A missing last key reads as ``None``; a missing mapping on the way is a ``KeyError``.
    """

    path: list[str] | None

    def __init__(self, keypath: str, doc: str | None = None) -> None:
        *path, self.key = keypath.split(".")
        self.path = path or None
        self.__doc__ = doc

    def _holder(self, obj: Any) -> Any:
        for key in self.path or ():
            obj = obj[key]
        return obj

    def __get__(self, obj: Any, type: Any = None) -> Any:
        if obj is None:
            return type
        return self._holder(obj).get(self.key) if self.path else obj.get(self.key)

    def __set__(self, obj: Any, value: Any) -> None:
        self._holder(obj)[self.key] = value
