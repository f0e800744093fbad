"""The broker connection itself: first to start, last to close."""

from __future__ import annotations

import json
from typing import Any

from kombu.common import ignore_errors

from celery import bootsteps
from celery.utils.log import get_logger

__all__ = ("Connection",)

logger = get_logger(__name__)


class Connection(bootsteps.StartStopStep):
    """Connects, and tells what it is connected to."""

    def __init__(self, c: Any, **kwargs: Any) -> None:
        c.connection = None
        super().__init__(c, **kwargs)

    def start(self, c: Any) -> None:
        c.connection = c.connect()
        logger.info("Connected to %s", c.connection.as_uri())

    def close_connection(self, c: Any) -> None:
        """Close the connection, whatever state it is in."""
        connection, c.connection = c.connection, None
        if connection is not None:
            ignore_errors(connection, connection.close)

    def shutdown(self, c: Any) -> None:
        self.close_connection(c)

    def info(self, c: Any) -> dict[str, Any]:
        if c.connection is None:
            return {"broker": "N/A"}
        return {"broker": _public(c.connection)}


def _public(connection: Any) -> dict[str, Any]:
    """Return the parameters of ``connection`` that anyone may read, as plain values."""
    info = dict(connection.info())
    info.pop("password", None)
    info["transport_options"] = _without_secrets(info.get("transport_options") or {})
    info["alternates"] = [connection.__class__(url).as_uri() for url in info.get("alternates") or ()]
    info["ssl"] = bool(info.get("ssl"))
    info["credential_provider"] = info["credential_provider"] and str(type(info["credential_provider"]).__name__)
    return {key: value if _is_plain(value) else repr(value) for key, value in info.items()}


def _without_secrets(options: Any) -> Any:
    if isinstance(options, dict):
        return {
            str(key): "********" if value and _names_a_secret(str(key)) else _without_secrets(value)
            for key, value in options.items()
        }
    return options if _is_plain(options) else repr(options)


def _names_a_secret(key: str) -> bool:
    return any(word in key.lower() for word in ("password", "secret", "token", "credential", "_key", "passwd"))


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
