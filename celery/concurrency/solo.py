"""The solo pool: jobs run one after the other in the worker's own process and thread, a turn of its loop each.

Time limits are raised by a timer signal, which also ends a wait; but not in a task that uses SIGALRM itself.  In
another thread than the main one there are no signals, and limits come when a call into C returns.  A call that never
returns ends the worker, some seconds after the hard limit (`celery.concurrency.stall`): nothing else could be done for
the messages that this worker holds.
"""

from __future__ import annotations

import math
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any

from billiard.exceptions import SoftTimeLimitExceeded, WorkerLostError

from celery import signals
from celery.concurrency.base import WORKER_EXITS, JobPool, PoolTraits, apply_target, exception_info, frame_of, tell
from celery.concurrency.guard import Abandoned, ThreadWatch, Watch, limited, user_code
from celery.concurrency.mailbox import Mailbox
from celery.concurrency.owing import Payer, pay_before_leaving
from celery.concurrency.stall import StallAlarm
from celery.utils.log import get_logger

if TYPE_CHECKING:
    from celery.abc import Job

__all__ = ("TaskPool",)

logger = get_logger(__name__)

#: A task that takes the exception of its hard limit for nothing gets another after so many seconds.
REPEAT_SECONDS = 1.0


class TaskPool(JobPool):
    """Runs one job at a time, here."""

    body_can_be_buffer = True

    traits = PoolTraits(
        hosts_beat=True,
        interrupts_tasks=True,
        kills_tasks=True,
        join_may_deadlock=True,
        isolates_tasks=False,
        resizes=False,
        restarts=False,
        blocks_loop=True,
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limit = 1
        self._backlog: deque[Job] = deque()
        self._runner: Any = None
        self._mailbox = Mailbox()
        self._alarm = StallAlarm(ends=True)
        self._is_running = False
        self._has_turn = False
        self._payer = Payer(self._call_later)

    def on_start(self) -> None:
        if not _is_main_thread():
            user_code.separate()
        signals.worker_process_init.send(sender=None)  # Upstream: this process is the worker and its only child
        if self.make_runner is not None:
            self._runner = self.make_runner()

    # -- jobs

    def submit(self, job: Job) -> None:
        if self._state in (self.CLOSE, self.TERMINATE):
            tell(job.on_dropped)
            return
        self._backlog.append(job)
        self._wish_turn()

    def withdraw(self, job: Job) -> bool:
        try:
            self._backlog.remove(job)
        except ValueError:
            return False
        return True

    def _wish_turn(self) -> None:
        if not self._has_turn:
            self._has_turn = True
            self._mailbox.put(self._take_turn)

    def _take_turn(self) -> None:
        """Run one job; the loop looks at everything else before the next."""
        self._has_turn = False
        if self._is_running or not self._backlog:  # a task that runs the loop does not run other tasks
            return
        self._is_running = True
        try:
            self._run(self._backlog.popleft())
        finally:
            self._is_running = False
            if self._backlog:
                self._wish_turn()

    def maintain_pool(self, *args: Any, **kwargs: Any) -> None:
        """Take a turn, where there is no hub to give one."""
        self._mailbox.deliver()

    def _run(self, job: Job) -> None:
        frame = frame_of(job)
        if frame is None:
            return
        tell(job.on_started, os.getpid(), monotonic())
        watch = self._watch_for(job)
        try:
            with self._enforcing(watch):
                answer = self._runner.run(frame)
        except Abandoned:
            self._tell_soft_limit(job, watch)
            tell(job.on_hard_limit, watch.hard)
            return
        except WORKER_EXITS:
            raise
        except BaseException as error:  # SystemExit of a task ends the task, not the worker
            self._tell_soft_limit(job, watch)
            tell(job.on_lost, WorkerLostError(repr(error)).with_traceback(error.__traceback__))
            return
        self._tell_soft_limit(job, watch)
        if not self._backlog:
            self._payer.pay(self._runner)
        tell(job.on_finished, answer)

    def _call_later(self, seconds: float, *call: Any) -> None:
        timer = threading.Timer(seconds, self._mailbox.put, call)
        timer.daemon = True
        timer.start()

    def _watch_for(self, job: Job) -> Watch:
        """Return a watch with the job's limits, or the pool's."""
        soft, hard = self.limits_of(job)
        return Watch(soft, hard, _raise) if _is_main_thread() else ThreadWatch(soft, hard)

    @contextmanager
    def _enforcing(self, watch: Watch) -> Iterator[None]:
        """Enforce the limits of ``watch`` in the block."""
        with ExitStack() as house:
            watch.start(monotonic())
            if watch.hard:
                self._alarm.expect(watch.started_at + watch.hard)
                house.callback(lambda: self._alarm.relax(monotonic()))
            user_code.begin(watch)
            house.callback(user_code.begin)
            if isinstance(watch, ThreadWatch):
                house.enter_context(limited(watch))
            elif watch.soft or watch.hard:
                house.enter_context(by_alarm(watch))
            yield

    @staticmethod
    def _tell_soft_limit(job: Job, watch: Watch) -> None:
        if watch.was_soft_raised:
            tell(job.on_soft_limit, watch.soft)

    @property
    def in_flight(self) -> int:
        return int(self._is_running)

    # -- callables

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        error_callback: Callable[..., Any] | None = None,
        **options: Any,
    ) -> None:
        """Run ``target`` now, before this returns."""
        try:
            apply_target(target, args, kwargs, callback, accept_callback, propagate=self.callbacks_propagate)
        except Exception as error:
            if error_callback is None:
                raise
            error_callback(exception_info(error))

    # -- the worker's loop, and the end

    def register_with_event_loop(self, loop: Any) -> None:
        self._mailbox.use(loop)

    def flush(self) -> None:
        waiting, self._backlog = self._backlog, deque()
        for job in waiting:
            tell(job.on_dropped)

    def on_close(self) -> None:
        self.flush()

    def on_stop(self) -> None:
        self.close()
        self._settle()
        pay_before_leaving(self._runner)
        self._mailbox.close()

    def on_terminate(self) -> None:
        self.flush()
        self._settle()
        self._mailbox.close()

    def _settle(self) -> None:
        """Have the last result stored: a job with others behind it left that to them, who are not run any more."""
        if self._runner is not None:
            self._runner.flush()

    def _get_info(self) -> dict[str, Any]:
        return {
            **super()._get_info(),
            "processes": [os.getpid()],
            "max-tasks-per-child": None,
            "put-guarded-by-semaphore": True,
            "timeouts": (),
        }


@contextmanager
def by_alarm(watch: Watch) -> Iterator[None]:
    """Enforce the limits of ``watch`` in the block by a timer signal."""
    soft, hard = watch.soft, watch.hard

    def on_alarm(signum: int, frame: FrameType | None) -> None:
        if watch.is_over:
            watch.interrupt(Abandoned)
        elif soft and not watch.was_soft_raised:
            if hard:
                signal.setitimer(signal.ITIMER_REAL, max(watch.started_at + hard - monotonic(), 1e-6), REPEAT_SECONDS)
            watch.interrupt(SoftTimeLimitExceeded)

    previous = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, min(soft or math.inf, hard or math.inf), REPEAT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous if previous is not None else signal.SIG_DFL)


def _raise(error: type[BaseException]) -> None:
    raise error


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
