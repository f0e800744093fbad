"""Buffers that give up their oldest items when they are full."""

from __future__ import annotations

from collections import OrderedDict as _OrderedDict
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from queue import Empty
from typing import Any

__all__ = ("BufferMap", "Evictable", "Messagebuffer", "OrderedDict")


class OrderedDict(_OrderedDict):  # type: ignore[type-arg]
    """``collections.OrderedDict`` under the name that subclasses import."""


class Evictable:
    """Can give up its oldest item; subclasses say how in ``_evictcount`` and ``take``."""

    Empty = Empty

    def evict(self) -> None:
        """Drop items until the limit is kept."""
        self._evict(range(self._evictcount))  # type: ignore[attr-defined]  # mixed in

    def _evict(self, limit: Iterable[int]) -> None:
        try:
            for _ in limit:
                self._evict_one()
        except (IndexError, Empty):
            pass

    def _evict_one(self) -> None:
        self.take()  # type: ignore[attr-defined]  # mixed in


class Messagebuffer(Evictable):
    """A queue that keeps the newest ``maxsize`` items."""

    maxsize: int | None
    #: The items, oldest first.
    data: Any

    def __init__(
        self, maxsize: int | None, iterable: Iterable[Any] | None = None, deque: Callable[..., Any] = deque
    ) -> None:
        self.maxsize = maxsize
        self.data = deque(iterable or ())

    def put(self, item: Any) -> None:
        self.data.append(item)
        self.evict()

    def extend(self, it: Iterable[Any]) -> None:
        self.data.extend(it)
        self.evict()

    def take(self, *default: Any) -> Any:
        """Remove and return the oldest item; ``Empty`` is raised where there is none and no default."""
        try:
            return self.data.popleft()
        except IndexError:
            if default:
                return default[0]
            raise Empty from None

    @property
    def _evictcount(self) -> int:
        return 0 if self.maxsize is None else max(0, len(self.data) - self.maxsize)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self)}/{self.maxsize}>"

    def __iter__(self) -> Iterator[Any]:
        """Take the items one by one, oldest first."""
        while self.data:
            yield self.data.popleft()

    def __len__(self) -> int:
        return len(self.data)

    def __contains__(self, item: Any) -> bool:
        return item in self.data

    def __reversed__(self) -> Iterator[Any]:
        """Take the items one by one, newest first."""
        while self.data:
            yield self.data.pop()

    def __getitem__(self, index: int) -> Any:
        return self.data[index]


class BufferMap(OrderedDict, Evictable):
    """A buffer for each key, and a limit for all of them together.

    When it is full, the buffer that was used least recently loses its oldest item.
    """

    Buffer = Messagebuffer
    Empty = Empty

    maxsize: int | None = None
    total = 0
    bufmaxsize: int | None = None

    def __init__(self, maxsize: int, iterable: Any = None, bufmaxsize: int = 1000) -> None:
        super().__init__()
        self.maxsize = maxsize
        self.bufmaxsize = bufmaxsize
        if iterable:
            for key, items in dict(iterable).items():
                self.extend(key, items)

    def put(self, key: Any, item: Any) -> None:
        self._change(key, lambda buffer: buffer.put(item))

    def extend(self, key: Any, it: Iterable[Any]) -> None:
        self._change(key, lambda buffer: buffer.extend(it))

    def _change(self, key: Any, change: Callable[[Messagebuffer], None]) -> None:
        buffer = self._get_or_create_buffer(key)
        before = len(buffer)
        change(buffer)
        self.total += len(buffer) - before
        self.move_to_end(key)
        self.evict()

    def take(self, key: Any, *default: Any) -> Any:
        """Remove and return the oldest item for ``key``; ``Empty`` is raised where there is none and no default."""
        buffer = self.get(key)
        if not buffer:
            if default:
                return default[0]
            raise Empty
        item = buffer.take()
        self.total -= 1
        if buffer:
            self.move_to_end(key)
        else:
            del self[key]
        return item

    def _get_or_create_buffer(self, key: Any) -> Messagebuffer:
        try:
            return self[key]  # type: ignore[no-any-return]
        except KeyError:
            buffer = self[key] = self._new_buffer()
            return buffer

    def _new_buffer(self) -> Messagebuffer:
        return self.Buffer(maxsize=self.bufmaxsize)

    def _LRUkey(self) -> Any:
        return next(iter(self))

    def _evict_one(self) -> None:
        if not self:
            raise IndexError("nothing to evict")
        self.take(self._LRUkey(), None)

    @property
    def _evictcount(self) -> int:
        return 0 if self.maxsize is None else max(0, self.total - self.maxsize)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.total}/{self.maxsize}>"
