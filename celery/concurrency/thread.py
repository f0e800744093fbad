"""The threads pool: jobs run in threads of the worker itself.

Threads take jobs from one queue, so none waits while a thread is idle.  What they have to tell goes through a list
to the loop's thread, which a byte in a socket wakes.

A thread cannot be killed.  A soft limit is an exception raised in it.  At the hard limit, and by `terminate_job`, its
job ends for everybody else: it gets its final state, the thread is *abandoned*, and another one takes its place.  An
abandoned thread gets an exception, too, and ends when that reaches it; until then it is counted.  Whatever it still
comes to say of its job is not heard.
"""

from __future__ import annotations

import math
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any

from billiard.common import TERM_SIGNAME
from billiard.exceptions import SoftTimeLimitExceeded, Terminated, TimeLimitExceeded, WorkerLostError

from celery import platforms
from celery.concurrency.agenda import Agenda
from celery.concurrency.base import JobPool, PoolTraits, apply_target, exception_info, frame_of, raised, tell
from celery.concurrency.guard import Abandoned, ThreadWatch, limited, user_code
from celery.concurrency.mailbox import Mailbox
from celery.concurrency.owing import OWING_SECONDS, owes, pay_before_leaving
from celery.concurrency.stall import StallAlarm
from celery.utils.log import get_logger

if TYPE_CHECKING:
    from celery.abc import Job

__all__ = ("TaskPool",)

logger = get_logger(__name__)

#: Successes are told when there is nothing more to run, when the first of them is this many seconds old, or before a
#: job that is not known to take less.
REPORT_AFTER = 0.002

#: A job that is through with its own code when the hard limit is over has so many seconds more to store its result.
LEAVING_SECONDS = 5.0

#: An abandoned task that takes the exception for nothing gets another, this often, after so many seconds each.
REPEATS, REPEAT_SECONDS = 5, 1.0

#: As in the prefork pool, to terminate by this signal is to raise the soft limit.
SOFT_SIGNAL = getattr(signal, "SIGUSR1", None)

#: There is no job just now.
NOTHING = object()


class ApplyResult:
    """The handle on a callable that `TaskPool.apply_async` returns."""

    def __init__(self, future: Future[Any]) -> None:
        self.f = future
        self.get = future.result

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has ended, well or not, or for ``timeout`` seconds."""
        wait([self.f], timeout)


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

    __slots__ = ("ended", "interrupts", "is_abandoned", "thread", "watch")

    def __init__(self, serve: Callable[[Seat], None], name: str) -> None:
        self.ended: deque[tuple[Flight, bytes]] = deque()
        self.is_abandoned = False
        self.interrupts = 0
        self.watch: ThreadWatch | None = None  #: of the flight that it was abandoned with
        self.thread = threading.Thread(target=serve, args=(self,), name=name, daemon=True)


class TaskPool(JobPool):
    """Runs jobs in ``limit`` threads."""

    body_can_be_buffer = True
    signal_safe = False

    traits = PoolTraits(
        hosts_beat=True,
        interrupts_tasks=True,
        kills_tasks=True,
        join_may_deadlock=True,
        isolates_tasks=False,
        resizes=False,
        restarts=False,
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limit: int = self.limit or os.cpu_count() or 1
        #: Runs callables; its threads start when they are needed, as those for jobs do.
        self.executor = ThreadPoolExecutor(max_workers=self.limit)
        self._mailbox = Mailbox()
        self._agenda = Agenda()
        self._alarm = StallAlarm()
        self._has_loop = False
        #: Jobs that the loop holds, then frames that any thread may take: few, so that a revoke finds most in time.
        self._backlog: deque[Job] = deque()
        self._ready: deque[Flight | None] = deque()
        self._wanted = threading.Condition()
        self._seats: list[Seat] = []
        self._abandoned: list[Seat] = []
        self._names = count(1)
        self._idle = 0
        self._running: set[Flight] = set()
        self._next_look_at = math.inf

    def on_start(self) -> None:
        user_code.separate()

    # -- jobs, on the loop's thread

    def submit(self, job: Job) -> None:
        if self._state in (self.CLOSE, self.TERMINATE):
            tell(job.on_dropped)
            return
        self._backlog.append(job)
        self._feed()

    def _feed(self) -> None:
        """Let threads have as many jobs as they run at once, and as many more."""
        backlog, ready = self._backlog, self._ready
        while backlog and len(ready) + len(self._running) < 2 * self.limit:
            job = backlog.popleft()
            frame = frame_of(job)
            if frame is None:
                continue
            flight = Flight(job, frame, ThreadWatch(*self.limits_of(job)))
            with self._wanted:
                ready.append(flight)
                self._wanted.notify()
                self._staff()

    def withdraw(self, job: Job) -> bool:
        if job in self._backlog:
            self._backlog.remove(job)
            return True
        with self._wanted:
            for flight in self._ready:
                if flight is not None and flight.job is job:
                    self._ready.remove(flight)
                    return True
        return False

    def _staff(self) -> None:
        """Start a thread if what is ready needs one; must be called with the lock held."""
        if len(self._ready) > self._idle and len(self._seats) < self.limit:
            seat = Seat(self._serve, f"ThreadPoolWorker-{next(self._names)}")
            self._seats.append(seat)
            seat.thread.start()

    # -- jobs, in threads

    def _serve(self, seat: Seat) -> None:
        """Run jobs until there comes ``None``; this is a thread's whole life."""
        put, pid = self._mailbox.put, os.getpid()
        try:
            runner = self._make_runner()
        except BaseException as error:
            logger.critical("A thread of the pool cannot start: %r", error, exc_info=True)
            put(self._on_thread_death, seat)
            return
        ended = seat.ended
        since = 0.0
        brief: set[str] = set()  # names of jobs that took less than `REPORT_AFTER` the last time

        def report() -> None:
            runner.flush()
            for flight, answer in _drain(ended):
                put(self._on_finished, flight, answer)

        while True:
            if ended and monotonic() - since > REPORT_AFTER:
                report()
            flight = self._next(seat, 0 if ended else OWING_SECONDS if owes(runner) else None)
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
            put(self._on_started, flight, pid)
            user_code.begin(flight.watch)
            try:
                answer = runner.run(flight.frame)
            except Abandoned:  # of an error's text nobody would hear
                flight.watch.close()
                put(self._on_abandoned, flight)
            except BaseException as error:  # SystemExit of a task ends the task, not the worker
                flight.watch.close()
                lost = WorkerLostError(repr(error)).with_traceback(error.__traceback__)
                put(self._on_lost, flight, lost)
            else:
                flight.watch.close()
                flight.has_ended = True
                ended.append((flight, answer))
            if seat.is_abandoned:
                pay_before_leaving(runner)
                return
            if monotonic() - began < REPORT_AFTER:
                brief.add(name)
            else:
                brief.discard(name)

    def _make_runner(self) -> Any:
        if self.make_runner is None:
            raise RuntimeError("This pool was made without a runner, it takes callables only")
        return self.make_runner()

    def _next(self, seat: Seat, seconds: float | None) -> Any:
        """Take what is to be done next, or ``None`` for the end; wait for so many seconds."""
        with self._wanted:
            while not self._ready:
                if seconds == 0:
                    return NOTHING
                self._idle += 1
                try:
                    if not self._wanted.wait(seconds):
                        return NOTHING
                finally:
                    self._idle -= 1
            flight = self._ready.popleft()
            if flight is not None:
                flight.seat = seat
                self._running.add(flight)
            return flight

    # -- what threads tell, on the loop's thread

    def _on_started(self, flight: Flight, pid: int) -> None:
        if flight not in self._running:
            return
        self._tell_start(flight, pid)
        watch = flight.watch
        if watch.soft or watch.hard:
            self._look_at(watch.started_at + min(watch.soft or math.inf, watch.hard or math.inf))

    def _tell_start(self, flight: Flight, pid: int) -> None:
        if not flight.is_told:
            flight.is_told = True
            tell(flight.job.on_started, pid, flight.watch.started_at)

    def _on_finished(self, flight: Flight, answer: bytes) -> None:
        self._end(flight, flight.job.on_finished, answer)

    def _on_lost(self, flight: Flight, error: Exception) -> None:
        self._end(flight, flight.job.on_lost, error)

    def _on_abandoned(self, flight: Flight) -> None:
        """It went beyond its hard limit and ended before it was found out."""
        self._end(flight, flight.job.on_hard_limit, flight.watch.hard)

    def _end(self, flight: Flight, told: Callable[..., Any], *args: Any) -> None:
        if flight not in self._running:  # it has been given up before
            return
        self._running.discard(flight)
        self._tell_soft_limit(flight)
        tell(told, *args)
        self._feed()

    def _tell_soft_limit(self, flight: Flight) -> None:
        if flight.watch.was_soft_raised and not flight.soft_is_told:
            flight.soft_is_told = True
            tell(flight.job.on_soft_limit, flight.watch.soft)

    def _on_thread_death(self, seat: Seat) -> None:
        """A thread could not start.  With none left nothing will ever run, so say that of what waits."""
        if seat in self._seats:
            self._seats.remove(seat)
        if not self._seats:
            self.flush()

    # -- limits, on the loop's thread

    def _look_at(self, when: float) -> None:
        """Look for limits that are over at ``when``; an earlier look finds the next such time."""
        if when < self._next_look_at:
            self._next_look_at = when
            self._alarm.expect(when)
            self._agenda.after(when - monotonic(), self._enforce)

    def _enforce(self) -> None:
        now = monotonic()
        if now < self._next_look_at:  # a look that an earlier one has made needless
            return
        self._next_look_at = math.inf
        self._alarm.relax(now)
        next_at = min([self._enforce_on(flight, now) for flight in list(self._running)], default=math.inf)
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
                self._abandon(flight, flight.job.on_hard_limit, hard)
                return math.inf
            due_at = began + hard if now < began + hard else now + REPEAT_SECONDS
        if soft and not watch.was_soft_raised:
            if now >= began + soft:
                watch.interrupt(SoftTimeLimitExceeded)
                self._tell_soft_limit(flight)
            else:
                due_at = min(due_at, began + soft)
        return due_at

    def _abandon(self, flight: Flight, told: Callable[..., Any], *args: Any) -> None:
        """Give up on ``flight`` and its thread; ``told(*args)`` is its end."""
        seat = flight.seat
        assert seat is not None
        self._tell_start(flight, os.getpid())
        with self._wanted:
            seat.is_abandoned = True
            self._seats.remove(seat)
        for other, answer in _drain(seat.ended):
            self._on_finished(other, answer)
        seat.watch = flight.watch
        self._abandoned.append(seat)
        self._interrupt(seat)
        logger.warning(
            "%s[%s] is given up, its thread %s is replaced; given up and not ended yet: %d",
            flight.job.name,
            flight.job.id,
            seat.thread.name,
            len(self._abandoned),
        )
        self._end(flight, told, *args)
        with self._wanted:
            self._staff()

    def _interrupt(self, seat: Seat) -> None:
        """Have an abandoned thread leave the user's code, again if it did not."""
        if not seat.thread.is_alive():
            self._abandoned.remove(seat)
        elif seat.interrupts < REPEATS and seat.watch is not None:
            seat.interrupts += 1
            seat.watch.interrupt(Abandoned)
            self._agenda.after(REPEAT_SECONDS, partial(self._interrupt, seat))

    def terminate_job(self, pid: int | Job, signal: Any = None) -> bool:
        """Give up on a running job, or raise its soft limit (SIGUSR1).

        Raises:
            NotImplementedError: ``pid`` is a number: all jobs here have that of the worker.
        """
        if isinstance(pid, int):
            raise NotImplementedError("The threads pool cannot end a task by its process: that is the worker itself")
        flight = next((flight for flight in self._running if flight.job is pid and not flight.has_ended), None)
        if flight is None:
            return False
        signum = int(platforms.signals.signum(signal or TERM_SIGNAME))
        if signum == SOFT_SIGNAL:
            flight.watch.interrupt(SoftTimeLimitExceeded)
        else:
            self._abandon(flight, flight.job.on_lost, raised(Terminated(signum)))
        return True

    # -- callables

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        error_callback: Callable[..., Any] | None = None,
        timeout: float | None = None,
        soft_timeout: float | None = None,
        timeout_callback: Callable[..., Any] | None = None,
        **_: Any,
    ) -> ApplyResult:
        """Run ``target`` in a thread; without an event loop, its callbacks are called there, too.

        Its limits are exceptions raised in it: they come when a call into C returns.
        """

        def tell_loop(told: Callable[..., Any] | None) -> Callable[..., Any] | None:
            return partial(self._mailbox.put, told) if told is not None and self._has_loop else told

        callback, accept_callback = tell_loop(callback), tell_loop(accept_callback)
        error_callback, timeout_callback = tell_loop(error_callback), tell_loop(timeout_callback)

        def run() -> Any:
            returned: list[Any] = []
            watch = ThreadWatch(soft_timeout, timeout)
            watch.start(monotonic())
            user_code.begin(watch)
            try:
                with limited(watch), user_code:
                    apply_target(target, args or (), kwargs, returned.append, accept_callback, propagate=(Abandoned,))
            except Abandoned:
                if timeout_callback is not None:
                    timeout_callback(False, timeout)
                raise TimeLimitExceeded(timeout) from None
            except Exception as error:
                if error_callback is not None:
                    error_callback(exception_info(error))
                raise
            if callback is not None:
                callback(returned[0])
            return returned[0]

        return ApplyResult(self.executor.submit(run))

    # -- the worker's loop, and the end

    def register_with_event_loop(self, loop: Any) -> None:
        self._has_loop = True
        self._mailbox.use(loop)
        self._agenda.use(loop)

    def maintain_pool(self, *args: Any, **kwargs: Any) -> None:
        self._mailbox.deliver()
        self._agenda.run_due()

    @property
    def in_flight(self) -> int:
        return len(self._running)

    def flush(self) -> None:
        waiting, self._backlog = [*self._backlog], deque()
        with self._wanted:
            waiting[:0] = [flight.job for flight in self._ready if flight is not None]
            self._ready.clear()
        for job in waiting:
            tell(job.on_dropped)

    def on_close(self) -> None:
        self.flush()

    def on_stop(self) -> None:
        """Wait for the jobs that run, as long as their limits let them, then for the threads."""
        self.close()
        self._dismiss_threads()
        while self._running:
            due_in = self._agenda.seconds_left()
            self._mailbox.wait(1.0 if due_in is None else min(due_in, 1.0))
            self._agenda.run_due()
        self.executor.shutdown(wait=True, cancel_futures=True)
        for seat in self._seats:
            seat.thread.join()
        self._end_all()

    def on_terminate(self) -> None:
        """Leave what runs behind: its threads end with the process, and nothing more is heard of it."""
        self.flush()
        self._dismiss_threads()
        self.executor.shutdown(wait=False, cancel_futures=True)
        self._end_all()
        running, self._running = self._running, set()
        for flight in running:
            name = flight.job.name
            tell(flight.job.on_lost, raised(WorkerLostError(f"{name} was left in its thread when the worker ended")))

    def _end_all(self) -> None:
        self._agenda.clear()
        self._alarm.relax(monotonic())
        self._mailbox.deliver()
        self._mailbox.close()

    def _dismiss_threads(self) -> None:
        with self._wanted:
            self._ready.extend([None] * len(self._seats))
            self._wanted.notify_all()

    def _get_info(self) -> dict[str, Any]:
        self._abandoned = [seat for seat in self._abandoned if seat.thread.is_alive()]
        return {
            **super()._get_info(),
            "threads": len(self._seats) + len(self.executor._threads),
            "abandoned-threads": len(self._abandoned),
        }


def _drain(entries: deque[tuple[Flight, bytes]]) -> Iterator[tuple[Flight, bytes]]:
    """Take and yield what is there; another thread may do so at the same time."""
    while True:
        try:
            yield entries.popleft()
        except IndexError:
            return
