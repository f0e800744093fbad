"""Results in memcached, or in the memory of this process.

``cache+memcached://host:port;host:port``, ``cache+pylibmc://…``, ``cache+memory://``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from kombu.utils.encoding import bytes_to_str, ensure_bytes
from kombu.utils.functional import LRUCache

from celery.backends.base import KeyValueStoreBackend
from celery.exceptions import BackendStoreError, ImproperlyConfigured

__all__ = ("CacheBackend",)

#: How many records the memory of a process holds.
MEMORY_MAX = 5000


class DummyClient:
    """A cache in the memory of this process, for tests and programs without a worker; all of them share one."""

    _shared: Any = None
    _making = threading.Lock()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with self._making:
            if DummyClient._shared is None:
                DummyClient._shared = LRUCache(limit=MEMORY_MAX)
        self.cache = DummyClient._shared

    def get(self, key: Any, *args: Any, **kwargs: Any) -> Any:
        return self.cache.get(key)

    def get_multi(self, keys: Iterable[Any]) -> dict[Any, Any]:
        cache = self.cache
        return {key: cache[key] for key in keys if key in cache}

    def set(self, key: Any, value: Any, *args: Any, **kwargs: Any) -> None:
        self.cache[key] = value

    def delete(self, key: Any, *args: Any, **kwargs: Any) -> None:
        self.cache.pop(key, None)

    def incr(self, key: Any, delta: int = 1) -> Any:
        return self.cache.incr(key, delta)

    def touch(self, key: Any, expire: float) -> None:
        """Do nothing: nothing expires here."""


def get_best_memcache(*args: Any, **kwargs: Any) -> Any:
    """Return a memcached client made with these arguments: of pylibmc, else of python-memcached."""
    client, _ = _best_memcache()
    if not _is_pylibmc(client):
        kwargs.pop("behaviors", None)
    return client(*args, **kwargs)


def _best_memcache() -> tuple[Any, Callable[[Any], Any]]:
    """Return the client class, and what makes a key of text."""
    try:
        import pylibmc

        return pylibmc.Client, ensure_bytes
    except ImportError:
        pass
    try:
        import memcache

        return memcache.Client, bytes_to_str
    except ImportError:
        raise ImproperlyConfigured(
            "The memcached result backend needs pylibmc or python-memcached: pip install celery[memcache]"
        ) from None


def _is_pylibmc(client: Any) -> bool:
    return client.__module__.partition(".")[0] == "pylibmc"


#: Scheme → what returns the client class and the maker of keys.
backends: dict[str, Callable[[], tuple[Any, Callable[[Any], Any]]]] = {
    "memcache": lambda: (get_best_memcache, _best_memcache()[1]),
    "memcached": lambda: (get_best_memcache, _best_memcache()[1]),
    "pylibmc": lambda: (get_best_memcache, _best_memcache()[1]),
    "memory": lambda: (DummyClient, ensure_bytes),
}


class CacheBackend(KeyValueStoreBackend):
    """Results in memcached or in memory."""

    #: Addresses, of the URL.
    servers: list[str] | None = None
    supports_autoexpire = True
    supports_native_join = True
    implements_incr = True

    def __init__(
        self,
        app: Any,
        expires: Any = None,
        backend: str | None = None,
        options: dict[str, Any] | None = None,
        url: str | None = None,
        **kwargs: Any,
    ) -> None:
        options = options or {}
        super().__init__(app, url=url, **kwargs)
        conf = app.conf
        self.options = {**(conf.cache_backend_options or {}), **options}
        self.backend = url or backend or conf.cache_backend or ""
        if self.backend:
            self.backend, _, servers = self.backend.partition("://")
            self.backend = self.backend.removeprefix("cache+")
            self.servers = servers.rstrip("/").split(";")
        self.expires = self.prepare_expires(expires, type=int)
        try:
            self.Client, self.key_t = backends[self.backend]()
        except KeyError:
            raise ImproperlyConfigured(
                f"Unknown cache backend `{self.backend}`. Known: {', '.join(sorted(backends))}."
            ) from None
        self._encode_keys_again()
        self._local = threading.local()

    def _encode_keys_again(self) -> None:
        """Make the prefixes what this client takes for a key."""
        for name in ("task_keyprefix", "group_keyprefix", "chord_keyprefix"):
            setattr(self, name, self.key_t(getattr(self, name)))

    @property
    def client(self) -> Any:
        """The client of this thread: those of memcached must not be shared."""
        try:
            return self._local.client
        except AttributeError:
            client = self._local.client = self.Client(self.servers, **self.options)
            return client

    def get(self, key: Any) -> Any:
        return self.client.get(key)

    def mget(self, keys: list[Any]) -> Any:
        return self.client.get_multi(keys)

    def set(self, key: Any, value: Any) -> Any:
        taken = self.client.set(key, value, self._lifetime(self.expires))
        if taken is not None and not taken:
            raise BackendStoreError(
                f"memcached did not take {bytes_to_str(key)}: is it up, and is the value too large?"
            )
        return taken

    def delete(self, key: Any) -> Any:
        return self.client.delete(key)

    def incr(self, key: Any) -> Any:
        try:
            return self.client.incr(key)
        except KeyError:
            return None
        except Exception as error:
            if type(error).__name__ != "NotFound":  # pylibmc's way to say that there is no such key
                raise
            return None

    def expire(self, key: Any, value: Any) -> Any:
        return self.client.touch(key, self._lifetime(value))

    def _lifetime(self, seconds: Any) -> int:
        """Return seconds as memcached wants them: more than 30 days are a point in time."""
        seconds = int(seconds or 0)
        return seconds if seconds <= 30 * 86400 else int(time.time()) + seconds

    def __reduce__(self, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> tuple[Any, ...]:
        servers = ";".join(self.servers or ())
        backend = f"{self.backend}://{servers}/"
        own = {"backend": backend, "expires": self.expires, "options": self.options}
        return super().__reduce__(args, {**own, **(kwargs or {})})

    def as_uri(self, *args: Any, **kwargs: Any) -> str:
        """Return the addresses; there is no password in them."""
        return f"{self.backend}://{';'.join(self.servers or ())}/"
