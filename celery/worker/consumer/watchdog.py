"""Progress: a worker that is free while its queues are not has a connection that only looks alive."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from celery.utils.log import get_logger
from celery.worker import state

__all__ = ("Stalled", "Watchdog")

logger = get_logger(__name__)

#: Seconds of idleness after which the queues are looked at, and the most that this grows to while it does not help.
FIRST_PATIENCE, LONGEST_PATIENCE = 60.0, 3600.0
#: Seconds between two looks that both have to find messages.
SECOND_LOOK = 5.0


class Stalled(ConnectionError):
    """The queues have messages, the worker has free slots, and nothing is delivered."""


class Watchdog:
    """Has the connection rebuilt if the worker idles for ``patience`` seconds beside a queue that is not empty.

    The queues are counted from a thread of its own, on another connection: this one may be dead.
    """

    def __init__(self, consumer: Any, patience: float = FIRST_PATIENCE, second_look: float = SECOND_LOOK) -> None:
        self.consumer = consumer
        self.first_patience = self.patience = patience
        self.second_look = second_look
        self._timer: Any = None
        self._progress = -1

    def start(self) -> None:
        """Watch the present connection.  A transport that is looked at from a timer needs no watching."""
        consumer = self.consumer
        self.stop()
        if consumer.hub and consumer.connection.transport.implements.asynchronous:
            self._plan(self.patience, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _plan(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        self._timer = self.consumer.timer.call_after(seconds, call, args)

    def _made_progress(self) -> bool:
        """Return whether a task is held, or was accepted since the last call."""
        before, self._progress = self._progress, state.all_total_count[0]
        return bool(state.requests) or before != self._progress

    def _look(self, found_before: bool = False) -> None:
        if self._made_progress():
            self.patience = self.first_patience
            self._plan(self.patience, self._look)
            return
        connection = self.consumer.connection
        threading.Thread(target=self._count, args=(connection, found_before), name="watchdog", daemon=True).start()

    def _count(self, connection: Any, found_before: bool) -> None:
        """Look whether any consumed queue has messages; runs in a thread."""
        try:
            waiting = self._messages_waiting()
        except Exception as exc:  # the broker does not answer: whether it is gone is for heartbeats to say
            logger.debug("The queues could not be counted: %r", exc)
            waiting = 0
        self.consumer.call_soon(self._on_counted, connection, waiting, found_before)

    def _messages_waiting(self) -> int:
        consumer = self.consumer
        total = 0
        with consumer.app.connection_for_read() as connection:
            for queue in list(consumer.app.amqp.queues.consume_from.values()):
                if "x-single-active-consumer" in (queue.queue_arguments or {}):
                    continue  # it may rightly be another's turn
                try:
                    total += connection.channel().queue_declare(queue.name, passive=True).message_count
                except connection.channel_errors:  # no such queue; where queues are lists, an empty one
                    continue
        return total

    def _on_counted(self, connection: Any, waiting: int, found_before: bool) -> None:
        if connection is not self.consumer.connection:
            return  # meanwhile rebuilt: that one is watched anew
        if not waiting or self._made_progress():
            self._plan(self.patience, self._look)
        elif not found_before:
            self._plan(self.second_look, self._look, True)
        else:
            self.patience = min(self.patience * 2, LONGEST_PATIENCE)
            raise Stalled(f"{waiting} messages wait in the queues, and none was delivered for a while")
