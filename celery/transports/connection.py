"""kombu's connection, with transports found by :func:`celery.transports.resolve`."""

from __future__ import annotations

from typing import Any

import kombu
from kombu.connection import ConnectionPool, PooledConnection

from celery.transports import TRANSPORTS, resolve, scheme_of

__all__ = ("Connection",)


class Connection(kombu.Connection):
    """A connection whose ``redis``, ``rediss``, ``sentinel`` and ``sqlite`` are ours.

    The scheme stays a plain word in ``transport_cls``, so ``as_uri()``, ``info()``, clones, pools and
    fail-over to another URL keep working and keep finding our class.
    """

    def __init__(self, hostname: Any = "localhost", *args: Any, transport: Any = None, **kwargs: Any) -> None:
        if transport is None and isinstance(hostname, str) and "://" in hostname:
            scheme = scheme_of(hostname)
            found = resolve(scheme)  # complains about an unknown scheme, before kombu does
            if scheme in TRANSPORTS and found.can_parse_url:
                transport = found
        super().__init__(hostname, *args, transport=transport, **kwargs)  # type: ignore[misc]  # the last of them

    def get_transport_cls(self) -> Any:
        return resolve(self.transport_cls)

    def Pool(self, limit: int | None = None, **kwargs: Any) -> _ConnectionPool:
        return _ConnectionPool(self, limit, **kwargs)


class _Pooled(PooledConnection, Connection):
    """A connection of a pool: kombu's, that finds our transports."""


class _ConnectionPool(ConnectionPool):
    """kombu's pool; what it makes stays ours."""

    def new(self) -> _Pooled:
        return _Pooled(self, **dict(self.connection._info(resolve=False)))
