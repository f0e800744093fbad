"""Redis behind sentinels: the master is asked for on every new connection."""

from __future__ import annotations

from typing import Any

import redis
from kombu.utils.url import maybe_sanitize_url
from redis import sentinel

from celery.backends.redis.backend import RedisBackend
from celery.backends.redis.options import join_url_params

__all__ = ("SentinelBackend", "SentinelManagedSSLConnection")


class SentinelManagedSSLConnection(sentinel.SentinelManagedConnection, redis.SSLConnection):
    """A connection to the master, over TLS."""


class SentinelBackend(RedisBackend):
    """Results in Redis behind sentinels: ``sentinel://host:port/db;sentinel://host:port/db``.

    ``result_backend_transport_options["master_name"]`` names the master, ``sentinel_kwargs`` are for the sentinels.
    """

    #: The module ``redis.sentinel``.
    sentinel = sentinel
    connection_class_ssl = SentinelManagedSSLConnection

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connparams.setdefault("hosts", [dict(self.connparams)])

    def as_uri(self, include_password: bool = False) -> str:
        """Return the URLs of all sentinels, with their passwords masked."""
        urls = (self.url or "").split(";")
        return ";".join(url if include_password else maybe_sanitize_url(url) for url in urls)

    def _params_from_url(self, url: str, defaults: dict[str, Any]) -> dict[str, Any]:
        hosts = [join_url_params(_with_scheme(part), defaults) for part in url.split(";") if part]
        shared = {name: value for name, value in defaults.items() if name not in ("host", "port", "db", "password")}
        for name in ("db", "password", "username", "credential_provider"):
            if name in hosts[0]:
                shared[name] = hosts[0][name]
        return {**shared, "hosts": hosts}

    def _get_pool(self, **params: Any) -> Any:
        options = self.app.conf.result_backend_transport_options or {}
        hosts = params.pop("hosts", [])
        connection_class = params.pop("connection_class", None)
        settings = {name: value for name, value in params.items() if name not in ("connection_class",)}
        manager = self.sentinel.Sentinel(
            [(host["host"], host["port"]) for host in hosts],
            min_other_sentinels=options.get("min_other_sentinels", 0),
            sentinel_kwargs=options.get("sentinel_kwargs", {}),
            **settings,
        )
        managed = self.connection_class_ssl if connection_class is not None else self.sentinel.SentinelManagedConnection
        master = manager.master_for(
            service_name=options.get("master_name"), redis_class=self.redis.StrictRedis, connection_class=managed
        )
        return master.connection_pool


def _with_scheme(url: str) -> str:
    return url if "://" in url else f"sentinel://{url}"
