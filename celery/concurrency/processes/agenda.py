"""What is to be done at a later time, on kombu's hub or without one."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import Any

__all__ = ("Agenda",)


class Agenda:
    """Actions by the time at which they are due.  With a hub, one timer of it stands for the next of them."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._entries: list[tuple[float, int, Callable[[], Any]]] = []
        self._numbers = count()
        self._hub: Any = None
        self._timer: Any = None
        self._timer_at = 0.0

    def use(self, hub: Any) -> None:
        """Let ``hub`` call what is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._hub = hub
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
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._hub is None or not self._entries:
            return
        due_at = self._entries[0][0]
        if self._timer is not None:
            if self._timer_at <= due_at:
                return
            self._timer.cancel()
        self._timer_at = due_at
        self._timer = self._hub.call_later(max(due_at - self._clock(), 0.0), self._fire)

    def _fire(self) -> None:
        self._timer = None
        try:
            self.run_due()
        finally:
            self._arm()
