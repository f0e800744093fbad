"""One thread of the threads pool: it takes jobs, runs them, and puts what it has to tell into the mailbox."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any

from billiard.exceptions import WorkerLostError

from celery.concurrency.guard import Abandoned, ThreadWatch, user_code
from celery.concurrency.owing import OWING_SECONDS, owes, pay_before_leaving
from celery.utils.log import get_logger

if TYPE_CHECKING:
    from celery.abc import Job

__all__ = ("NOTHING", "Flight", "Seat", "drain")

logger = get_logger("celery.concurrency.thread")

#: Successes are told when there is nothing more to run, when the first of them is this many seconds old, or before a
#: job that is not known to take less.
REPORT_AFTER = 0.002

#: There is no job just now.
NOTHING = object()


class Flight:
    """One job in the hands of the threads."""

    __slots__ = ("frame", "has_ended", "is_told", "job", "seat", "soft_is_told", "watch")

    def __init__(self, job: Job, frame: bytes, watch: ThreadWatch) -> None:
        self.job, self.frame, self.watch = job, frame, watch
        self.seat: Seat | None = None  #: the thread that runs it
        self.has_ended = False  #: it ran to its end, which may not have been told yet
        self.is_told = False  #: its start was told
        self.soft_is_told = False


class Seat:
    """One thread, and what it has ended without saying so yet, for its results may be unconfirmed."""

    __slots__ = ("_pool", "ended", "is_abandoned", "thread")

    def __init__(self, pool: Any, name: str) -> None:
        self._pool = pool
        self.ended: deque[tuple[Flight, bytes]] = deque()
        self.is_abandoned = False
        self.thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def _serve(self) -> None:
        """Run jobs until there comes ``None``; this is a thread's whole life."""
        pool = self._pool
        put, pid = pool._mailbox.put, os.getpid()
        try:
            runner = pool._make_runner()
        except BaseException as error:
            logger.critical("A thread of the pool cannot start: %r", error, exc_info=True)
            put(pool._on_thread_death, self)
            return
        ended = self.ended
        since = 0.0
        brief: set[str] = set()  # names of jobs that took less than `REPORT_AFTER` the last time

        def report() -> None:
            runner.flush()
            for flight, answer in drain(ended):
                put(pool._on_finished, flight, answer)

        while True:
            if ended and monotonic() - since > REPORT_AFTER:
                report()
            flight = pool._next(self, 0 if ended else OWING_SECONDS if owes(runner) else None)
            if flight is NOTHING:
                report()
                continue
            if flight is None:
                report()
                pay_before_leaving(runner)
                return
            name = flight.job.name
            if ended and name not in brief:
                report()
            began = monotonic()
            since = since if ended else began
            flight.watch.start(began)
            put(pool._on_started, flight, pid)
            user_code.begin(flight.watch)
            try:
                answer = runner.run(flight.frame)
            except Abandoned:  # of an error's text nobody would hear
                flight.watch.close()
                put(pool._on_abandoned, flight)
            except BaseException as error:  # SystemExit of a task ends the task, not the worker
                flight.watch.close()
                lost = WorkerLostError(repr(error)).with_traceback(error.__traceback__)
                put(pool._on_lost, flight, lost)
            else:
                flight.watch.close()
                flight.has_ended = True
                ended.append((flight, answer))
            if self.is_abandoned:
                pay_before_leaving(runner)
                return
            if monotonic() - began < REPORT_AFTER:
                brief.add(name)
            else:
                brief.discard(name)


def drain(entries: deque[tuple[Flight, bytes]]) -> Iterator[tuple[Flight, bytes]]:
    """Take and yield what is there; another thread may do so at the same time."""
    while True:
        try:
            yield entries.popleft()
        except IndexError:
            return
