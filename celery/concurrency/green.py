"""What the pools of green threads have in common: jobs run in greenlets of the worker's own thread.

All of the process has to be patched, so that waiting for a socket lets others run; `GreenPool.on_start` checks that.
Time limits and `terminate_job` are exceptions, raised in the user's code where it waits.  While a task computes nothing
else runs, the code that enforces its limits included: they count when it waits or ends, and a traceback on stderr tells
of a task that does neither (`celery.concurrency.stall`).
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from billiard.common import TERM_SIGNAME
from billiard.exceptions import SoftTimeLimitExceeded, Terminated, TimeLimitExceeded, WorkerLostError
from kombu.asynchronous import timer as kombu_timer

from celery import platforms
from celery.concurrency.base import JobPool, PoolTraits, apply_target, exception_info, raised, tell
from celery.concurrency.guard import Abandoned, SoftlyTerminated, Watch, user_code
from celery.concurrency.mailbox import Mailbox
from celery.concurrency.owing import Payer
from celery.concurrency.stall import GRACE_SECONDS, StallAlarm
from celery.exceptions import ImproperlyConfigured
from celery.utils.log import get_logger

if TYPE_CHECKING:
    from celery.abc import Job

__all__ = ("Flight", "GreenPool", "GreenTimer")

logger = get_logger(__name__)

#: As in the prefork pool, to terminate by this signal is to raise the soft limit.
SOFT_SIGNAL = getattr(signal, "SIGUSR1", None)


class GreenTimer(kombu_timer.Timer):
    """A timer whose entries are greenlets that sleep until their time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]  # kombu has no types
        self._queue: set[Any] = set()  # type: ignore[assignment]  # not a heap: nobody takes the next one

    def spawn_after(self, seconds: float, function: Callable[[], Any]) -> Any:
        """Return a greenlet that calls ``function`` in ``seconds``; it has ``cancel``."""
        raise NotImplementedError

    def _enter(self, eta: float, priority: int, entry: Any, push: Any = None) -> Any:
        def call() -> None:
            self._queue.discard(entry)
            if not entry.canceled:
                try:
                    entry()
                except Exception as error:
                    if not self.handle_error(error):  # type: ignore[no-untyped-call]
                        logger.error("Error in timer: %r", error, exc_info=True)

        entry.greenlet = self.spawn_after(max(eta - monotonic(), 0), call)
        self._queue.add(entry)
        return entry

    def cancel(self, tref: Any) -> None:
        """Forget an entry."""
        tref.cancel()
        self._queue.discard(tref)
        tref.greenlet.cancel()

    def clear(self) -> None:
        """Forget all entries."""
        while self._queue:
            self.cancel(self._queue.pop())

    @property
    def queue(self) -> set[Any]:
        return self._queue

    class Entry(kombu_timer.Entry):
        """One with room for its greenlet."""

        __slots__ = ("greenlet",)


class Flight:
    """A job or call in a greenlet; ``run`` is what to call there, ``end`` what to tell on the loop afterwards."""

    __slots__ = ("deadlines", "end", "greenlet", "run", "watch")

    def __init__(self, run: Callable[[], Any], end: Callable[[bool, Any], Any], soft: Any, hard: Any) -> None:
        self.run, self.end = run, end
        self.greenlet: Any = None
        self.deadlines: list[Any] = []
        self.watch = Watch(soft, hard, self._throw)

    def _throw(self, error: type[BaseException]) -> None:
        self.greenlet.throw(error)


class GreenPool(JobPool):
    """Runs jobs in ``limit`` greenlets; subclasses say how greenlets are made and killed."""

    is_green = True
    signal_safe = False
    task_join_will_block = False
    body_can_be_buffer = True

    traits = PoolTraits(
        hosts_beat=False,
        interrupts_tasks=True,
        kills_tasks=True,
        join_may_deadlock=False,
        isolates_tasks=False,
        resizes=True,
        restarts=False,
        is_green=True,
    )

    #: As users write it: ``-P gevent``.
    name = "green"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limit: int = self.limit or os.cpu_count() or 1
        self._mailbox = Mailbox()
        self._alarm = StallAlarm()
        self._is_beating = False
        self._backlog: deque[Any] = deque()
        self._flights: dict[int, Flight] = {}
        self._by_job: dict[Job, Flight] = {}
        self._runners: list[Any] = []
        self._payer = Payer(self.spawn_after)

    # -- what a subclass fills in

    def is_patched(self) -> bool:
        """Return whether the standard library waits in the green way."""
        raise NotImplementedError

    def spawn(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return a greenlet that will call ``function``."""
        raise NotImplementedError

    def spawn_after(self, seconds: float, function: Callable[..., Any], *args: Any) -> Any:
        """Return what has ``cancel``, and calls ``function`` in ``seconds``."""
        raise NotImplementedError

    def call_between(self, function: Callable[[], Any]) -> None:
        """Have ``function`` called soon, while no greenlet runs: it may throw into one that waits."""
        raise NotImplementedError

    # -- jobs

    def on_start(self) -> None:
        if not self.is_patched():
            raise ImproperlyConfigured(
                f"The {self.name} pool needs a patched process: start it as `celery -A app worker -P {self.name}`, "
                f"or patch at the very beginning of your program."
            )
        user_code.separate()

    def submit(self, job: Job) -> None:
        if self._state in (self.CLOSE, self.TERMINATE):
            tell(job.on_dropped)
            return
        self._backlog.append(job)
        self._feed()

    def _feed(self) -> None:
        """Start what waits, as far as there is room."""
        while self._backlog and len(self._flights) < self.limit:
            work = self._backlog.popleft()
            if isinstance(work, Flight):
                self._launch(work)
            else:
                self._start_job(work)

    def _start_job(self, job: Job) -> None:
        try:
            frame = job.frame()
            if frame is None:  # it was revoked while it waited, and has been dealt with
                return
            runner = self._runners.pop() if self._runners else self._make_runner()
        except Exception as error:
            logger.error("%s[%s] cannot be run: %r", job.name, job.id, error, exc_info=True)
            tell(job.on_lost, error)
            return

        def run() -> bytes:
            answer: bytes = runner.run(frame)
            self._payer.pay(runner)
            return answer

        def end(has_returned: bool, value: Any) -> None:
            self._by_job.pop(job, None)
            if flight.watch.was_soft_raised:
                tell(job.on_soft_limit, flight.watch.soft)
            if has_returned:
                self._runners.append(runner)
                tell(job.on_finished, value)
            elif isinstance(value, TimeLimitExceeded):
                tell(job.on_hard_limit, value.args[0])
            else:
                tell(job.on_lost, value)

        flight = self._by_job[job] = Flight(run, end, *self.limits_of(job))
        self._launch(flight)
        tell(job.on_started, self.getpid(flight.greenlet), monotonic())

    def _make_runner(self) -> Any:
        if self.make_runner is None:
            raise RuntimeError("This pool was made without a runner, it takes callables only")
        runner = self.make_runner()
        if hasattr(runner, "share_debts"):
            runner.share_debts()
        return runner

    def _launch(self, flight: Flight) -> None:
        flight.greenlet = self.spawn(self._fly, flight)
        self._flights[self.getpid(flight.greenlet)] = flight
        watch = flight.watch
        if watch.soft:
            flight.deadlines.append(self.spawn_after(watch.soft, self._interrupt, flight, SoftTimeLimitExceeded))
        if watch.hard:
            error = TimeLimitExceeded(watch.hard)
            flight.deadlines.append(self.spawn_after(watch.hard, self._abandon, flight, error))
            if not self._is_beating:
                self._beat()

    def _fly(self, flight: Flight) -> None:
        """Run ``flight``; this is a greenlet's whole life."""
        watch = flight.watch
        watch.start(monotonic())
        user_code.begin(watch)
        try:
            outcome = True, flight.run()
        except Abandoned:  # if nobody has given it up, it went beyond its limit without a wait
            outcome = False, TimeLimitExceeded(watch.hard)
        except BaseException as error:  # SystemExit of a task ends the task, not the worker
            is_plain = isinstance(error, Exception)
            outcome = False, error if is_plain else WorkerLostError(repr(error)).with_traceback(error.__traceback__)
        self._mailbox.put(self._land, flight, *outcome)

    def _land(self, flight: Flight, has_returned: bool, value: Any) -> None:
        if self._flights.pop(self.getpid(flight.greenlet), None) is None:  # it has been given up before
            return
        for deadline in flight.deadlines:
            deadline.cancel()
        flight.end(has_returned, value if has_returned else raised(value))
        self._feed()

    def _beat(self) -> None:
        """Put the alarm off while there are limits to keep; it goes off if nothing gets to run here for too long."""
        now = monotonic()
        self._alarm.relax(now)
        self._is_beating = any(flight.watch.hard for flight in self._flights.values())
        if self._is_beating:
            self._alarm.expect(now)
            self.spawn_after(GRACE_SECONDS / 2, self._beat)

    def _interrupt(self, flight: Flight, error: type[BaseException]) -> None:
        """Raise ``error`` in the user's code of ``flight``, where it waits."""
        self.call_between(lambda: flight.watch.interrupt(error))

    def _abandon(self, flight: Flight, error: Exception) -> None:
        """End ``flight`` with ``error``, whatever its greenlet does about it."""
        self._mailbox.put(self._land, flight, False, error)
        self._interrupt(flight, Abandoned)

    def getpid(self, greenlet: Any) -> int:
        """Return what stands for a process id."""
        return id(greenlet)

    def withdraw(self, job: Job) -> bool:
        try:
            self._backlog.remove(job)
        except ValueError:
            return False
        return True

    def terminate_job(self, pid: int | Job, signal: Any = None) -> bool:
        """End what runs in the greenlet ``pid``, or a given job, at the point where it waits."""
        flight = self._flights.get(pid) if isinstance(pid, int) else self._by_job.get(pid)
        if flight is None:
            return False
        signum = int(platforms.signals.signum(signal or TERM_SIGNAME))
        if signum == SOFT_SIGNAL:
            self._interrupt(flight, SoftlyTerminated)
        else:
            self._abandon(flight, Terminated(signum))
        return True

    # -- callables

    def _apply(
        self,
        target: Callable[..., Any],
        args: Iterable[Any] | None,
        kwargs: Mapping[str, Any] | None,
        callback: Callable[..., Any] | None,
        accept_callback: Callable[..., Any] | None,
        error_callback: Callable[..., Any] | None = None,
        timeout: float | None = None,
        timeout_callback: Callable[..., Any] | None = None,
        soft_timeout: float | None = None,
    ) -> Flight:
        """Run ``target`` in a greenlet.  Its callbacks come on the loop, after `Mailbox.deliver`."""

        def accept(_: int, started_at: float) -> None:
            if accept_callback is not None:
                self._mailbox.put(accept_callback, self.getpid(flight.greenlet), started_at)

        def run() -> Any:
            returned: list[Any] = []
            with user_code:
                apply_target(target, args or (), kwargs, returned.append, accept, propagate=(Abandoned,))
            return returned[0]

        def end(has_returned: bool, value: Any) -> None:
            if has_returned:
                if callback is not None:
                    callback(value)
            elif isinstance(value, TimeLimitExceeded) and timeout_callback is not None:
                timeout_callback(False, value.args[0])
            elif error_callback is not None:
                error_callback(exception_info(value))
            else:
                logger.error("%r failed: %r", target, value, exc_info=value)

        flight = Flight(run, end, soft_timeout, timeout)
        self._backlog.append(flight)
        self._feed()
        return flight

    # -- the worker's loop, size, and the end

    def register_with_event_loop(self, loop: Any) -> None:
        self._mailbox.use(loop)

    def maintain_pool(self, *args: Any, **kwargs: Any) -> None:
        self._mailbox.deliver()

    def grow(self, n: int = 1) -> None:
        """Let ``n`` more run at once."""
        self.limit += n
        self._feed()

    def shrink(self, n: int = 1) -> None:
        """Let ``n`` fewer run at once; those that run are not disturbed."""
        if n >= self.limit:
            raise ValueError(f"Cannot take {n} of {self.limit} greenlets away: a pool needs one")
        self.limit -= n

    @property
    def in_flight(self) -> int:
        return len(self._flights)

    def flush(self) -> None:
        waiting, self._backlog = self._backlog, deque()
        for work in waiting:
            if isinstance(work, Flight):
                work.end(False, raised(WorkerLostError("The pool closed before it ran this")))
            else:
                tell(work.on_dropped)

    def on_close(self) -> None:
        self.flush()

    def on_stop(self) -> None:
        """Wait for what runs."""
        self.close()
        while self._flights:
            self._mailbox.wait(1.0)
        self._mailbox.close()

    def on_terminate(self) -> None:
        """Kill what runs."""
        self.flush()
        for flight in list(self._flights.values()):
            self._abandon(flight, Terminated(int(platforms.signals.signum(TERM_SIGNAME))))
        self._mailbox.deliver()
        self._mailbox.close()
