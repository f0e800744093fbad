"""From URL and settings to the parameters of a connection."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from kombu.utils.imports import symbol_by_name
from kombu.utils.url import _parse_url
from redis import connection as connections
from redis.credentials import CredentialProvider

from celery.exceptions import ImproperlyConfigured

__all__ = ("connection_params", "join_url_params")

_SSL_NEEDS_CERT_REQS = (
    "A rediss:// URL must say whether the server's certificate is checked: add ?ssl_cert_reqs=CERT_REQUIRED "
    "(or CERT_OPTIONAL, CERT_NONE), or set redis_backend_use_ssl."
)

_CERT_REQS = {
    name: value
    for value in (ssl.CERT_REQUIRED, ssl.CERT_OPTIONAL, ssl.CERT_NONE)
    for name in (value.name, value.name.removeprefix("CERT_").lower())
}

#: Options that a URL may carry as text, with the type that redis-py wants.
_TYPES: dict[str, Callable[[str], Any]] = {
    "socket_timeout": float,
    "socket_connect_timeout": float,
    "socket_read_size": int,
    "health_check_interval": int,
    "max_connections": int,
    "port": int,
    "protocol": int,
}
_BOOLEANS = frozenset({"retry_on_timeout", "socket_keepalive", "ssl_check_hostname", "ssl_validate_ocsp"})


def connection_params(
    conf: Any, host: str | None, port: int | None, db: Any, password: str | None, max_connections: int | None
) -> dict[str, Any]:
    """Return what all connections share, from arguments and the settings ``redis_*``."""
    params: dict[str, Any] = {
        "host": host or conf.redis_host or "localhost",
        "port": port or conf.redis_port or 6379,
        "db": db or conf.redis_db or 0,
        "password": password or conf.redis_password,
        "max_connections": max_connections,
        "socket_timeout": conf.redis_socket_timeout and float(conf.redis_socket_timeout),
        "retry_on_timeout": conf.redis_retry_on_timeout or False,
        "socket_connect_timeout": conf.redis_socket_connect_timeout and float(conf.redis_socket_connect_timeout),
        "client_name": conf.get("redis_client_name"),
    }
    if conf.redis_username:
        params["username"] = conf.redis_username
    if health_check_interval := conf.get("redis_backend_health_check_interval"):
        params["health_check_interval"] = health_check_interval
    if conf.redis_socket_keepalive:
        params["socket_keepalive"] = True
        keepalive = (conf.result_backend_transport_options or {}).get("socket_keepalive_options")
        if keepalive:
            params["socket_keepalive_options"] = keepalive
    provider = conf.get("redis_backend_credential_provider")
    if provider:
        params["credential_provider"] = _credential_provider(provider)
        params.pop("username", None)
        params.pop("password", None)
    if conf.redis_backend_use_ssl:
        params.update(conf.redis_backend_use_ssl if isinstance(conf.redis_backend_use_ssl, dict) else {})
        _use_ssl(params)
    return params


def join_url_params(url: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """Return ``defaults`` with what ``url`` says."""
    scheme, host, port, username, password, path, parsed = _parse_url(url)
    query = dict(parsed)
    params = dict(defaults)
    if scheme in ("socket", "redis+socket"):
        params.update(connection_class=connections.UnixDomainSocketConnection, path=f"/{path}")
        for name in ("host", "port", "socket_connect_timeout", "socket_keepalive", "socket_keepalive_options"):
            params.pop(name, None)
        db = query.pop("virtual_host", query.pop("db", params.get("db")))
    else:
        params["host"], params["port"] = host or params["host"], port or params["port"]
        db = query.pop("virtual_host", query.pop("db", path)) or params.get("db")
    if "credential_provider" in query:
        params["credential_provider"] = _credential_provider(query.pop("credential_provider"))
    if "credential_provider" in params:
        params.pop("username", None)
        params.pop("password", None)
    else:
        params["password"] = password or params.get("password")
        if username:
            params["username"] = username
    params["db"] = _database_number(db)
    params.update(_typed(query))
    if scheme == "rediss":
        if params.get("ssl_cert_reqs") is None:
            raise ValueError(_SSL_NEEDS_CERT_REQS)
        _use_ssl(params)
    return params


def _use_ssl(params: dict[str, Any]) -> None:
    params["connection_class"] = connections.SSLConnection
    cert_reqs = params.get("ssl_cert_reqs")
    if isinstance(cert_reqs, str):
        try:
            params["ssl_cert_reqs"] = _CERT_REQS[cert_reqs]
        except KeyError:
            raise ValueError(f"ssl_cert_reqs is {cert_reqs!r}. {_SSL_NEEDS_CERT_REQS}") from None


def _database_number(db: Any) -> int:
    if isinstance(db, str):
        db = db.strip("/") or 0
    try:
        return int(db or 0)
    except ValueError:
        raise ValueError(f"result_backend: the database of a Redis URL is a number like /0, not {db!r}") from None


def _typed(query: dict[str, str]) -> dict[str, Any]:
    typed: dict[str, Any] = {}
    for name, text in query.items():
        value: Any = unquote(text)
        if name in _BOOLEANS:
            value = value.lower() in ("1", "true", "yes", "on")
        elif name in _TYPES:
            value = _TYPES[name](value)
        typed[name] = value
    return typed


def _credential_provider(provider: Any) -> Any:
    """Return the provider given as an object, a class, or the dotted path of one."""
    if isinstance(provider, str):
        provider = symbol_by_name(provider)
    if isinstance(provider, type):
        provider = provider()
    if not isinstance(provider, CredentialProvider):
        raise ImproperlyConfigured(
            "redis_backend_credential_provider must be a redis.CredentialProvider, its class or the path of one, "
            f"not {provider!r}"
        )
    return provider
