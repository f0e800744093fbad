"""What every pool promises.

`BasePool` is Celery's contract, ``apply_async`` for a callable with callbacks, so that pools written for Celery
work.  `JobPool` is ours on top of it, and what the worker uses where it can: ``submit`` for a `celery.abc.Job`.
"""

from __future__ import annotations

import logging
import os
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from billiard.exceptions import WorkerLostError

from celery.exceptions import WorkerShutdown, WorkerTerminate
from celery.utils import timer2
from celery.utils.log import get_logger

if TYPE_CHECKING:
    from celery.abc import Job, Runner

__all__ = ("BasePool", "JobPool", "PoolTraits", "apply_target", "bare_exception", "exception_info", "raised", "tell")

logger = get_logger("celery.pool")

#: What callbacks of ``apply_async`` may do that no pool should swallow.
WORKER_EXITS = (WorkerShutdown, WorkerTerminate)


@dataclass(frozen=True)
class PoolTraits:
    """What a pool promises; nobody above asks which pool it is."""

    hosts_beat: bool  #: beat may run inside this worker
    interrupts_tasks: bool  #: a soft time limit can be raised in a running task
    kills_tasks: bool  #: a hard time limit and `terminate_job` can end a running task
    join_may_deadlock: bool  #: a task waiting for a task may hold the only slot
    isolates_tasks: bool  #: tasks run in processes of their own, where the initializer runs too
    resizes: bool  #: it has `grow` and `shrink`
    restarts: bool  #: it has `restart`
    is_green: bool = False  #: it needs a monkey-patched process
    blocks_loop: bool = False  #: tasks run on the thread of the event loop


def apply_target(
    target: Callable[..., Any],
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    callback: Callable[[Any], Any] | None = None,
    accept_callback: Callable[[int, float], Any] | None = None,
    pid: int | None = None,
    getpid: Callable[[], int] = os.getpid,
    propagate: tuple[type[BaseException], ...] = (),
    monotonic: Callable[[], float] = time.monotonic,
    **_: Any,
) -> None:
    """Call ``target`` here, telling ``accept_callback`` before and ``callback`` after.

    ``callback`` gets what it returned.  Exceptions are the caller's, except where ``target`` tries to end the whole
    process: that becomes an `ExceptionInfo` with `WorkerLostError` for ``callback``, as if its process had died.
    """
    if accept_callback is not None:
        accept_callback(pid or getpid(), monotonic())
    callers: tuple[type[BaseException], ...] = (*propagate, Exception, *WORKER_EXITS)
    try:
        answer = target(*args, **(kwargs or {}))
    except callers:
        raise
    except BaseException as error:
        lost = WorkerLostError(repr(error)).with_traceback(error.__traceback__)
        answer = ExceptionInfo((WorkerLostError, lost, error.__traceback__))
    if callback is not None:
        callback(answer)


class BasePool:
    """A place where callables run; the base of every pool, also of users' own.

    A subclass has at least `on_apply`, and ``on_start``/``on_stop`` for what it holds.  ``putlocks`` and
    ``forking_enable`` are Celery's and mean nothing to pools that queue their own work.
    """

    RUN = 1
    CLOSE = 2
    TERMINATE = 3

    Timer: Any = timer2.Timer

    #: Signal handlers may call it.
    signal_safe = True

    #: It runs greenlets.
    is_green = False

    uses_semaphore = False

    #: A task that waits for another one may hold the slot that this needs.
    task_join_will_block = True

    #: It takes bodies that are `memoryview`s: nothing is sent to another process.
    body_can_be_buffer = False

    _state: int | None = None
    _pool: Any = None

    def __init__(
        self,
        limit: int | None = None,
        putlocks: bool = True,
        forking_enable: bool = True,
        callbacks_propagate: tuple[type[BaseException], ...] = (),
        app: Any = None,
        **options: Any,
    ) -> None:
        self.limit = limit
        self.putlocks = putlocks
        self.forking_enable = forking_enable
        self.callbacks_propagate = callbacks_propagate
        self.app = app
        self.options = options

    # -- what a subclass fills in

    def on_start(self) -> None:
        """Get ready to take work."""

    def did_start_ok(self) -> bool:
        """Return whether the start worked out."""
        return True

    def flush(self) -> None:
        """Forget what was not started yet: the broker will deliver it again."""

    def hurry(self) -> None:
        """The worker is about to stop: what waits for a store that is away is not to wait for long."""

    def on_close(self) -> None:
        """Take no more work."""

    def on_stop(self) -> None:
        """Wait for what runs, and end."""

    def on_terminate(self) -> None:
        """End now."""

    def on_apply(self, *args: Any, **kwargs: Any) -> Any:
        """Run ``target(*args, **kwargs)``; takes what `apply_async` takes."""
        raise NotImplementedError(f"{type(self).__name__} has no on_apply, so it cannot run anything")

    def on_soft_timeout(self, job: Any) -> None:
        """Say that the soft limit of ``job`` is over."""

    def on_hard_timeout(self, job: Any) -> None:
        """Say that the hard limit of ``job`` is over."""

    def register_with_event_loop(self, loop: Any) -> None:
        """Use kombu's hub ``loop`` from now on."""

    def maintain_pool(self, *args: Any, **kwargs: Any) -> None:
        """Replace what died; for worker loops without a hub."""

    def terminate_job(self, pid: int, signal: Any = None) -> Any:
        """End what runs in ``pid``, by ``signal``."""
        raise NotImplementedError(f"{type(self).__name__} cannot end a running task")

    def restart(self) -> None:
        """Begin afresh, with the modules as they are now."""
        raise NotImplementedError(f"{type(self).__name__} cannot be restarted")

    # -- what the worker calls

    def start(self) -> None:
        self.on_start()
        self._state = self.RUN

    def close(self) -> None:
        self._state = self.CLOSE
        self.on_close()

    def stop(self) -> None:
        self.on_stop()
        self._state = self.TERMINATE

    def terminate(self) -> None:
        self._state = self.TERMINATE
        self.on_terminate()

    def apply_async(
        self,
        target: Callable[..., Any],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Run ``target`` in this pool; does not wait.

        Options are ``accept_callback(pid, started_at)``, ``callback(returned)``, ``error_callback(exception_info)``,
        ``timeout_callback(is_soft, seconds)``, ``soft_timeout``, ``timeout`` and ``correlation_id``.
        """
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("TaskPool: Apply %s (args:%r kwargs:%r)", target, args, kwargs)
        return self.on_apply(
            target,
            () if args is None else args,
            {} if kwargs is None else kwargs,
            waitforslot=self.putlocks,
            callbacks_propagate=self.callbacks_propagate,
            **options,
        )

    @property
    def active(self) -> bool:
        """Whether it takes work."""
        return self._state == self.RUN

    @property
    def num_processes(self) -> int:
        """How many jobs can run at once."""
        return self.limit or 0

    def look(self) -> None:
        """Learn now which jobs have begun or ended, where a pool learns that from time to time only."""

    @property
    def info(self) -> dict[str, Any]:
        """What ``inspect stats`` shows of it."""
        return self._get_info()

    def _get_info(self) -> dict[str, Any]:
        return {"implementation": f"{type(self).__module__}:{type(self).__name__}", "max-concurrency": self.limit}

    @property
    def traits(self) -> PoolTraits:
        """What it promises; read off Celery's class attributes where a pool does not say."""
        cls = type(self)
        return PoolTraits(
            hosts_beat=not self.is_green,
            interrupts_tasks=False,
            kills_tasks=cls.terminate_job is not BasePool.terminate_job,
            join_may_deadlock=self.task_join_will_block,
            isolates_tasks=False,
            resizes=hasattr(cls, "grow") and hasattr(cls, "shrink"),
            restarts=cls.restart is not BasePool.restart,
            is_green=self.is_green,
        )


class JobPool(BasePool):
    """A pool that takes jobs.

    ``runner`` makes a `celery.abc.Runner`; it is called where jobs run (in each child process, in each thread).  A
    pool without ``runner`` only takes callables.  ``initializer(*initargs)`` sets up a process that the pool starts,
    before ``runner`` is called there; pools that start none never call it.

    All callbacks of a job come on the thread that runs the event loop.
    """

    def __init__(
        self,
        limit: int | None = None,
        *args: Any,
        runner: Callable[[], Runner] | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
        timeout: float | None = None,
        soft_timeout: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(limit, *args, **options)
        self.make_runner = runner
        self.initializer = initializer
        self.initargs = tuple(initargs)
        #: Limits in seconds for jobs that have none of their own.
        self.hard_limit = timeout
        self.soft_limit = soft_timeout

    def start(self) -> None:
        super().start()
        traits = self.traits
        if self.hard_limit and not traits.kills_tasks:
            self._warn_of_limit("hard", self.hard_limit)
        if self.soft_limit and not traits.interrupts_tasks:
            self._warn_of_limit("soft", self.soft_limit)

    def _warn_of_limit(self, kind: str, seconds: float) -> None:
        logger.warning(
            "The pool has a %s time limit of %s s, which %s cannot enforce. Use the prefork pool for time limits.",
            kind,
            seconds,
            type(self).__module__,
        )

    def limits_of(self, job: Job) -> tuple[float | None, float | None]:
        """Return the soft and the hard time limit of ``job`` in seconds: its own, or else the pool's."""
        soft, hard = job.soft_limit, job.hard_limit
        return self.soft_limit if soft is None else soft, self.hard_limit if hard is None else hard

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Run ``job`` when there is room; never blocks.  A closed pool drops it."""

    @abstractmethod
    def withdraw(self, job: Job) -> bool:
        """Forget ``job`` if it has not begun; returns whether that was so.  Nothing is called on it any more."""

    @property
    @abstractmethod
    def in_flight(self) -> int:
        """How many jobs run now, or wait behind one that does; 0 says that `stop` would not have to wait."""


def tell(method: Callable[..., Any], *args: Any) -> None:
    """Call back a job; an error there is logged, for it must not stop the pool."""
    try:
        method(*args)
    except Exception:
        logger.error("Pool callback %r failed", method, exc_info=True)


def frame_of(job: Job) -> bytes | None:
    """Return what a runner gets for ``job``; ``None`` if there is nothing to run: it was told of, or was revoked."""
    try:
        return job.frame()
    except Exception as error:
        logger.error("%s[%s] cannot be run: %r", job.name, job.id, error, exc_info=True)
        tell(job.on_lost, error)
        return None


def exception_info(error: BaseException, internal: bool = False) -> ExceptionInfo:
    """Return ``error`` with its traceback, as callbacks, signals and answers carry it."""
    error = raised(error)
    info = ExceptionInfo((type(error), error, error.__traceback__), internal=internal)
    info.exception = error  # billiard wraps it, to carry the text of the traceback; ours carries it beside
    return info


def bare_exception(info: ExceptionInfo) -> BaseException:
    """Return the exception of ``info``, which billiard wraps for as long as it has not crossed a pipe."""
    error: BaseException = info.exception
    return error.exc if isinstance(error, ExceptionWithTraceback) else error


def raised(error: BaseException) -> Any:
    """Return ``error`` with a traceback, even if nobody has raised it: `ExceptionInfo` needs one."""
    if error.__traceback__ is None:
        try:
            raise error
        except type(error):
            pass
    return error
