"""Brokers of our own behind kombu's interface, and the one table that says which they are.

``resolve`` turns a broker URL or an alias into a transport class; :class:`Connection` is kombu's connection
that asks ``resolve``, so that it also stays ours when it is cloned, pooled or fails over to another URL.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import Any

from celery.exceptions import ImproperlyConfigured

__all__ = ("TRANSPORTS", "Connection", "known_schemes", "resolve", "scheme_of")

#: Schemes that are ours, and where they live.
TRANSPORTS: dict[str, str] = {
    "amqp": "celery.transports.amqp:Transport",
    "amqps": "celery.transports.amqp:SSLTransport",
    "pyamqp": "celery.transports.amqp:Transport",
    "redis": "celery.transports.redis:Transport",
    "rediss": "celery.transports.redis:Transport",
    "sentinel": "celery.transports.redis:SentinelTransport",
    "sqlite": "celery.transports.sqlite:Transport",
}

_resolved: dict[str, type] = {}


def scheme_of(url_or_alias: str) -> str:
    """Return the name of the transport: ``redis`` for ``redis://…``, ``redis+socket://…`` and ``redis``."""
    if ";" in url_or_alias:
        url_or_alias = url_or_alias.split(";", 1)[0]
    if "://" not in url_or_alias:
        return url_or_alias
    scheme = url_or_alias.split("://", 1)[0].split("+", 1)[0]
    if "." in scheme or ":" in scheme:  # a URL must not decide which module is imported
        raise ImproperlyConfigured(f"Unknown broker scheme `{scheme}` in `broker_url`.")
    return scheme if scheme in TRANSPORTS else scheme.lower()


def known_schemes() -> list[str]:
    """Return every scheme that a broker URL may begin with: ours and kombu's."""
    from kombu.transport import TRANSPORT_ALIASES

    return sorted({*TRANSPORTS, *TRANSPORT_ALIASES}, key=str.lower)


def resolve(url_or_alias: Any) -> Any:
    """Return the transport class for a broker URL, an alias, a dotted path or a class.

    Raises:
        ImproperlyConfigured: no such scheme, with the nearest known one.
    """
    if url_or_alias and not isinstance(url_or_alias, str):
        if not isinstance(url_or_alias, (list, tuple)):
            return url_or_alias
        url_or_alias = url_or_alias[0]
    name = scheme_of(url_or_alias or "amqp")
    try:
        return _resolved[name]
    except KeyError:
        transport = _resolved[name] = _load(name)
        return transport


def _load(name: str) -> Any:
    from kombu.transport import TRANSPORT_ALIASES, get_transport_cls

    if name in TRANSPORTS:
        module, _, attribute = TRANSPORTS[name].partition(":")
        return getattr(import_module(module), attribute)
    if name in TRANSPORT_ALIASES or "." in name or ":" in name:
        return get_transport_cls(name)
    known = known_schemes()
    nearest = get_close_matches(name, known, n=1)
    hint = f" Did you mean `{nearest[0]}`?" if nearest else ""
    raise ImproperlyConfigured(f"Unknown broker scheme `{name}` in `broker_url`.{hint} Known: {', '.join(known)}.")


def __getattr__(name: str) -> Any:
    if name == "Connection":
        from celery.transports.connection import Connection

        globals()["Connection"] = Connection
        return Connection
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
