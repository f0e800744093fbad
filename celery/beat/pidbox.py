"""Beat's mailbox: it answers ``celery inspect ping``, for as long as the scheduler ticks."""

from __future__ import annotations

import threading
import time
from typing import Any

from kombu.common import ignore_errors
from kombu.pidbox import Node

from celery.utils.log import get_logger
from celery.utils.nodenames import default_nodename, host_format

__all__ = ("BeatPidbox", "beat_nodename")

logger = get_logger("celery.beat")

NODENAME_DEFAULT = "celerybeat"


def beat_nodename(hostname: str | None) -> str:
    """Return the name of beat's node: ``celerybeat@`` this host, unless ``hostname`` says otherwise."""
    return host_format(default_nodename(hostname, NODENAME_DEFAULT))


class _Stopping(Exception):
    """Beat stops while its mailbox is looking for the broker."""


class _BeatNode(Node):  # type: ignore[misc]  # kombu has no types
    """Keeps silent about commands that are for workers, and about pings while beat does not tick."""

    beat_pidbox: Any = None

    def dispatch(self, method: str, arguments: Any = None, reply_to: Any = None, ticket: Any = None, **kw: Any) -> Any:
        if method not in (self.handlers or {}):
            return None
        if method == "ping" and self.beat_pidbox.is_stale():
            logger.warning(
                "beat pidbox: not answering ping, the scheduler has not ticked for %.1fs (over the %ss limit).",
                self.beat_pidbox.tick_age(),
                self.beat_pidbox.max_tick_age,
            )
            return None
        return super().dispatch(method, arguments=arguments, reply_to=reply_to, ticket=ticket, **kw)


class BeatPidbox:
    """Listens in a thread and on a connection of its own, so that a broker that hangs holds up no entry."""

    service: Any
    app: Any
    hostname: str
    #: what the handlers of commands are given
    state: dict[str, Any]
    node: Any
    thread: threading.Thread | None
    first_connection_attempt: bool

    #: seconds between two attempts to connect
    retry_interval: float = 5.0
    #: seconds for which the end of the thread is awaited
    join_timeout: float = 3.0
    #: a scheduler that ticked within so many seconds is never called stale, unless the setting says so
    min_tick_age: float = 60.0

    def __init__(self, service: Any) -> None:
        self.service = service
        self.app = service.app
        self.hostname = beat_nodename(service.hostname)
        self.state = {"app": self.app, "service": service}
        self.node = _BeatNode(
            self.hostname,
            state=self.state,
            handlers={"ping": self._ping},
            mailbox=self.app.control.mailbox,
        )
        self.node.beat_pidbox = self
        self.thread = None
        self.first_connection_attempt = True
        self._shutdown = threading.Event()

    # -- what it answers

    @property
    def max_tick_age(self) -> float:
        """Seconds without a tick after which beat counts as stuck."""
        limit = self.app.conf.beat_remote_control_max_tick_age
        if limit is not None:
            return limit  # type: ignore[no-any-return]
        from celery.beat.scheduler import DEFAULT_MAX_INTERVAL

        interval = self.service.effective_max_interval or self.service.max_interval or DEFAULT_MAX_INTERVAL
        return max(self.min_tick_age, 2 * interval)

    def tick_age(self) -> float | None:
        """Return the seconds since the last tick; ``None`` before the first."""
        last = self.service._last_tick
        return None if last is None else time.monotonic() - last

    def is_stale(self) -> bool:
        age = self.tick_age()
        return age is not None and age > self.max_tick_age

    def _ping(self, state: Any, **kwargs: Any) -> dict[str, str]:
        return {"ok": "pong"}

    def on_message(self, body: Any, message: Any) -> None:
        """Answer one command; whatever it contains, the mailbox goes on."""
        clock = message.headers.get("clock")
        self.app.clock.adjust(clock if isinstance(clock, int) else 0)
        message.headers["clock"] = 0  # kombu adjusts once more
        try:
            self.node.handle_message(body, message)
        except Exception as error:
            logger.error("beat pidbox: Control command error: %r", error, exc_info=True)

    # -- life

    def fanout_support(self) -> tuple[bool, str]:
        """Return whether the broker can tell all nodes at once, and the name of its transport."""
        with self.app.connection_for_read() as connection:
            name = connection.transport_cls if isinstance(connection.transport_cls, str) else ""
            exchange_types = connection.transport.implements.exchange_type
            return "fanout" in exchange_types, name or connection.transport.driver_type

    def start(self) -> None:
        supported, transport = self.fanout_support()
        if not supported:
            logger.warning("beat pidbox: the transport %s has no broadcasts, so beat answers no ping.", transport)
            return
        self.thread = threading.Thread(target=self._loop, name="beat-pidbox", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self._shutdown.set()
        if self.thread is not None:
            self.thread.join(self.join_timeout)

    def _loop(self) -> None:
        """Listen until `stop`, connecting again as often as needed."""
        while not self._shutdown.is_set():
            try:
                with self._connect() as connection:
                    self._consume_from(connection)
            except _Stopping:
                return
            except Exception as error:  # a thread of its own has nobody else to tell
                if not self._may_retry():
                    logger.error("beat pidbox: Connection error: %s. Not trying again.", error)
                    return
                logger.error("beat pidbox: Connection error: %s. Trying again in %ss.", error, self.retry_interval)
                self._shutdown.wait(self.retry_interval)
            self.first_connection_attempt = False

    def _may_retry(self) -> bool:
        conf = self.app.conf
        if self.first_connection_attempt and conf.broker_connection_retry_on_startup is not None:
            return bool(conf.broker_connection_retry_on_startup)
        return bool(conf.broker_connection_retry)

    def _connect(self) -> Any:
        def stop_if_asked() -> None:
            if self._shutdown.is_set():
                raise _Stopping

        def told(error: Exception, interval: float) -> None:
            logger.error("beat pidbox: Connection error: %s. Trying again in %s seconds...", error, interval)

        connection = self.app.connection_for_read()
        if self._may_retry():
            connection.ensure_connection(told, self.app.conf.broker_connection_max_retries, callback=stop_if_asked)
        else:
            connection.connect()
        return connection

    def _consume_from(self, connection: Any) -> None:
        self.first_connection_attempt = False
        self.node.channel = connection.channel()
        consumer = self.node.listen(callback=self.on_message)
        logger.info("beat pidbox: Connected to %s.", connection.as_uri())
        try:
            while not self._shutdown.is_set():
                try:
                    connection.drain_events(timeout=1.0)
                except TimeoutError:
                    if connection.supports_heartbeats and connection.heartbeat:
                        connection.heartbeat_check()
        finally:
            ignore_errors(connection, consumer.cancel)
            ignore_errors(connection, self.node.channel.close)


for _class in (BeatPidbox, _BeatNode):
    _class.__module__ = "celery.beat"
