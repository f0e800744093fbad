"""The solo pool: jobs run one after the other in the worker's own process and thread, a turn of its loop each.

A soft time limit is raised by a timer signal, so it works in the main thread only, and not in a task that uses
SIGALRM itself.  Nothing can end a running task: there is no hard limit.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any

from billiard.exceptions import WorkerLostError

from celery import signals
from celery.concurrency.base import WORKER_EXITS, JobPool, PoolTraits, apply_target, exception_info, frame_of, tell
from celery.concurrency.guard import user_code
from celery.concurrency.mailbox import Mailbox
from celery.utils.log import get_logger

if TYPE_CHECKING:
    from celery.abc import Job

__all__ = ("TaskPool",)

logger = get_logger(__name__)


class TaskPool(JobPool):
    """Runs one job at a time, here."""

    body_can_be_buffer = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limit = 1
        self._backlog: deque[Job] = deque()
        self._runner: Any = None
        self._mailbox = Mailbox()
        self._is_running = False
        self._has_turn = False

    @property
    def traits(self) -> PoolTraits:
        return PoolTraits(
            hosts_beat=True,
            interrupts_tasks=threading.current_thread() is threading.main_thread(),
            kills_tasks=False,
            join_may_deadlock=True,
            isolates_tasks=False,
            resizes=False,
            restarts=False,
        )

    def on_start(self) -> None:
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
        self._check_job(job)
        frame = frame_of(job)
        if frame is None:
            return
        tell(job.on_started, os.getpid(), monotonic())
        alarm = SoftLimit(self.soft_limit if job.soft_limit is None else job.soft_limit)
        try:
            with alarm:
                answer = self._runner.run(frame)
        except WORKER_EXITS:
            raise
        except BaseException as error:  # SystemExit of a task ends the task, not the worker
            alarm.tell(job)
            tell(job.on_lost, WorkerLostError(repr(error)).with_traceback(error.__traceback__))
            return
        alarm.tell(job)
        if not self._backlog:
            self._runner.flush()
        tell(job.on_finished, answer)

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
        self._mailbox.close()

    def on_terminate(self) -> None:
        self.flush()
        self._mailbox.close()

    def _get_info(self) -> dict[str, Any]:
        return {
            **super()._get_info(),
            "processes": [os.getpid()],
            "max-tasks-per-child": None,
            "put-guarded-by-semaphore": True,
            "timeouts": (),
        }


class SoftLimit:
    """Raises `SoftTimeLimitExceeded` in the user's code inside of its block, after ``seconds``."""

    def __init__(self, seconds: float | None) -> None:
        is_possible = seconds and threading.current_thread() is threading.main_thread()
        self.seconds = (seconds or 0.0) if is_possible else 0.0
        self._was_raised = False
        self._previous: Any = None

    def __enter__(self) -> None:
        user_code.begin()
        if self.seconds:
            self._previous = signal.signal(signal.SIGALRM, self._on_alarm)
            signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, *_: Any) -> None:
        if self.seconds:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._previous if self._previous is not None else signal.SIG_DFL)
        user_code.begin()

    def tell(self, job: Job) -> None:
        """Tell ``job`` if it was raised."""
        if self._was_raised:
            tell(job.on_soft_limit, self.seconds)

    def _on_alarm(self, signum: int, frame: FrameType | None) -> None:
        user_code.interrupt(self._note)

    def _note(self) -> None:
        self._was_raised = True
