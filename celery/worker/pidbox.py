"""The worker's mailbox for remote control commands."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from typing import Any
from uuid import uuid4

from kombu.common import ignore_errors
from kombu.exceptions import InconsistencyError
from kombu.pidbox import Node as KombuNode
from kombu.utils.encoding import safe_str

from celery.utils.failpoints import is_active
from celery.utils.functional import pass1
from celery.utils.log import get_logger
from celery.worker import control, state
from celery.worker.intake import Intake

__all__ = ("Pidbox", "gPidbox")

logger = get_logger(__name__)

#: So many commands are taken ahead; where the broker can hold them, the others wait there.
MOST_IN_HAND = 100

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


class Node(KombuNode):
    """Runs commands; an error of one is told to who asked, and in the log.

    ``allowed``: kinds (``inspect``, ``control``) and names of the commands that may run; ``None`` for all.
    """

    allowed: Collection[str] | None = None

    def handle(self, method: str, arguments: Any = None) -> Any:
        handlers: Any = self.handlers
        handler = handlers.get(method)
        if handler is None:
            logger.error("No such remote control command: %r", method)
            return control.nok(repr(KeyError(method)))
        if self.allowed is not None and not self._allows(method):
            logger.error("Remote control command %r is not allowed here (control_allow)", method)
            return control.nok(f"{method} is not allowed here (control_allow)")
        try:
            return handler(self.state, **(arguments or {}))
        except Exception as exc:
            # Of ours, it is the arguments; of a user's, it may be the command, and where it failed helps.
            is_ours = getattr(handler, "__module__", "").startswith("celery.")
            logger.error("Remote control command %r failed: %r", method, exc, exc_info=not is_ours)
            return control.nok(repr(exc))

    def _allows(self, method: str) -> bool:
        assert self.allowed is not None
        meta = control.Panel.meta.get(method)
        if meta is None:  # an alias
            meta = next((each for each in control.Panel.meta.values() if each.alias == method), None)
        return method in self.allowed or (meta is not None and meta.type in self.allowed)


def flaw_of(command: Any) -> str | None:
    """Say why the decoded ``command`` is none, or return ``None``."""
    if not isinstance(command, Mapping):
        return f"it is no mapping but a {type(command).__name__}"
    for name, kinds in _FIELDS.items():
        if not isinstance(command.get(name), kinds):
            return f"its {name} is a {type(command.get(name)).__name__}"
    reply_to = command.get("reply_to") or {}
    if reply_to and not all(isinstance(reply_to.get(name), str) for name in ("exchange", "routing_key")):
        return "its reply_to names no exchange and routing key"
    if not all(isinstance(name, str) for name in (*command, *(command.get("arguments") or ()))):
        return "a name in it is no text"
    return None


_NOTHING = type(None)
_FIELDS: dict[str, Any] = {
    "method": str,
    "arguments": (Mapping, _NOTHING),
    "destination": (list, tuple, _NOTHING),
    "pattern": (str, _NOTHING),
    "matcher": (str, _NOTHING),
    "ticket": (str, _NOTHING),
    "reply_to": (Mapping, _NOTHING),
}


class Pidbox:
    """Listens on ``<hostname>.<control exchange>.pidbox`` and runs the commands that arrive there."""

    consumer: Any = None

    def __init__(self, c: Any) -> None:
        self.c = c
        self.hostname = c.hostname
        mailbox = c.app.control.mailbox
        self.node: Any = (Node if mailbox.node_cls is KombuNode else mailbox.node_cls)(
            safe_str(c.hostname),
            mailbox=mailbox,
            handlers=control.Panel.data,
            state=CommandState(
                app=c.app, hostname=c.hostname, consumer=c, tset=pass1 if c.controller.use_eventloop else set
            ),
        )
        if isinstance(self.node, Node):
            self.node.allowed = c.app.conf.control_allow
        self._admission = None
        if c.app.signing is not None:
            from celery.worker.consumer.admission import CommandAdmission  # needs cryptography, as does whoever signs

            self._admission = CommandAdmission(c.app)
        self._intake: Intake[Any] = Intake(self._open, self._is_busy, c.hub)
        #: Whether commands are acknowledged, so that the broker holds those beyond `MOST_IN_HAND`.
        self._acknowledges = False
        self._tasks_begun = 0

    def _is_busy(self) -> bool:
        """Whether tasks are here, or were since the last time."""
        before, self._tasks_begun = self._tasks_begun, state.all_total_count[0]
        return bool(state.reserved_requests) or before != self._tasks_begun

    def _open(self, message: Any) -> None:
        """Run the command in ``message``, if it may be run and can be read."""
        if self._acknowledges:
            message.ack()  # before it runs: a worker that `shutdown` has ended must not find it again
        if self._admission is not None and not self._admission.admits(message):
            return
        try:
            body = message.decode()
        except Exception as exc:  # by whatever its serializer raises
            self.on_decode_error(message, exc)
            return
        self.on_message(body, message)

    def on_message(self, body: Any, message: Any) -> None:
        """Run one command.  Whatever it contains, the mailbox goes on."""
        flaw = flaw_of(body)
        if flaw is not None:
            logger.error("Received a remote control command that is none, dropped: %s", flaw)
            return
        self._adjust_clock(message)
        try:
            self.node.handle_message(body, message)
        except (SystemExit, KeyboardInterrupt):
            raise
        except self.c.connection_errors + self.c.channel_errors:
            raise
        except Exception as exc:
            logger.error("Remote control command could not be dealt with: %.500r", exc)

    def _adjust_clock(self, message: Any) -> None:
        clock = message.headers.get("clock")
        self.c.app.clock.adjust(clock if isinstance(clock, int) else 0)
        message.headers["clock"] = 0  # kombu adjusts once more

    def start(self, c: Any) -> None:
        self._listen(c.connection)

    def _listen(self, connection: Any) -> None:
        self.node.channel = channel = connection.channel()
        self._acknowledges = getattr(channel, "holds_broadcasts", False)
        try:
            consumer = self.node.Consumer(**self._consumer_options())
            consumer.consume()
            self.consumer = consumer
        except (InconsistencyError, *self.c.channel_errors) as exc:
            if not isinstance(exc, InconsistencyError) and getattr(exc, "reply_code", None) != RESOURCE_LOCKED:
                raise
            if _INSISTS_ON_NAME:
                raise
            self._listen_beside(connection)

    def _consumer_options(self) -> dict[str, Any]:
        return {
            "no_ack": not self._acknowledges,
            "prefetch_count": MOST_IN_HAND if self._acknowledges else None,
            "on_message": self._intake.add,
            "on_decode_error": self._on_unreadable,
        }

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
        self.consumer = self.node.channel.Consumer([queue], accept=self.node.mailbox.accept, **self._consumer_options())
        self.consumer.consume()

    def _on_unreadable(self, message: Any, exc: Exception) -> None:
        """Drop what is no message to its transport."""
        if self._acknowledges:
            message.ack()
        self.on_decode_error(message, exc)

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
        waiting = self._intake.clear()
        if waiting:
            logger.warning("The mailbox is closed before %d remote control command(s) in it were dealt with", waiting)
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
