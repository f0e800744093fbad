"""A set that forgets what is old, or too much."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ("LimitedSet",)


class LimitedSet:
    """A set of the newest ``maxlen`` items, that forgets after ``expires`` seconds (zero: no limit).

    The newest ``minlen`` items stay, however old.  Times are those of ``time.monotonic``, or given as ``now``.
    ``data`` may be an iterable of items, or maps items to the time of their insertion.
    """

    #: Upstream: a limit of its heap; here nothing is kept for items that are gone.
    max_heap_percent_overload = 15

    maxlen: int
    minlen: int
    #: Seconds.
    expires: float

    def __init__(self, maxlen: int = 0, expires: float = 0, data: Any = None, minlen: int = 0) -> None:
        self.maxlen = maxlen or 0
        self.minlen = minlen or 0
        self.expires = expires or 0
        # item → time; oldest first while ``_is_sorted``.  Its oldest is found at once; a dict would look for it
        # behind all that was deleted, and a worker purges once a task.
        self._data: OrderedDict[Any, float] = OrderedDict()
        self._newest = float("-inf")
        self._is_sorted = True
        if not self.maxlen >= self.minlen >= 0:
            raise ValueError("minlen must be a positive number, less or equal to maxlen.")
        if self.expires < 0:
            raise ValueError("expires cannot be negative!")
        if data:
            self.update(data)

    def add(self, item: Any, now: float | None = None) -> None:
        """Add ``item``, or make it the newest if it is there."""
        self._insert(item, time.monotonic() if now is None else float(now))
        if self.maxlen and len(self._data) > self.maxlen:
            self.purge(now)

    def _insert(self, item: Any, inserted: float) -> None:
        data = self._data
        data.pop(item, None)
        if inserted < self._newest:
            self._is_sorted = False
        else:
            self._newest = inserted
        data[item] = inserted

    def _sorted(self) -> OrderedDict[Any, float]:
        if not self._is_sorted:
            self._data = OrderedDict(sorted(self._data.items(), key=lambda entry: entry[1]))
            self._is_sorted = True
        return self._data

    def update(self, other: Any) -> None:
        """Add all of ``other``: a set like this, a mapping of items to times, or an iterable of items."""
        if not other:
            return
        if isinstance(other, LimitedSet):
            other = other.as_dict()
        if isinstance(other, Mapping):
            self._merge(other)
        else:
            for item in other:
                self.add(item)
        self.purge()

    def _merge(self, times: Mapping[Any, float]) -> None:
        now = time.monotonic()
        for item, inserted in times.items():
            if not isinstance(inserted, float):
                raise ValueError(
                    f"Expecting float timestamp, got type {type(inserted)!r} with value: {inserted} for {item!r}"
                )
            # a time ahead of our clock is another machine's; it must not keep the item for ever
            self._insert(item, min(inserted, now))

    def purge(self, now: float | None = None) -> None:
        """Forget what is too much or too old."""
        data = self._sorted()
        if self.maxlen:
            for _ in range(len(data) - self.maxlen):
                data.popitem(last=False)
        if self.expires:
            limit = (time.monotonic() if now is None else now) - self.expires
            while len(data) > self.minlen and next(iter(data.values())) < limit:
                data.popitem(last=False)

    def discard(self, item: Any) -> None:
        """Remove ``item`` if it is there."""
        self._data.pop(item, None)

    pop_value = discard

    def pop(self, default: Any = None) -> Any:
        """Remove and return the oldest item."""
        data = self._sorted()
        return data.popitem(last=False)[0] if data else default

    def clear(self) -> None:
        self._data.clear()
        self._newest = float("-inf")
        self._is_sorted = True

    def as_dict(self) -> dict[Any, float]:
        """Return ``{item: time of insertion}``."""
        return dict(self._data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LimitedSet) and self.as_dict() == other.as_dict()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__}({len(self)}): maxlen={self.maxlen}, expires={self.expires}, minlen={self.minlen}>"
        )

    def __iter__(self) -> Iterator[Any]:
        """Oldest first."""
        return iter(self._sorted())

    def __len__(self) -> int:
        return len(self._data)

    def __contains__(self, key: Any) -> bool:
        return key in self._data

    def __bool__(self) -> bool:
        return bool(self._data)

    __nonzero__ = __bool__

    def __reduce__(self) -> tuple[type[LimitedSet], tuple[Any, ...]]:
        return type(self), (self.maxlen, self.expires, self.as_dict(), self.minlen)
