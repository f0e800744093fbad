"""The transport: kombu's handle on a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kombu.log import get_logger
from kombu.transport import redis as upstream
from kombu.transport.virtual import base as virtual

from celery.exceptions import ImproperlyConfigured
from celery.transports.redis.channel import Channel, SentinelChannel
from celery.transports.redis.engine import Engine
from celery.transports.redis.errors import CHANNEL_ERRORS, CONNECTION_ERRORS
from celery.transports.redis.publisher import Publisher, Sender
from celery.utils.failpoints import is_active

__all__ = ("SentinelTransport", "Transport")

logger = get_logger("celery.transports.redis")

#: Whether a test of the tests has switched this protection off.
_LEAVES_BINDINGS_LOST = is_active("unprotect.rebind")


def _why_redis_is_missing() -> str:
    """Say why the client library cannot be imported; kombu has swallowed that."""
    try:
        import redis  # noqa: F401
    except ImportError as error:
        return f"Redis as the broker needs the package `redis`: pip install celery[redis]. ({error})"
    return "The package `redis` could not be imported when it was looked for first"


class Transport(upstream.Transport):
    """Redis by lease."""

    Channel = Channel
    Publisher = Publisher
    channels: list[Any]
    connection_errors = CONNECTION_ERRORS
    channel_errors = CHANNEL_ERRORS

    def __init__(self, client: Any, **kwargs: Any) -> None:
        if upstream.redis is None:
            raise ImproperlyConfigured(_why_redis_is_missing())
        virtual.Transport.__init__(self, client, **kwargs)
        self.cycle: Engine = Engine(self)
        self.sender = Sender()

    @property
    def where(self) -> str:
        """The broker's address without its password, for messages."""
        client = self.client
        if client is None:
            return "redis"
        return f"{client.hostname or 'localhost'}:{client.port or self.default_port}/{client.virtual_host or 0}"

    # -- hooks: replace them to be told

    #: Called with ``(ids, {header: values})`` of what was revoked; without it the record of revoked tasks is not read.
    on_revoked: Callable[[list[str], dict[str, list[Any]]], None] | None = None

    def on_lost_lease(self, tags: list[str]) -> None:
        """Called with tags whose lease was lost before they were settled."""
        logger.warning(
            "%d message(s) were no longer ours when they were settled; another worker may run them again: %s",
            len(tags),
            ", ".join(tags[:5]),
        )

    def on_set_aside(self, queue: str, message: Any, reason: str) -> None:
        """Called with what went to the list ``<queue>.dead``; ``message`` is the envelope, or bytes that are none."""
        task = message.get("headers", {}).get("id") if isinstance(message, dict) else None
        logger.error("Set a message aside in %r (task id %s): %s", f"{queue}.dead", task, reason)

    def on_left(self, queue: str, message: dict[str, Any], forget: Callable[[], None]) -> None:
        """Called with what a lost worker had begun and must not be run again; ``forget()`` ends its record."""
        logger.error("Task %s had begun in a worker that is gone; it is not run again", message["headers"].get("id"))
        forget()

    def on_flushed(self) -> None:
        """Called when the server lost every key: tell the queues' bindings again."""
        if not _LEAVES_BINDINGS_LOST:
            for channel in self.channels:
                channel.rebind()

    def renew_in_thread(self) -> None:
        """Renew leases from a thread: for a worker whose tasks run on the thread that turns the loop."""
        self.cycle.needs_keeper = True

    # -- kombu's side

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        self.cycle.register(loop)

    def on_readable(self, fileno: int) -> None:
        self.cycle.on_readable(fileno)

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:
        self.cycle.drain(timeout)

    def close_connection(self, connection: Any) -> None:
        for channels in (self._avail_channels, self.channels):
            while channels:
                channels.pop().close()
        self.cycle.close()
        self.sender.close()


class SentinelTransport(Transport):
    """Redis by lease, at the master that sentinels name."""

    default_port = 26379
    Channel = SentinelChannel
