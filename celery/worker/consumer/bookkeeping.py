"""What the worker's main process has to do with result stores: from a thread, so that no store holds up its loop."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from celery.backends.base import DisabledBackend
from celery.utils.log import get_logger

__all__ = ("Bookkeeper",)

logger = get_logger(__name__)

#: Seconds between two looks for chords whose members do not report any more;
#: ``result_backend_transport_options["chord_sweep_interval"]`` sets another.
SWEEP_SECONDS = 60.0
#: Seconds that a worker's end waits for what is still to be written.
PARTING_SECONDS = 5.0
#: So many of them may pass without anything being written: the store is away, or hangs.
STANDSTILL_SECONDS = 1.0
#: Seconds between two tries while the store is away.
AWAY_SECONDS = 0.5
#: So many jobs wait for a store that is away; what comes on top of that is not stored.
MOST_JOBS = 10_000


class _Job:
    """Something to do with the store of ``owner``, an app or a task; ``done`` is called when it was."""

    def __init__(self, call: Callable[[], Any], owner: Any, name: str, done: Callable[[], Any] | None = None) -> None:
        self.call = call
        self.owner = owner
        self.name = name
        self.done = done


class Bookkeeper:
    """Does what it is given, one thing after the other, and sweeps chords in between.

    What fails because the store is away is done again until it is back.  ``call_soon`` calls a function on the thread
    of the worker's loop: by it a job says that it is done.  ``timer`` is the worker's.
    """

    def __init__(self, app: Any, call_soon: Callable[..., Any] | None = None, timer: Any = None) -> None:
        self.app = app
        self._call_soon = call_soon or _call
        self._timer = timer
        self._jobs: deque[_Job] = deque()
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None
        #: Whether the worker stops: what cannot be stored now is given up.
        self._is_closing = False
        self._is_to_end = False
        self._is_away = False
        #: Jobs that somebody waits for.
        self._awaited = 0
        #: Jobs that are over.
        self._finished = 0

    def start(self) -> None:
        """Begin to sweep, if there is a store."""
        with self._news:
            self._is_closing = self._is_to_end = False
            if not isinstance(self.app.backend, DisabledBackend):
                self._ensure_thread()

    def submit(self, job: Callable[..., Any], *arguments: Any) -> None:
        """Do ``job(*arguments)`` soon; an error of it is logged."""
        self._add(_Job(partial(job, *arguments), self.app, getattr(job, "__name__", repr(job))))

    def store(
        self,
        task: Any,
        mark: str,
        task_id: str,
        *arguments: Any,
        done: Callable[[], Any] | None = None,
        at_most: float | None = None,
        **keywords: Any,
    ) -> None:
        """Call ``mark_as_...``, by its name, of the store of ``task``; then ``done()``, on the loop's thread.

        ``done`` is called after ``at_most`` seconds in any case; without that not at all if the worker stops before
        the store is back.
        """

        def call() -> None:
            getattr(task.backend, mark)(task_id, *arguments, **keywords)

        job = _Job(call, task, f"{mark} of {task.name}[{task_id}]", done)
        if done is not None:
            with self._news:
                self._awaited += 1
            if at_most is not None and self._timer is not None:
                self._timer.call_after(at_most, self._call_soon, (self._tell, job))
        self._add(job)

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for a job, and not in vain."""
        return self._awaited > 0

    def close(self) -> None:
        """Give up from now on what a store does not take at the first try: the worker stops."""
        with self._news:
            self._is_closing = True
            self._news.notify()

    def stop(self) -> None:
        """Do what is left, for at most `PARTING_SECONDS`, and end."""
        thread = self._thread
        if thread is None:
            return
        with self._news:
            self._is_closing = self._is_to_end = True
            self._news.notify()
        deadline = time.monotonic() + PARTING_SECONDS
        finished = -1
        while thread.is_alive() and finished != self._finished and (left := deadline - time.monotonic()) > 0:
            finished = self._finished
            thread.join(min(STANDSTILL_SECONDS, left))
        self._thread = None

    # -- in any thread

    def _add(self, job: _Job) -> None:
        with self._news:
            if len(self._jobs) < MOST_JOBS:
                self._jobs.append(job)
                self._ensure_thread()
                self._news.notify()
                return
        logger.error("Result store: %s is not stored, for %d others wait for the store already", job.name, MOST_JOBS)
        self._finish(job)

    def _ensure_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="celery-bookkeeper", daemon=True)
            self._thread.start()

    def _finish(self, job: _Job) -> None:
        self._finished += 1
        if job.done is not None:
            self._call_soon(self._tell, job)

    def _tell(self, job: _Job) -> None:
        with self._news:
            done, job.done = job.done, None
            if done is not None:
                self._awaited -= 1
        if done is not None:
            done()

    # -- in its own

    def _run(self) -> None:
        interval = self._interval()
        sweep_at = time.monotonic() + interval * random.uniform(0.5, 1)
        while True:
            with self._news:
                if not self._jobs and not self._is_to_end:
                    self._news.wait(max(0.0, sweep_at - time.monotonic()))
                job = self._jobs[0] if self._jobs else None
                if job is None and self._is_to_end:
                    return
            if job is not None:
                self._do(job)
            elif time.monotonic() >= sweep_at:
                sweep_at = time.monotonic() + interval * random.uniform(0.8, 1.2)
                self._sweep()

    def _interval(self) -> float:
        options = self.app.conf.result_backend_transport_options or {}
        return float(options.get("chord_sweep_interval") or SWEEP_SECONDS)

    def _sweep(self) -> None:
        try:
            self.app.backend.sweep_chords()
        except Exception as error:
            logger.error("Result store: chords could not be looked at: %r", error)

    def _do(self, job: _Job) -> None:
        """Do the first job; it stays the first if its store is away."""
        try:
            job.call()
        except Exception as error:
            if self._is_passing(job, error):
                self._put_off(job, error)
                return
            logger.error("Result store: %s failed: %r", job.name, error)
        else:
            if self._is_away:
                logger.warning("Result store: back again")
                self._is_away = False
        self._jobs.popleft()
        self._finish(job)

    def _is_passing(self, job: _Job, error: Exception) -> bool:
        try:
            return bool(job.owner.backend.is_passing_trouble(error))
        except Exception as trouble:  # a store of the user's
            logger.error("Result store: %r cannot be told from trouble that passes: %r", error, trouble)
            return False

    def _put_off(self, job: _Job, error: Exception) -> None:
        with self._news:
            if self._is_closing:
                logger.error("Result store: %s and %d more are not stored: %r", job.name, len(self._jobs) - 1, error)
                self._jobs.clear()
                self._awaited = 0
                return
            if not self._is_away:
                logger.warning("Result store: away, what is to be stored waits for it: %s: %r", job.name, error)
                self._is_away = True
            self._news.wait_for(lambda: self._is_closing, AWAY_SECONDS)


def _call(function: Callable[..., Any], *arguments: Any) -> None:
    function(*arguments)
