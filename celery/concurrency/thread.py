"""The threads pool: jobs run in threads of the worker itself.

Threads take jobs from one queue, so none waits while a thread is idle.  What they have to tell goes through a list
to the loop's thread, which a byte in a socket wakes.

A thread cannot be killed.  A soft limit is an exception raised in it.  At the hard limit, and by `terminate_job`, its
job ends for everybody else: it gets its final state, the thread is *abandoned*, and another one takes its place.  An
abandoned thread gets an exception, too, and ends when that reaches it; until then it is counted.  Whatever it still
comes to say of its job is not heard.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any

from billiard.common import TERM_SIGNAME
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError

from celery import platforms
from celery.concurrency.agenda import Agenda
from celery.concurrency.base import JobPool, PoolTraits, apply_target, exception_info, frame_of, raised, tell
from celery.concurrency.guard import Abandoned, SoftlyTerminated, ThreadWatch, limited, user_code
from celery.concurrency.mailbox import Mailbox
from celery.concurrency.threads.limits import Limits
from celery.concurrency.threads.seat import NOTHING, Flight, Seat, drain
from celery.utils.log import get_logger

if TYPE_CHECKING:
    from celery.abc import Job

__all__ = ("TaskPool",)

logger = get_logger(__name__)

#: As in the prefork pool, to terminate by this signal is to raise the soft limit.
SOFT_SIGNAL = getattr(signal, "SIGUSR1", None)


class ApplyResult:
    """The handle on a callable that `TaskPool.apply_async` returns."""

    def __init__(self, future: Future[Any]) -> None:
        self.f = future
        self.get = future.result

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has ended, well or not, or for ``timeout`` seconds."""
        wait([self.f], timeout)


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
        self._limits = Limits(self._agenda, lambda: list(self._running), self._tell_soft_limit, self._abandon)
        self._has_loop = False
        #: Jobs that the loop holds, then frames that any thread may take: few, so that a revoke finds most in time.
        self._backlog: deque[Job] = deque()
        self._ready: deque[Flight | None] = deque()
        self._wanted = threading.Condition()
        self._seats: list[Seat] = []
        self._names = count(1)
        self._idle = 0
        self._running: set[Flight] = set()

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
            seat = Seat(self, f"ThreadPoolWorker-{next(self._names)}")
            self._seats.append(seat)
            seat.thread.start()

    # -- jobs, in threads

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
        self._limits.note(flight)

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

    # -- the end of a job that does not end by itself

    def _abandon(self, flight: Flight, told: Callable[..., Any], *args: Any) -> None:
        """Give up on ``flight`` and its thread; ``told(*args)`` is its end."""
        seat = flight.seat
        assert seat is not None
        self._tell_start(flight, os.getpid())
        with self._wanted:
            seat.is_abandoned = True
            self._seats.remove(seat)
        for other, answer in drain(seat.ended):
            self._on_finished(other, answer)
        self._limits.pursue(seat, flight.watch)
        logger.warning(
            "%s[%s] is given up, its thread %s is replaced; given up and not ended yet: %d",
            flight.job.name,
            flight.job.id,
            seat.thread.name,
            len(self._limits.abandoned),
        )
        self._end(flight, told, *args)
        with self._wanted:
            self._staff()

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
            flight.watch.interrupt(SoftlyTerminated)
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
        self._limits.close()
        self._mailbox.deliver()
        self._mailbox.close()

    def _dismiss_threads(self) -> None:
        with self._wanted:
            self._ready.extend([None] * len(self._seats))
            self._wanted.notify_all()

    def _get_info(self) -> dict[str, Any]:
        return {
            **super()._get_info(),
            "threads": len(self._seats) + len(self.executor._threads),
            "abandoned-threads": self._limits.count_abandoned(),
        }
