"""The broker connection itself: first to start, last to close."""

from __future__ import annotations

import json
from typing import Any

from kombu.common import ignore_errors

from celery import bootsteps
from celery.utils.failpoints import is_active
from celery.utils.log import get_logger

__all__ = ("Connection", "open_connection")

logger = get_logger(__name__)

#: Between two heartbeats of AMQP, where Celery's default is left as it is; what is dead is known after twice that.
HEARTBEAT_SECONDS, UPSTREAM_HEARTBEAT_SECONDS = 5.0, 120

#: Whether a test of the tests has switched this protection off.
_WAITS_FOREVER = is_active("unprotect.deadline")


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


def open_connection(consumer: Any) -> Any:
    """Return an established connection for ``consumer``; its services hear what the transport has to tell."""
    consumer.amqheartbeat = _heartbeat(consumer)
    connection = consumer.connection_for_read(heartbeat=consumer.amqheartbeat)
    consumer._receiver.hear_of(connection.transport)
    consumer.revocations.hear_of(connection.transport)
    if consumer.hub:
        connection.transport.register_with_event_loop(connection.connection, consumer.hub)
        consumer.delays.hear_of(connection)
        renew_in_thread = getattr(connection.transport, "renew_in_thread", None)
        traits = getattr(consumer.pool, "traits", None)
        if renew_in_thread is not None and traits is not None and not traits.isolates_tasks:
            renew_in_thread()  # a task may keep this thread, and with it the loop, for longer than a lease lasts
    return connection


def _heartbeat(consumer: Any) -> float:
    """Return the seconds between heartbeats: by default fewer than upstream's two minutes, so that a dead
    connection is known soon; not where a task may keep this thread from sending any.
    """
    seconds: float = 0 if _WAITS_FOREVER else consumer.amqheartbeat
    traits = getattr(consumer.pool, "traits", None)
    is_free = traits is not None and traits.isolates_tasks
    return HEARTBEAT_SECONDS if is_free and seconds == UPSTREAM_HEARTBEAT_SECONDS else seconds


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
