"""The threads pool: jobs run in threads of the worker itself.

Threads take jobs from one queue, so none waits while a thread is idle.  What they have to tell goes through a list
to the loop's thread, which a byte in a socket wakes.  A thread cannot be interrupted nor killed: time limits and
`terminate_job` are not to be had here, and the traits say so.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from billiard.exceptions import WorkerLostError

from celery.concurrency.base import JobPool, PoolTraits, apply_target, exception_info, frame_of, raised, tell
from celery.concurrency.mailbox import Mailbox
from celery.utils.log import get_logger

if TYPE_CHECKING:
    from celery.abc import Job

__all__ = ("TaskPool",)

logger = get_logger(__name__)

#: Successes are told when there is nothing more to run, when the first of them is this many seconds old, or before a
#: job that is not known to take less.
REPORT_AFTER = 0.002


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


class TaskPool(JobPool):
    """Runs jobs in ``limit`` threads."""

    body_can_be_buffer = True
    signal_safe = False

    traits = PoolTraits(
        hosts_beat=True,
        interrupts_tasks=False,
        kills_tasks=False,
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
        self._has_loop = False
        #: Jobs that the loop holds, then frames that any thread may take: few, so that a revoke finds most in time.
        self._backlog: deque[Job] = deque()
        self._ready: deque[tuple[Job, bytes] | None] = deque()
        self._wanted = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._running: set[Job] = set()

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
            self._check_job(job)
            frame = frame_of(job)
            if frame is None:
                continue
            with self._wanted:
                ready.append((job, frame))
                self._wanted.notify()
                if len(ready) > self._idle and len(self._threads) < self.limit:
                    self._start_thread()

    def withdraw(self, job: Job) -> bool:
        if job in self._backlog:
            self._backlog.remove(job)
            return True
        with self._wanted:
            for entry in self._ready:
                if entry is not None and entry[0] is job:
                    self._ready.remove(entry)
                    return True
        return False

    def _start_thread(self) -> None:
        name = f"ThreadPoolWorker-{len(self._threads) + 1}"
        thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    # -- jobs, in threads

    def _serve(self) -> None:
        """Run jobs until there comes ``None``; this is a thread's whole life."""
        put, pid = self._mailbox.put, os.getpid()
        try:
            runner = self._make_runner()
        except BaseException as error:
            logger.critical("A thread of the pool cannot start: %r", error, exc_info=True)
            put(self._on_thread_death, threading.current_thread())
            return
        ended: list[tuple[Job, bytes]] = []  # those whose results may be unconfirmed
        since = 0.0
        brief: set[str] = set()  # names of jobs that took less than `REPORT_AFTER` the last time

        def report() -> None:
            runner.flush()
            for job, answer in ended:
                put(self._on_finished, job, answer)
            ended.clear()

        while True:
            if ended and monotonic() - since > REPORT_AFTER:
                report()
            entry = self._next(waits=not ended)
            if entry is NOTHING:
                report()
                continue
            if entry is None:
                report()
                return
            job, frame = entry
            if ended and job.name not in brief:
                report()
            began = monotonic()
            since = since if ended else began
            put(job.on_started, pid, began)
            try:
                ended.append((job, runner.run(frame)))
            except BaseException as error:  # SystemExit of a task ends the task, not the worker
                lost = WorkerLostError(repr(error)).with_traceback(error.__traceback__)
                put(self._on_lost, job, lost)
            if monotonic() - began < REPORT_AFTER:
                brief.add(job.name)
            else:
                brief.discard(job.name)

    def _make_runner(self) -> Any:
        if self.make_runner is None:
            raise RuntimeError("This pool was made without a runner, it takes callables only")
        return self.make_runner()

    def _next(self, waits: bool) -> Any:
        """Take what is to be done next: a job with its frame, or ``None`` for the end."""
        with self._wanted:
            while not self._ready:
                if not waits:
                    return NOTHING
                self._idle += 1
                try:
                    self._wanted.wait()
                finally:
                    self._idle -= 1
            entry = self._ready.popleft()
            if entry is not None:
                self._running.add(entry[0])
            return entry

    # -- what threads tell, on the loop's thread

    def _on_finished(self, job: Job, answer: bytes) -> None:
        self._running.discard(job)
        tell(job.on_finished, answer)
        self._feed()

    def _on_lost(self, job: Job, error: Exception) -> None:
        self._running.discard(job)
        tell(job.on_lost, error)
        self._feed()

    def _on_thread_death(self, thread: threading.Thread) -> None:
        """A thread could not start.  With none left nothing will ever run, so say that of what waits."""
        self._threads.remove(thread)
        if not self._threads:
            self.flush()

    # -- callables

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        error_callback: Callable[..., Any] | None = None,
        **_: Any,
    ) -> ApplyResult:
        """Run ``target`` in a thread; without an event loop, its callbacks are called there, too."""

        def tell_loop(told: Callable[..., Any] | None) -> Callable[..., Any] | None:
            return partial(self._mailbox.put, told) if told is not None and self._has_loop else told

        callback, accept_callback, error_callback = map(tell_loop, (callback, accept_callback, error_callback))

        def run() -> Any:
            returned: list[Any] = []
            try:
                apply_target(target, args or (), kwargs, returned.append, accept_callback)
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

    def maintain_pool(self, *args: Any, **kwargs: Any) -> None:
        self._mailbox.deliver()

    @property
    def in_flight(self) -> int:
        return len(self._running)

    def flush(self) -> None:
        waiting, self._backlog = [*self._backlog], deque()
        with self._wanted:
            waiting[:0] = [entry[0] for entry in self._ready if entry is not None]
            self._ready.clear()
        for job in waiting:
            tell(job.on_dropped)

    def on_close(self) -> None:
        self.flush()

    def on_stop(self) -> None:
        """Wait for the jobs that run, then for the threads."""
        self.close()
        self._dismiss_threads()
        while self._running:
            self._mailbox.wait(1.0)
        self.executor.shutdown(wait=True, cancel_futures=True)
        for thread in self._threads:
            thread.join()
        self._mailbox.deliver()
        self._mailbox.close()

    def on_terminate(self) -> None:
        """Leave what runs behind: its threads end with the process, and nothing more is heard of it."""
        self.flush()
        self._dismiss_threads()
        self.executor.shutdown(wait=False, cancel_futures=True)
        self._mailbox.deliver()
        self._mailbox.close()
        running, self._running = self._running, set()
        for job in running:
            tell(job.on_lost, raised(WorkerLostError(f"{job.name} was left in its thread when the worker ended")))

    def _dismiss_threads(self) -> None:
        with self._wanted:
            self._ready.extend([None] * len(self._threads))
            self._wanted.notify_all()

    def _get_info(self) -> dict[str, Any]:
        return {**super()._get_info(), "threads": len(self._threads) + len(self.executor._threads)}
