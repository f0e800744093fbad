"""Mappings in layers, sets that forget, buffers with limits."""

from __future__ import annotations

import time
from collections import OrderedDict as _OrderedDict
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from itertools import chain
from queue import Empty
from typing import Any

__all__ = (
    "AttributeDictMixin",
    "AttributeDict",
    "BufferMap",
    "ChainMap",
    "ConfigurationView",
    "DictAttribute",
    "Evictable",
    "LimitedSet",
    "Messagebuffer",
    "OrderedDict",
    "force_mapping",
    "lpmerge",
)


def force_mapping(m: Any) -> Any:
    """Return ``m``, made a mapping of its attributes if it is none."""
    return m if isinstance(m, Mapping) else DictAttribute(m)


def lpmerge(L: dict[Any, Any], R: Mapping[Any, Any]) -> dict[Any, Any]:
    """Update ``L`` with what is not ``None`` in ``R``; return ``L``."""
    for key, value in R.items():
        if value is not None:
            L[key] = value
    return L


class OrderedDict(_OrderedDict):  # type: ignore[type-arg]
    """``collections.OrderedDict`` under the name that subclasses import."""


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


class ChainMap(MutableMapping[Any, Any]):
    """Mappings in layers: reads take the first that knows the key, writes go to the first, ``changes``.

    ``key_t`` changes keys before they are looked up.
    """

    key_t: Callable[[Any], Any] | None = None
    changes: Any = None
    defaults: Any = None
    maps: Any = None
    _observers: list[Callable[..., Any]] = []

    def __init__(self, *maps: Any, **kwargs: Any) -> None:
        layers = list(maps or ({},))
        self.__dict__.update(
            key_t=kwargs.get("key_t"), maps=layers, changes=layers[0], defaults=layers[1:], _observers=[]
        )

    def add_defaults(self, d: Any) -> None:
        """Put ``d`` right below the changes."""
        layer = force_mapping(d)
        self.defaults.insert(0, layer)
        self.maps.insert(1, layer)

    def bind_to(self, callback: Callable[..., Any]) -> None:
        """Have ``callback`` called with the arguments of every ``update``."""
        self._observers.append(callback)

    def _key(self, key: Any) -> Any:
        return key if self.key_t is None else self.key_t(key)

    def __missing__(self, key: Any) -> Any:
        raise KeyError(key)

    def __getitem__(self, key: Any) -> Any:
        key = self._key(key)
        for layer in self.maps:
            try:
                return layer[key]
            except KeyError:
                pass
        return self.__missing__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.changes[self._key(key)] = value

    def __delitem__(self, key: Any) -> None:
        try:
            del self.changes[self._key(key)]
        except KeyError:
            raise KeyError(f"Key not found in first mapping: {key!r}") from None

    def __contains__(self, key: Any) -> bool:
        key = self._key(key)
        return any(key in layer for layer in self.maps)

    def __len__(self) -> int:
        return len(set().union(*self.maps))

    def __bool__(self) -> bool:
        return any(self.maps)

    __nonzero__ = __bool__

    def __iter__(self) -> Iterator[Any]:
        return iter(dict.fromkeys(chain.from_iterable(reversed(self.maps))))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.maps))})"

    def get(self, key: Any, default: Any = None) -> Any:
        try:
            return self[self._key(key)]
        except KeyError:
            return default

    def pop(self, key: Any, *default: Any) -> Any:
        try:
            return self.changes.pop(key, *default)
        except KeyError:
            raise KeyError(f"Key not found in the first mapping: {key!r}") from None

    def clear(self) -> None:
        """Forget the changes."""
        self.changes.clear()

    def setdefault(self, key: Any, default: Any = None) -> Any:
        key = self._key(key)
        try:
            return self[key]
        except KeyError:
            self[key] = default
            return default

    def update(self, *args: Any, **kwargs: Any) -> None:
        self.changes.update(*args, **kwargs)
        for callback in self._observers:
            callback(*args, **kwargs)

    @classmethod
    def fromkeys(cls, iterable: Iterable[Any], *args: Any) -> ChainMap:
        return cls(dict.fromkeys(iterable, *args))

    def copy(self) -> Any:
        """Return the same layers with the changes copied."""
        return type(self)(self.changes.copy(), *self.defaults, key_t=self.key_t)

    def __copy__(self) -> Any:
        return self.copy()

    def iterkeys(self) -> Iterator[Any]:
        return iter(self)

    keys = iterkeys  # type: ignore[assignment]  # iterators, as ever

    def itervalues(self) -> Iterator[Any]:
        return (self[key] for key in self)

    values = itervalues  # type: ignore[assignment]

    def iteritems(self) -> Iterator[tuple[Any, Any]]:
        return ((key, self[key]) for key in self)

    items = iteritems  # type: ignore[assignment]


class ConfigurationView(ChainMap, AttributeDictMixin):
    """Settings: changes above defaults, as keys and attributes.

    A key is looked for with ``prefix`` before it and without, then as each function in ``keys`` spells it.
    """

    def __init__(
        self,
        changes: Any,
        defaults: list[Any] | None = None,
        keys: Iterable[Callable[[str], str]] | None = None,
        prefix: str | None = None,
    ) -> None:
        super().__init__(changes, *(defaults or ()))
        self.__dict__.update(prefix=prefix.rstrip("_") + "_" if prefix else prefix, _keys=tuple(keys or ()))

    def _spellings(self, key: str) -> tuple[str, ...]:
        prefix = self.prefix
        names = (prefix + key, key) if prefix and not key.startswith(prefix) else (key,)
        return names + tuple(spell(name) for name in names for spell in self._keys) if self._keys else names

    def __getitem__(self, key: str) -> Any:
        names = self._spellings(key)
        for name in names:
            for layer in self.maps:
                try:
                    return layer[self._key(name)]
                except KeyError:
                    pass
        if len(names) > 1:
            raise KeyError(f"Key not found: {key!r} (also tried: {', '.join(map(repr, names))})")
        raise KeyError(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self.changes[self._key(key)] = value

    def __contains__(self, key: Any) -> bool:
        return any(self._key(name) in layer for name in self._spellings(key) for layer in self.maps)

    def get(self, key: str, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def first(self, *keys: str) -> Any:
        """Return the first value that is not ``None``."""
        for key in keys:
            value = self.get(key)
            if value is not None:
                return value
        return None

    def clear(self) -> None:
        """Forget the changes."""
        self.changes.clear()

    def swap_with(self, other: ConfigurationView) -> None:
        """Become a view on the layers of ``other``."""
        names = ("changes", "defaults", "key_t", "prefix", "maps", "_keys")
        self.__dict__.update({name: other.__dict__[name] for name in names})

    def copy(self) -> Any:
        view = type(self)(self.changes.copy(), list(self.defaults), self._keys, self.prefix)
        view.__dict__["key_t"] = self.key_t
        return view

    def __copy__(self) -> Any:
        return self.copy()


class LimitedSet:
    """A set of the newest ``maxlen`` items, that forgets after ``expires`` seconds (zero: no limit).

    The newest ``minlen`` items stay, however old.  Times are those of ``time.monotonic``, or given as ``now``.
    ``data`` may be an iterable of items, or maps items to the time of their insertion.
    """

    #: Upstream: a limit of its heap; here nothing is kept for items that are gone.
    max_heap_percent_overload = 15

    def __init__(self, maxlen: int = 0, expires: float = 0, data: Any = None, minlen: int = 0) -> None:
        self.maxlen = maxlen or 0
        self.minlen = minlen or 0
        self.expires = expires or 0
        # item → time; oldest first while ``_is_sorted``.  Its oldest is found at once; a dict would look for it
        # behind all that was deleted, and a worker purges once a task.
        self._data: _OrderedDict[Any, float] = _OrderedDict()
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

    def _sorted(self) -> _OrderedDict[Any, float]:
        if not self._is_sorted:
            self._data = _OrderedDict(sorted(self._data.items(), key=lambda entry: entry[1]))
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

    def __init__(
        self, maxsize: int | None, iterable: Iterable[Any] | None = None, deque: Callable[..., Any] = deque
    ) -> None:
        self.maxsize = maxsize
        self.data: Any = deque(iterable or ())

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
