"""``app.conf``: layers of settings, read on first use and remembered until one of them changes.

::

    changes              conf.x = ..., conf.update(...), arguments of Celery(), the command line
    add_defaults(...)    the latest first
    the user's object    module, class, mapping, Django settings; looked at live
    DEFAULTS             the table

Environment variables (``CELERY_BROKER_URL`` ...) stand above all layers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from typing import Any

from celery.app.settings import checks
from celery.app.settings.masking import censored
from celery.app.settings.naming import SpellingOf, new_to_old, old_to_new, spellings, user_prefix
from celery.app.settings.table import NEW_BY_OLD, SETTING_KEYS, Defaults, find
from celery.app.settings.watch import is_default, watcher
from celery.utils.collections import ConfigurationView, force_mapping

__all__ = ("Settings",)

_MISSING = object()
# Never the same twice in one process, so that a cache keyed by it need not know whose it is.
_next_version = count(1).__next__


class Settings(ConfigurationView):
    """The configuration of an app: a mapping whose values are attributes too.

    Reading an attribute costs what any attribute costs: the value is found and checked once and then kept in
    the instance.  All of that is dropped when the configuration changes: by assignment or ``update`` at once,
    and by a change inside the user's own object, which stays live, at the next ``app.conf`` (so
    ``override_settings`` of Django takes effect).

    ``version`` is an integer that changes at the same moment, unique in the process.  Whoever precomputes
    something from settings keeps the version it was computed for, and compares::

        conf = app.conf
        if conf.version != self.version: ...  # compute again

    ``conf[name]`` gives the value as it is; ``conf.name`` raises ``ImproperlyConfigured`` if it cannot be used.
    """

    #: set on instances through ``__dict__``, since assignment means a setting here
    changes: dict[str, Any]
    defaults: list[Any]
    maps: list[Any]
    prefix: str | None
    deprecated_settings: set[str] | None
    version: int

    def __init__(self, *args: Any, deprecated_settings: set[str] | None = None, **kwargs: Any) -> None:
        self.__dict__.update(version=_next_version(), deprecated_settings=deprecated_settings)
        self._set_layers(*args, **kwargs)

    def _set_layers(
        self,
        changes: Any,
        defaults: Iterable[Any] | None = None,
        keys: Iterable[SpellingOf] | None = None,
        prefix: str | None = None,
    ) -> None:
        super().__init__(changes, list(defaults or ()), keys, prefix)
        self.__dict__.update(
            prefix=user_prefix(prefix),
            _alternatives=(old_to_new, new_to_old) if keys is None else tuple(keys),
            _spelled={},
            _known={},
            _remembered=[],
        )
        self._watch()

    # -- reading

    def _candidates(self, name: str) -> tuple[str, ...]:
        try:
            return self._spelled[name]  # type: ignore[no-any-return]
        except KeyError:
            found = self._spelled[name] = spellings(name, self.prefix, self._alternatives)
            return found

    def _find(self, name: str) -> Any:
        """Return the value in the topmost layer that has it under any spelling, or ``_MISSING``."""
        candidates = self._candidates(name)
        for layer in self.maps:
            for spelling in candidates:
                try:
                    return layer[spelling]
                except KeyError:
                    pass
        return _MISSING

    def __getitem__(self, name: str) -> Any:
        try:
            return self._known[name]
        except KeyError:
            pass
        version = self.version
        value = self._find(name)
        if value is _MISSING:
            raise KeyError(name)
        value = checks.converted(name, value)
        self._known[name] = value
        if version != self.version:  # changed meanwhile, in another thread
            self._known.pop(name, None)
        return value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
        version = self.version
        try:
            value = self[name]
        except KeyError:
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self
            ) from None
        problem = checks.problem(name, value)
        if problem is not None:
            raise checks.Misconfigured(problem, self.origin_of(name))
        attributes = self.__dict__
        if name not in attributes and not hasattr(type(self), name):
            attributes[name] = value
            self._remembered.append(name)
            if version != self.version:
                attributes.pop(name, None)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def first(self, *keys: str) -> Any:
        """Return the first value that is not ``None``."""
        return next((value for value in map(self.get, keys) if value is not None), None)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) is not _MISSING

    def __iter__(self) -> Iterator[str]:
        seen: dict[str, None] = {}
        for layer in self.maps:
            seen.update(dict.fromkeys(layer.keys()))
        return iter(seen)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *SETTING_KEYS})

    # -- changing

    def changed(self) -> None:
        """Forget what was remembered; for code that changed a layer behind our back."""
        attributes = self.__dict__
        attributes["version"] = _next_version()
        remembered, attributes["_remembered"], attributes["_known"] = self._remembered, [], {}
        for name in remembered:
            attributes.pop(name, None)

    def _watch(self) -> None:
        attributes = self.__dict__
        looks = [look for look in map(watcher, self.maps) if look is not None]
        attributes["_seen"] = [(look, list(look())) for look in looks]
        self.changed()

    def refresh(self) -> None:
        """Look whether a live layer changed; ``app.conf`` does this at every access, so it is short."""
        try:
            for look, seen in self._seen:
                if list(look()) != seen:
                    self._watch()
                    return
        except Exception:  # a user's ``__eq__``; it is asked only where the object is another one
            self._watch()

    def __setitem__(self, name: str, value: Any) -> None:
        self._put(name, value)
        self._watch()

    def _put(self, name: str, value: Any) -> None:
        changes = self.changes
        changes[name] = value
        # Another spelling of the same setting may not hide the new value.
        for spelling in self._candidates(name):
            if spelling != name:
                changes.pop(spelling, None)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(getattr(type(self), name, None), property) or name not in self._own_attributes:
            self[name] = value
        else:
            self.__dict__[name] = value

    _own_attributes = frozenset({"changes", "defaults", "maps", "prefix", "deprecated_settings"})

    def __delitem__(self, name: str) -> None:
        found = [spelling for spelling in self._candidates(name) if spelling in self.changes]
        if not found:
            raise KeyError(name)
        for spelling in found:
            del self.changes[spelling]
        self._watch()

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(name) from None

    def update(self, *args: Any, **kwargs: Any) -> None:
        for name, value in dict(*args, **kwargs).items():
            self._put(name, value)
        self._watch()
        for callback in self._observers:
            callback(*args, **kwargs)

    def setdefault(self, key: str, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str, *default: Any) -> Any:
        value = self.changes.pop(key, *default)
        self._watch()
        return value

    def clear(self) -> None:
        self.changes.clear()
        self._watch()

    def add_defaults(self, d: Any) -> None:
        layer = force_mapping(d)
        self.defaults.insert(0, layer)
        self.maps.insert(1, layer)
        self._watch()

    def swap_with(self, other: ConfigurationView) -> None:
        """Take over the layers of ``other``."""
        names = ("changes", "defaults", "maps", "prefix", "deprecated_settings", "_alternatives", "_origin")
        theirs = other.__dict__
        self.__dict__.update({name: theirs[name] for name in names if name in theirs}, _spelled={})
        self._watch()

    # -- settings with a rule of their own

    @property
    def broker_url(self) -> Any:
        return os.environ.get("CELERY_BROKER_URL") or self.first("broker_url", "broker_host")

    @property
    def broker_read_url(self) -> Any:
        return os.environ.get("CELERY_BROKER_READ_URL") or self.get("broker_read_url") or self.broker_url

    @property
    def broker_write_url(self) -> Any:
        return os.environ.get("CELERY_BROKER_WRITE_URL") or self.get("broker_write_url") or self.broker_url

    @property
    def result_backend(self) -> Any:
        return os.environ.get("CELERY_RESULT_BACKEND") or self.first("result_backend", "CELERY_RESULT_BACKEND")

    @property
    def task_default_exchange(self) -> Any:
        return self.first("task_default_exchange", "task_default_queue")

    @property
    def task_default_routing_key(self) -> Any:
        return self.first("task_default_routing_key", "task_default_queue")

    @property
    def timezone(self) -> Any:
        # Upstream: a Django project's TIME_ZONE counts where no timezone of ours is set.
        return self.first("timezone", "TIME_ZONE")

    # -- looking things up

    def finalize(self) -> Settings:
        """Load the configuration now, if that has not happened; return it."""
        self.get("accept_content")
        return self

    def find_option(self, name: str, namespace: str = "") -> Any:
        """Find a setting by its short or full name: ``(namespace, key, option)``."""
        return find(name, namespace)

    def find_value_for_key(self, name: str, namespace: str = "celery") -> Any:
        """Return the value of a setting of which only the short name may be known."""
        found = self.find_option(name, namespace=namespace)
        return self.get_by_parts(*filter(None, (found.namespace, found.key)))

    def get_by_parts(self, *parts: str) -> Any:
        """``get_by_parts("task", "serializer")`` is ``conf["task_serializer"]``."""
        return self["_".join(part for part in parts if part)]

    def value_set_for(self, key: str) -> bool:
        """Whether somebody configured ``key``."""
        return any(spelling in layer for layer in self._user_layers() for spelling in self._candidates(key))

    def _user_layers(self) -> list[Any]:
        self.finalize()
        return [layer for layer in self.maps if not is_default(layer)]

    def without_defaults(self) -> Settings:
        """Return a copy that has only what somebody configured."""
        layers = self._user_layers()
        return type(self)({}, layers, self._alternatives, self.prefix)

    def copy(self) -> Settings:
        return type(self)(
            dict(self.changes),
            list(self.maps[1:]),
            self._alternatives,
            self.prefix,
            deprecated_settings=self.deprecated_settings,
        )

    __copy__ = copy

    def __reduce__(self) -> tuple[Any, ...]:
        configured = self.without_defaults()
        return _restore, (type(self), {name: configured[name] for name in configured}, self.prefix)

    # -- telling about it

    def origin_of(self, name: str) -> str:
        """Say where the value of ``name`` comes from, for messages: ``CELERY_X in proj/settings.py``."""
        return checks.origin(self, name)

    def validate(self) -> None:
        """Check all that is configured; programs call this before they start.

        Raises:
            ImproperlyConfigured: one line for each value that cannot be used and each name that is nearly one of ours.
        """
        checks.validate(self)

    def table(self, with_defaults: bool = False, censored: bool = True) -> dict[str, Any]:
        """Return ``{name: value}`` of what is configured, secrets replaced by stars."""
        configured = self if with_defaults else self.without_defaults()
        names = self._names_to_show(configured)
        show: Callable[[str, Any, str | None], Any] = _censored if censored else _plain
        return {name: show(name, configured.get(name), self.prefix) for name in names}

    def _names_to_show(self, configured: Settings) -> list[str]:
        """Settings are public and, in a configuration with a prefix (Django's settings), have that prefix."""
        names = [name for name in configured if not name.startswith("_")]
        if not self.prefix:
            return names
        return [name for name in names if name.startswith(self.prefix) or name in SETTING_KEYS or name in NEW_BY_OLD]

    def humanize(self, with_defaults: bool = False, censored: bool = True) -> str:
        """Return ``table()`` as text, a setting a line."""
        from celery.utils.text import pretty

        rows = self.table(with_defaults, censored).items()
        return "\n".join(f"{name}: {pretty(value, width=50)}" for name, value in rows)

    def maybe_warn_deprecated_settings(self) -> bool:
        """Warn about each old name in use; tell whether there was one."""
        self.finalize()
        for name in sorted(self.deprecated_settings or ()):
            checks.warn_old_name(name)
        return bool(self.deprecated_settings)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.table()!r})"


Settings.__module__ = "celery.app.utils"


def _censored(name: str, value: Any, prefix: str | None) -> Any:
    return censored(name, value, prefix)


def _plain(name: str, value: Any, prefix: str | None) -> Any:
    return value


def _restore(kind: type[Settings], configured: Mapping[str, Any], prefix: str | None) -> Settings:
    return kind(dict(configured), [Defaults()], prefix=prefix)
