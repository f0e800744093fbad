"""What may come in floods is dealt with in its order, for a share of the loop's time, so that tasks go on.

See docs/design/control.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Generic, TypeVar

from celery.utils.failpoints import is_active

__all__ = ("Intake",)

T = TypeVar("T")

#: Seconds at a stretch; one thing at least is dealt with.
STRETCH_SECONDS = 0.001
#: While tasks are here, such a part of the loop's time; on a busy machine that is up to a third of what the loop gets.
SHARE = 0.1
#: So many seconds of work go ahead of the share, so that a few hundred commands need not wait.
CREDIT_SECONDS = 0.05
#: One thing may take long; who waits behind it need not wait for a multiple of that.
LONGEST_REST_SECONDS = 0.25
#: The loop has its turn after each stretch; with no tasks, one may come in it.
SHORTEST_REST_SECONDS = 0.0002

#: Whether a test of the tests has switched this protection off.
_NEVER_RESTS = is_active("unprotect.intake")


class Intake(Generic[T]):
    """Calls ``deal`` with each thing that was added, one after the other.

    ``is_busy`` says whether the loop has other things to do.  Without a ``hub`` each is dealt with at once.
    An error of ``deal`` passes; the things behind are dealt with all the same.
    """

    def __init__(
        self,
        deal: Callable[[T], Any],
        is_busy: Callable[[], bool],
        hub: Any = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._deal = deal
        self._clock = clock
        self._is_busy = is_busy
        self._hub = hub
        self._waiting: deque[T] = deque()
        self._is_dealing = False
        self._rest: Any = None
        self._credit = CREDIT_SECONDS
        self._counted_at = clock()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, thing: T) -> None:
        """Deal with ``thing``: now, if nothing waits."""
        if self._hub is None or _NEVER_RESTS:
            self._deal(thing)
            return
        self._waiting.append(thing)
        # Not within another: what it waits for may have let this one in.
        if self._rest is None and not self._is_dealing:
            self._deal_for_a_while()

    def clear(self) -> int:
        """Forget what waits; returns how much that was."""
        forgotten = len(self._waiting)
        self._waiting.clear()
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        return forgotten

    def _deal_for_a_while(self) -> None:
        self._rest = None
        if not self._waiting:
            return
        began = self._clock()
        self._is_dealing = True
        try:
            while self._waiting:
                self._deal(self._waiting.popleft())
                if self._clock() - began >= STRETCH_SECONDS:
                    break
        finally:
            self._is_dealing = False
            self._take_rest(self._clock() - began)

    def _take_rest(self, spent: float) -> None:
        now = self._clock()
        earned = (now - self._counted_at) * SHARE
        self._counted_at = now
        self._credit = max(min(self._credit + earned, CREDIT_SECONDS) - spent, -LONGEST_REST_SECONDS * SHARE)
        seconds = -self._credit / SHARE if self._is_busy() else 0.0
        # Also with nothing left: only a timer that is set before the loop polls ends that poll.
        self._rest = self._hub.call_later(max(seconds, SHORTEST_REST_SECONDS), self._deal_for_a_while)
