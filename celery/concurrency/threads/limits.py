"""Time limits of threads: an exception at the soft one; at the hard one the job is given up, and its thread is pursued.

There is no timer for each job: one look is taken when the earliest limit of all that run might be over, and it finds
the next such time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic

from billiard.exceptions import SoftTimeLimitExceeded

from celery.concurrency.agenda import Agenda
from celery.concurrency.guard import Abandoned, ThreadWatch
from celery.concurrency.stall import StallAlarm
from celery.concurrency.threads.seat import Flight, Seat

__all__ = ("Limits",)

#: A job that is through with its own code when the hard limit is over has so many seconds more to store its result.
LEAVING_SECONDS = 5.0

#: An abandoned task that takes the exception for nothing gets another, this often, after so many seconds each.
REPEATS, REPEAT_SECONDS = 5, 1.0


class Limits:
    """Enforces the limits of the jobs that run, on the loop's thread.

    ``running()`` returns these; ``tell_soft_limit(flight)`` and ``give_up(flight, told, *args)`` deal with one of them.
    """

    def __init__(
        self,
        agenda: Agenda,
        running: Callable[[], Iterable[Flight]],
        tell_soft_limit: Callable[[Flight], None],
        give_up: Callable[..., None],
    ) -> None:
        self._agenda = agenda
        self._running, self._tell_soft_limit, self._give_up = running, tell_soft_limit, give_up
        self._alarm = StallAlarm()
        self._next_at = math.inf
        #: Threads that were given up and have not ended yet, as far as is known.
        self.abandoned: set[Seat] = set()

    def note(self, flight: Flight) -> None:
        """Watch ``flight``, which has begun."""
        watch = flight.watch
        if watch.soft or watch.hard:
            self._look_at(watch.started_at + min(watch.soft or math.inf, watch.hard or math.inf))

    def _look_at(self, when: float) -> None:
        """Look for limits that are over at ``when``; an earlier look finds the next such time."""
        if when < self._next_at:
            self._next_at = when
            self._alarm.expect(when)
            self._agenda.after(when - monotonic(), self._enforce)

    def _enforce(self) -> None:
        now = monotonic()
        if now < self._next_at:  # a look that an earlier one has made needless
            return
        self._next_at = math.inf
        self._alarm.relax(now)
        next_at = min([self._enforce_on(flight, now) for flight in self._running()], default=math.inf)
        if next_at < math.inf:
            self._look_at(next_at)

    def _enforce_on(self, flight: Flight, now: float) -> float:
        """Do what is due for ``flight``; return when something may be due next."""
        watch = flight.watch
        began, soft, hard = watch.started_at, watch.soft, watch.hard
        if flight.has_ended or not began:
            return math.inf
        due_at = math.inf
        if hard:
            ends_at = began + hard
            if not watch.is_open:  # it may be about to store its result
                ends_at += LEAVING_SECONDS
            if now >= ends_at:
                self._give_up(flight, flight.job.on_hard_limit, hard)
                return math.inf
            due_at = began + hard if now < began + hard else now + REPEAT_SECONDS
        if soft and not watch.was_soft_raised:
            if now >= began + soft:
                watch.interrupt(SoftTimeLimitExceeded)
                self._tell_soft_limit(flight)
            else:
                due_at = min(due_at, began + soft)
        return due_at

    def pursue(self, seat: Seat, watch: ThreadWatch) -> None:
        """Have the thread of ``seat``, which is abandoned with the job of ``watch``, leave the user's code."""
        self.abandoned.add(seat)
        self._interrupt(seat, watch, REPEATS)

    def _interrupt(self, seat: Seat, watch: ThreadWatch, times: int) -> None:
        if not seat.thread.is_alive():
            self.abandoned.discard(seat)
        elif times:
            watch.interrupt(Abandoned)
            self._agenda.after(REPEAT_SECONDS, partial(self._interrupt, seat, watch, times - 1))

    def count_abandoned(self) -> int:
        """Return how many threads were given up and still run."""
        self.abandoned = {seat for seat in self.abandoned if seat.thread.is_alive()}
        return len(self.abandoned)

    def close(self) -> None:
        """Nothing more is due."""
        self._alarm.relax(monotonic())
