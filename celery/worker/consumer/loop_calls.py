"""Calls on the loop's thread, asked for by other threads or put off to the end of a turn."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from celery.utils.log import get_logger
from celery.worker import loops

__all__ = ("LoopCalls",)

logger = get_logger("celery.worker.consumer.consumer")


class LoopCalls:
    """Does what a consumer is asked to do in its loop; where there is a hub, by that."""

    def __init__(self, consumer: Any) -> None:
        self.consumer = consumer
        self._thread_id = threading.get_ident()
        self._pending: deque[Callable[[], Any]] = deque()
        self._flush_is_planned = False

    def move_here(self) -> None:
        """The loop runs on this thread."""
        self._thread_id = threading.get_ident()

    @property
    def is_here(self) -> bool:
        """Whether this is the loop's thread."""
        return threading.get_ident() == self._thread_id

    def soon(self, call: Callable[[], Any]) -> Any:
        """Call ``call`` in the next turn."""
        guarded, hub = partial(self._guarded, call), self.consumer.hub
        if hub:
            if self.is_here:
                return hub.call_soon(guarded)
            planned = hub.call_soon(self._call_and_look, guarded)
            loops.wake(hub)
            return planned
        self._pending.append(guarded)
        return guarded

    def perform_pending(self) -> None:
        """Do what there is to do; where there is a hub, it does that itself."""
        while self._pending:
            self._pending.popleft()()

    def plan_flush(self) -> None:
        """Send the events that are held back when this turn is over."""
        hub = self.consumer.hub
        if hub and not self._flush_is_planned:
            self._flush_is_planned = True
            hub.call_soon(self._flush_events)

    def _call_and_look(self, call: Callable[[], None]) -> None:
        """Do what another thread asked for; who turns the hub until that is done is to see it at once."""
        call()
        loops.wake(self.consumer.hub)

    def _guarded(self, call: Callable[[], Any]) -> None:
        """Call what was put off: an error of it, but one of the broker, must not end the loop."""
        try:
            call()
        except (*self.consumer.connection_errors, *self.consumer.channel_errors):
            raise
        except Exception as exc:
            logger.exception("Pending operation failed: %r", exc)

    def _flush_events(self) -> None:
        self._flush_is_planned = False
        if self.consumer.event_dispatcher is not None:
            self.consumer.event_dispatcher.flush()
