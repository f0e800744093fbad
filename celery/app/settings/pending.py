"""A configuration that nobody has read yet."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from celery.utils.collections import AttributeDictMixin

__all__ = ("PendingConfiguration",)


class PendingConfiguration(UserDict, AttributeDictMixin):  # type: ignore[type-arg]
    """Takes settings before the configuration is loaded, and loads it when the first one is read.

    ``conf`` receives what is set; ``callback`` loads, and returns the mapping to read from.
    """

    callback: Callable[[], MutableMapping[str, Any]] | None = None

    def __init__(self, conf: dict[str, Any], callback: Callable[[], MutableMapping[str, Any]]) -> None:
        # Neither parent's initializer may run: both would read.
        object.__setattr__(self, "conf", conf)
        object.__setattr__(self, "callback", callback)

    def _read(self) -> Any:
        found = self.__dict__.get("_data")
        if found is None:
            found = self.callback()  # type: ignore[misc]
            object.__setattr__(self, "_data", found)
        return found

    @property
    def data(self) -> Any:  # type: ignore[override]
        """The mapping to read from; asking loads it."""
        return self._read()

    def __setitem__(self, key: str, value: Any) -> None:
        self.conf[key] = value

    def __delitem__(self, key: str) -> None:
        del self.conf[key]

    def clear(self) -> None:
        self.conf.clear()

    def update(self, *args: Any, **kwargs: Any) -> None:
        self.conf.update(*args, **kwargs)

    def setdefault(self, *args: Any, **kwargs: Any) -> Any:
        return self.conf.setdefault(*args, **kwargs)

    def pop(self, *args: Any) -> Any:
        return self.conf.pop(*args)

    def __getitem__(self, key: str) -> Any:
        return self._read()[key]

    def __contains__(self, key: object) -> bool:
        return key in self._read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return repr(self._read())


PendingConfiguration.__module__ = "celery.app.base"
