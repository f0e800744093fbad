"""Classes that belong to one app, and things an app makes once.

Rooms above this one (worker, beat) are named by string and imported when somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.utils import imports

__all__ = ("bound_subclass", "kept")


class kept:
    """A property that is made at first use and then kept in the instance; assignment and ``del`` work.

    No lock is taken: two threads may both make it, and both get the one that was kept first.
    """

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, obj: Any, owner: Any = None) -> Any:
        if obj is None:
            return self
        return obj.__dict__.setdefault(self.name, self.make(obj))


def bound_subclass(
    app: Any,
    Class: Any,
    name: str | None = None,
    attribute: str = "app",
    reverse: str | None = None,
    keep_reduce: bool = False,
    **kw: Any,
) -> type:
    """Return a subclass of ``Class`` (or of what this dotted path names) with ``attribute`` set to the app.

    Unless ``keep_reduce``, its objects are pickled as a call of ``app.<reverse>``, so that they come back bound to
    the app that is current there; ``Class`` says with ``__reduce_args__`` what to call it with.
    """
    Class = imports.symbol_by_name(Class)  # type: ignore[no-untyped-call]
    reverse = reverse or Class.__name__

    def __reduce__(self: Any) -> tuple[Any, ...]:
        from celery.app.base import _unpickle_appattr

        return _unpickle_appattr, (reverse, self.__reduce_args__())

    attributes = {attribute: app, "__module__": Class.__module__, "__doc__": Class.__doc__, **kw}
    if not keep_reduce:
        attributes["__reduce__"] = __reduce__
    return type(name or Class.__name__, (Class,), attributes)
