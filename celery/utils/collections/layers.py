"""Mappings in layers: changes above defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from itertools import chain
from typing import Any

from celery.utils.collections.attributes import AttributeDictMixin, force_mapping

__all__ = ("ChainMap", "ConfigurationView", "lpmerge")


def lpmerge(L: dict[Any, Any], R: Mapping[Any, Any]) -> dict[Any, Any]:
    """Update ``L`` with what is not ``None`` in ``R``; return ``L``."""
    for key, value in R.items():
        if value is not None:
            L[key] = value
    return L


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
