"""The event dispatcher of this worker."""

from __future__ import annotations

import threading
from typing import Any

from kombu.common import ignore_errors

from celery import bootsteps
from celery.utils.log import get_logger
from celery.worker.consumer.connection import Connection

__all__ = ("Events",)

logger = get_logger(__name__)

#: Seconds between two looks whether events are held back.
REVIVAL_INTERVAL = 5.0

#: Seconds that the broker may take for an event.
PATIENCE = 2.0


class Events(bootsteps.StartStopStep):
    """Keeps ``c.event_dispatcher`` on a connection of its own; what was not sent is taken over by the next one."""

    requires = (Connection,)

    def __init__(
        self,
        c: Any,
        task_events: bool = True,
        without_heartbeat: bool = False,
        without_gossip: bool = False,
        **kwargs: Any,
    ) -> None:
        # With task events off, only events of the worker itself are sent, and those only if somebody needs them.
        self.groups = None if task_events else ["worker"]
        self.send_events = task_events or not without_gossip or not without_heartbeat
        self._tref: Any = None
        self._is_reviving = False
        c.event_dispatcher = None
        super().__init__(c, **kwargs)

    def start(self, c: Any) -> None:
        previous = self._close(c, politely=False)
        dispatcher = c.event_dispatcher = c.app.events.Dispatcher(
            c.ensure_connected(_connection_for_events(c.app)),
            hostname=c.hostname,
            enabled=self.send_events,
            groups=self.groups,
            # On the hub, task events travel in batches, sent at the end of a turn.
            buffer_group=["task"] if c.hub else None,
            on_send_buffered=c.on_send_event_buffered if c.hub else None,
        )
        if previous is not None:
            dispatcher.extend_buffer(previous)
            dispatcher.flush()
        if c.hub and self._tref is None:
            self._tref = c.timer.call_repeatedly(REVIVAL_INTERVAL, self._revive, (c,))

    def _revive(self, c: Any) -> None:
        """If events are held back although the worker is connected, give the dispatcher a new connection.

        That may take long, so it is made in a thread.
        """
        dispatcher = c.event_dispatcher
        if dispatcher is None or not dispatcher._offline or c.connection is None or self._is_reviving:
            return
        self._is_reviving = True
        threading.Thread(target=self._connect_anew, args=(c, dispatcher), name="events", daemon=True).start()

    def _connect_anew(self, c: Any, dispatcher: Any) -> None:
        try:
            connection = _connection_for_events(c.app)
            connection.connect()
        except Exception as exc:
            logger.debug("The event connection could not be made anew: %r", exc)
            self._is_reviving = False
        else:
            c.call_soon(self._continue_on, c, dispatcher, connection)

    def _continue_on(self, c: Any, dispatcher: Any, connection: Any) -> None:
        self._is_reviving = False
        if dispatcher is not c.event_dispatcher:
            connection.release()
            return
        lost, dispatcher.connection = dispatcher.connection, connection
        dispatcher.producer.revive(connection.default_channel)
        if lost is not None:
            ignore_errors(lost, lost.collect)
        try:
            dispatcher.flush()
        except Exception as exc:  # it keeps what it could not send
            logger.debug("Events are held back: %r", exc)

    def stop(self, c: Any) -> None:
        """Leave the dispatcher in place: what is written while the connection is away goes into its buffer."""

    def shutdown(self, c: Any) -> None:
        self._close(c)

    def _close(self, c: Any, politely: bool = True) -> Any:
        """Close the present dispatcher and return it; ``politely`` waits for the broker, which may be gone."""
        dispatcher = c.event_dispatcher
        if dispatcher is not None:
            connection = dispatcher.connection
            ignore_errors(connection or c.conninfo, dispatcher.close)
            if connection is not None:
                ignore_errors(connection, connection.close if politely else connection.collect)
            c.event_dispatcher = None
        return dispatcher


def _connection_for_events(app: Any) -> Any:
    """Return a connection that gives up soon, where the transport can be told to: no event is worth a long wait."""
    connection = app.connection_for_write()
    options = connection.transport_options
    patience = options.get("socket_timeout") or PATIENCE
    connection.transport_options = {**options, "socket_timeout": min(patience, PATIENCE)}
    return connection
