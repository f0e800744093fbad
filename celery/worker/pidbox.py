"""The worker's mailbox for remote control commands."""

from __future__ import annotations

import threading
from typing import Any
from uuid import uuid4

from kombu.common import ignore_errors
from kombu.exceptions import InconsistencyError
from kombu.utils.encoding import safe_str

from celery.utils.failpoints import is_active
from celery.utils.functional import pass1
from celery.utils.log import get_logger
from celery.worker import control

__all__ = ("Pidbox", "gPidbox")

logger = get_logger(__name__)

#: AMQP: the queue is exclusive to another connection.
RESOURCE_LOCKED = 405

#: Whether a test of the tests has switched this protection off.
_INSISTS_ON_NAME = is_active("unprotect.label")


class CommandState(dict):  # type: ignore[type-arg]
    """What command handlers get as their first argument: ``app``, ``hostname``, ``consumer`` and ``tset``.

    ``tset`` makes a set of ids that may be looked at while the other thread changes the original.
    """

    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


class Pidbox:
    """Listens on ``<hostname>.<control exchange>.pidbox`` and runs the commands that arrive there."""

    consumer: Any = None

    def __init__(self, c: Any) -> None:
        self.c = c
        self.hostname = c.hostname
        self.node = c.app.control.mailbox.Node(
            safe_str(c.hostname),
            handlers=control.Panel.data,
            state=CommandState(
                app=c.app, hostname=c.hostname, consumer=c, tset=pass1 if c.controller.use_eventloop else set
            ),
        )

    def on_message(self, body: Any, message: Any) -> None:
        """Run one command.  Whatever it contains, the mailbox goes on."""
        self._adjust_clock(message)
        try:
            self.node.handle_message(body, message)
        except KeyError as exc:
            logger.error("No such control command: %s", exc)
        except (SystemExit, KeyboardInterrupt):
            raise
        except self.c.connection_errors + self.c.channel_errors:
            raise
        except Exception as exc:
            logger.error("Control command error: %r", exc, exc_info=True)

    def _adjust_clock(self, message: Any) -> None:
        clock = message.headers.get("clock")
        self.c.app.clock.adjust(clock if isinstance(clock, int) else 0)
        message.headers["clock"] = 0  # kombu adjusts once more

    def start(self, c: Any) -> None:
        self._listen(c.connection)

    def _listen(self, connection: Any) -> None:
        self.node.channel = connection.channel()
        try:
            self.consumer = self.node.listen(callback=self.on_message)
        except (InconsistencyError, *self.c.channel_errors) as exc:
            if not isinstance(exc, InconsistencyError) and getattr(exc, "reply_code", None) != RESOURCE_LOCKED:
                raise
            if _INSISTS_ON_NAME:
                raise
            self._listen_beside(connection)
        self.consumer.on_decode_error = self.on_decode_error

    def _listen_beside(self, connection: Any) -> None:
        """Listen on a queue of another name: a worker of ours is alive, or not yet buried by the broker.

        The exchange is a fanout, so the name of the queue is a label only.
        """
        label = f"{self.hostname}.{uuid4().hex[:8]}"
        logger.warning(
            "Another worker is called %s: commands for that name reach both. Taking them from queue %s. "
            "Give each worker its own name with -n.",
            self.hostname,
            label,
        )
        self.node.channel = connection.channel()  # the broker has closed the first one
        queue = self.node.mailbox.get_queue(label)
        self.consumer = self.node.channel.Consumer(
            [queue], no_ack=True, accept=self.node.mailbox.accept, callbacks=[self.on_message]
        )
        self.consumer.consume()

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        logger.error("Control message cannot be read, dropped: %s", exc)

    def on_stop(self) -> None:
        """Called while the mailbox stops; for subclasses."""

    def stop(self, c: Any) -> None:
        self.on_stop()
        self._close_channel(c)
        self.consumer = None

    def reset(self) -> None:
        """Listen anew, on a new channel."""
        self.stop(self.c)
        self.start(self.c)

    def _close_channel(self, c: Any) -> None:
        if self.node is not None and self.node.channel is not None:
            ignore_errors(c, self.node.channel.close)
            self.node.channel = None

    def shutdown(self, c: Any) -> None:
        self.on_stop()
        consumer, self.consumer = self.consumer, None
        if consumer is not None:
            logger.debug("Canceling broadcast consumer...")
            ignore_errors(c, consumer.cancel)
        self.stop(self.c)


class gPidbox(Pidbox):
    """A mailbox with its own connection and greenlet, for green pools without an event loop."""

    _node_shutdown: threading.Event | None = None
    _node_stopped: threading.Event | None = None
    _resets = 0

    def start(self, c: Any) -> None:
        c.pool.spawn_n(self.loop, c)

    def on_stop(self) -> None:
        if self._node_stopped is not None and self._node_shutdown is not None:
            self._node_shutdown.set()
            logger.debug("Waiting for broadcast thread to shutdown...")
            self._node_stopped.wait(5.0)
            self._node_stopped = self._node_shutdown = None

    def reset(self) -> None:
        self._resets += 1

    def loop(self, c: Any) -> None:
        """Take commands until `stop`; runs in its own greenlet."""
        seen_resets = self._resets
        shutdown = self._node_shutdown = threading.Event()
        stopped = self._node_stopped = threading.Event()
        try:
            with c.connect() as connection:
                logger.info("pidbox: Connected to %s.", connection.as_uri())
                self._listen(connection)
                while not shutdown.is_set() and c.connection:
                    if seen_resets < self._resets:
                        seen_resets += 1
                        self._close_channel(c)
                        self._listen(connection)
                    try:
                        connection.drain_events(timeout=1.0)
                    except TimeoutError:
                        pass
        finally:
            stopped.set()
