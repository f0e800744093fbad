"""What is to be done at a later time, on kombu's hub or without one."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import Any

__all__ = ("Agenda",)


class Agenda:
    """Actions by the time at which they are due.

    On a hub, few timers stand for many actions.  One that is armed stays, also when something earlier comes: to cancel
    it for each would fill the hub's queue, where a canceled timer stays until its time.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._entries: list[tuple[float, int, Callable[[], Any]]] = []
        self._numbers = count()
        self._hub: Any = None
        self._armed: list[float] = []  #: when timers of the hub will fire

    def use(self, hub: Any) -> None:
        """Let ``hub`` call what is due."""
        if hub is not self._hub:
            self._hub = hub
            self._armed.clear()
        self._arm()

    def after(self, seconds: float, action: Callable[[], Any]) -> None:
        """Call ``action`` in ``seconds``."""
        heapq.heappush(self._entries, (self._clock() + seconds, next(self._numbers), action))
        self._arm()

    def run_due(self) -> None:
        """Call what is due."""
        entries = self._entries
        now = self._clock()
        while entries and entries[0][0] <= now:
            heapq.heappop(entries)[2]()

    def seconds_left(self) -> float | None:
        """Return how long until something is due; ``None`` if there is nothing to do."""
        return max(self._entries[0][0] - self._clock(), 0.0) if self._entries else None

    def clear(self) -> None:
        self._entries.clear()

    def _arm(self) -> None:
        if self._hub is None or not self._entries:
            return
        due_at = self._entries[0][0]
        if not self._armed or due_at < self._armed[0]:
            heapq.heappush(self._armed, due_at)
            self._hub.call_later(max(due_at - self._clock(), 0.0), self._fire)

    def _fire(self) -> None:
        if self._armed:
            heapq.heappop(self._armed)
        try:
            self.run_due()
        finally:
            self._arm()
