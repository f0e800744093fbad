"""Time limits: a signal at the soft one, the end of the process at the hard one.

Times count from when a job begins, which its child writes to the page.  There is no timer for each job: one look is
taken when the earliest limit of all that is in flight might be over, and it finds the next such time.
"""

from __future__ import annotations

import math
import signal
from time import monotonic
from typing import TYPE_CHECKING

from celery.concurrency.processes.child import Child
from celery.concurrency.processes.page import (
    DONE,
    RUNNING,
    SOFT_RAISED,
    SOFT_TARGET,
    SOFT_TERMINATED,
    STARTED_AT,
    TERMINATED_BY,
)
from celery.utils.failpoints import is_active

if TYPE_CHECKING:
    from celery.abc import Job
    from celery.concurrency.processes.supervisor import Supervisor

__all__ = ("Limits",)

#: Whether a test of the tests has switched this protection off.
_HAS_NO_LIMITS = is_active("unprotect.limits")

#: A signal that comes just before a task enters a blocking system call is not seen until that returns: send another.
REPEAT_SECONDS = 1.0


class Limits:
    """Enforces the limits of the jobs in flight; ``hard`` and ``soft`` are for jobs that have none."""

    def __init__(self, supervisor: Supervisor, hard: float | None, soft: float | None) -> None:
        self.supervisor = supervisor
        self.hard = hard or None
        self.soft = soft or None
        self._next_at = math.inf

    def of(self, job: Job) -> tuple[float | None, float | None]:
        """Return hard and soft limit of ``job`` in seconds; zero means none."""
        hard, soft = job.hard_limit, job.soft_limit
        return self.hard if hard is None else hard or None, self.soft if soft is None else soft or None

    def note(self, child: Child, number: int, job: Job) -> None:
        """Watch frame ``number`` of ``child``."""
        hard, soft = (None, None) if _HAS_NO_LIMITS else self.of(job)
        if hard is not None or soft is not None:
            child.limits[number] = hard, soft
            self._look_at(monotonic() + min(hard or math.inf, soft or math.inf))

    def _look_at(self, when: float) -> None:
        if when < self._next_at:
            self._next_at = when
            self.supervisor.agenda.after(when - monotonic(), self._enforce)

    def _enforce(self) -> None:
        now = monotonic()
        if now < self._next_at:  # a look that an earlier one has made needless
            return
        self._next_at = math.inf
        for child in list(self.supervisor.children.values()):
            if child.limits:
                due_at = self._enforce_in(child, now)
                if due_at < math.inf:
                    self._look_at(due_at)

    def _enforce_in(self, child: Child, now: float) -> float:
        """Do what is due in ``child``; return when something may be due next."""
        counters = child.page.counters
        number = counters[RUNNING]
        due_at = now + min(
            (limit for n, pair in child.limits.items() if n > number for limit in pair if limit), default=math.inf
        )
        hard, soft = child.limits.get(number, (None, None))
        if counters[DONE] >= number or child.killed is not None:
            return due_at
        began = child.page.times[STARTED_AT]
        if hard is not None:
            if now >= began + hard:
                self.kill(child, number, hard)
                return due_at
            due_at = min(due_at, began + hard)
        if soft is not None and counters[SOFT_RAISED] != number:
            if now >= began + soft:
                self.raise_soft(child, number)
                due_at = min(due_at, now + REPEAT_SECONDS)
            else:
                due_at = min(due_at, began + soft)
        return due_at

    def raise_soft(self, child: Child, number: int) -> None:
        """Have `SoftTimeLimitExceeded` raised in frame ``number``; its job is told when that has happened."""
        child.page.counters[SOFT_TARGET] = number
        child.soft_number = number
        child.signal(signal.SIGUSR1)
        self.supervisor.look_soon()

    def kill(self, child: Child, number: int, seconds: float) -> None:
        """Kill ``child`` because of frame ``number``, unless that has just ended."""
        if self._is_alone(child, number):
            child.killed = number, seconds
            child.kill()

    def end(self, child: Child, signum: int, only: int | None = None) -> bool:
        """End what ``child`` runs by ``signum``, or the idle child itself; returns whether a signal was sent.

        With ``only``, the number of a frame, nothing but that frame is ended.
        """
        number = child.page.counters[RUNNING]
        if only is not None and number != only:
            return False
        if signum == signal.SIGUSR1:
            if child.page.counters[DONE] < number != child.page.counters[SOFT_RAISED]:
                child.page.counters[SOFT_TERMINATED] = number
                self.raise_soft(child, number)
                return True
            return False
        if child.flights and not self._is_alone(child, number):
            return False
        child.terminated = number, signum
        child.page.counters[TERMINATED_BY] = signum
        child.signal(signum)
        return True

    def _is_alone(self, child: Child, number: int) -> bool:
        """Take all other jobs away from ``child``; return whether it still runs ``number`` then."""
        self.supervisor.spread(child)
        counters = child.page.counters
        return counters[RUNNING] == number and counters[DONE] < number
