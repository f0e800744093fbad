"""The event dispatcher of this worker."""

from __future__ import annotations

from typing import Any

from kombu.common import ignore_errors

from celery import bootsteps
from celery.worker.consumer.connection import Connection

__all__ = ("Events",)


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
        c.event_dispatcher = None
        super().__init__(c, **kwargs)

    def start(self, c: Any) -> None:
        previous = self._close(c)
        dispatcher = c.event_dispatcher = c.app.events.Dispatcher(
            c.connection_for_write(),
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

    def stop(self, c: Any) -> None:
        """Leave the dispatcher in place: what is written while the connection is away goes into its buffer."""

    def shutdown(self, c: Any) -> None:
        self._close(c)

    def _close(self, c: Any) -> Any:
        """Close the present dispatcher and return it."""
        dispatcher = c.event_dispatcher
        if dispatcher is not None:
            connection = dispatcher.connection
            for close in (dispatcher.close, connection.close if connection else None):
                if close is not None:
                    ignore_errors(connection or c.conninfo, close)
            c.event_dispatcher = None
        return dispatcher
