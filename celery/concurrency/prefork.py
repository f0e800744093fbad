"""The prefork pool: jobs run in child processes.  The parts are in `celery.concurrency.processes`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from billiard.common import TERM_SIGNAME
from billiard.pool import Pool as BlockingPool

from celery import platforms, signals
from celery._state import set_default_app
from celery.concurrency.base import JobPool, PoolTraits
from celery.concurrency.processes.calls import Call
from celery.concurrency.processes.inside import ChildSetup, trim_memory
from celery.concurrency.processes.supervisor import Supervisor

if TYPE_CHECKING:
    from celery.abc import Job

__all__ = ("TaskPool", "process_destructor", "process_initializer")

#: A spawned process imports everything anew: it has so many times as long to get ready.
SPAWN_FACTOR = 5

#: The node that this process is a child of; signals are sent in its name.
_hostname: str | None = None


def process_initializer(app: Any, hostname: str) -> None:
    """Make this child process one of ``app``'s: its title, its logging, its tasks.

    Upstream: ``worker_process_init`` is sent at the end, with the node name as sender.
    """
    global _hostname
    _hostname = hostname
    app.set_current()
    set_default_app(app)
    platforms.set_mp_process_title("celeryd", hostname=hostname)
    _set_up_logging(app, hostname)
    app.loader.init_worker()
    app.loader.init_worker_process()
    app.finalize()
    signals.worker_process_init.send(sender=hostname)


def _set_up_logging(app: Any, hostname: str) -> None:
    """Log as the parent does.  A forked child has its handlers already, only their file may be another; a spawned one
    finds its parent's choices in the environment."""
    if app.log.already_setup:
        app.log.move_to_own_file(hostname)
    if os.environ.get("CELERY_LOG_LEVEL") is None or app.log.already_setup:
        return
    app.log.setup(
        int(os.environ["CELERY_LOG_LEVEL"] or 0),
        os.environ.get("CELERY_LOG_FILE") or None,
        bool(os.environ.get("CELERY_LOG_REDIRECT")),
        os.environ.get("CELERY_LOG_REDIRECT_LEVEL") or "WARNING",
        hostname=hostname,
    )


def process_destructor(pid: int, exitcode: int) -> None:
    """Tell those who listen that this child process is about to end."""
    signals.worker_process_shutdown.send(sender=_hostname, pid=pid, exitcode=exitcode)


class TaskPool(JobPool):
    """Runs jobs in ``limit`` processes.

    Options beyond those of `JobPool`: ``maxtasksperchild``, ``max_memory_per_child`` (kilobytes),
    ``proc_alive_timeout`` (seconds until a process that does not get ready is replaced), ``start_method``
    (``fork`` or ``spawn``).  ``lost_worker_timeout`` is Celery's time to wait for the answer of a dead process; here
    it is read before the loss is told, so nothing is left to wait for.
    """

    #: Upstream: what Celery's pool is made of, with an event loop and without.
    Pool: Any = Supervisor
    BlockingPool: Any = BlockingPool

    uses_semaphore = True
    write_stats: Any = None

    _pool: Supervisor

    traits = PoolTraits(
        hosts_beat=True,
        interrupts_tasks=True,
        kills_tasks=True,
        join_may_deadlock=True,
        isolates_tasks=True,
        resizes=True,
        restarts=True,
    )

    def on_start(self) -> None:
        options = self.options
        setup = ChildSetup(
            make_runner=self.make_runner,
            initializer=self.initializer,
            initargs=self.initargs,
            finalizer=process_destructor,
            max_tasks=options.get("maxtasksperchild"),
            max_memory_kilobytes=options.get("max_memory_per_child"),
        )
        start_method = options.get("start_method") or "fork"
        patience = (options.get("proc_alive_timeout") or 4.0) * (SPAWN_FACTOR if start_method == "spawn" else 1)
        self._pool = self.Pool(
            self.limit or os.cpu_count() or 1,
            setup,
            start_method=start_method,
            hard_limit=self.hard_limit,
            soft_limit=self.soft_limit,
            alive_timeout=patience,
            gives_ahead=options.get("sched_strategy") != "fair",
            before_start=lambda supervisor: signals.worker_before_create_process.send(sender=supervisor),
        )
        self.limit = self._pool.limit
        self._thread = threading.get_ident()
        trim_memory()
        self._pool.start()
        self.submit = self._pool.submit  # type: ignore[method-assign]  # one call less for each job
        self.withdraw = self._pool.withdraw  # type: ignore[method-assign]

    def submit(self, job: Job) -> None:
        raise RuntimeError("The pool has not been started")

    def withdraw(self, job: Job) -> bool:
        return False

    def holds(self, job: Job) -> bool:
        """Return whether ``job`` waits here or runs."""
        return job in self._pool.backlog or self._pool.child_with(job) is not None

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        timeout_callback: Callable[..., Any] | None = None,
        error_callback: Callable[..., Any] | None = None,
        soft_timeout: float | None = None,
        timeout: float | None = None,
        correlation_id: str | None = None,
        **_: Any,
    ) -> Call:
        """Run a callable that can be pickled, as can its arguments and what it returns."""
        call = Call(
            target,
            args,
            kwargs or {},
            turn=self._pool.turn,
            end=self.terminate_job,
            callback=callback,
            accept_callback=accept_callback,
            timeout_callback=timeout_callback,
            error_callback=error_callback,
            hard_limit=timeout,
            soft_limit=soft_timeout,
            correlation_id=correlation_id,
        )
        self._pool.submit(call)
        return call

    def did_start_ok(self) -> bool:
        return self._pool.has_started()

    def register_with_event_loop(self, loop: Any) -> None:
        self._thread = threading.get_ident()
        self._pool.use(loop)

    def maintain_pool(self, *args: Any, **kwargs: Any) -> None:
        self._pool.turn(0)

    def flush(self) -> None:
        self._pool.drop_waiting()

    def hurry(self) -> None:
        self._pool.hurry()

    def on_close(self) -> None:
        self._pool.close()

    def on_stop(self) -> None:
        """Wait for the jobs that run; those not begun are dropped."""
        self._pool.stop()

    def on_terminate(self) -> None:
        """Kill the processes; the jobs that they ran are lost."""
        self._pool.terminate(_signal_number(TERM_SIGNAME))

    def terminate_job(self, pid: int | Job, signal: Any = None) -> bool:
        """End the job that runs in ``pid``, or a given job; returns whether there was anything to end.

        ``signal`` is a number or a name, TERM by default.  SIGUSR1 raises `SoftTimeLimitExceeded` in the task.
        """
        signum = _signal_number(signal or TERM_SIGNAME)
        if isinstance(pid, int):
            child, only = self._pool.children.get(pid), None
        else:
            child = self._pool.child_with(pid)
            only = child.flights[0][0] if child is not None and child.flights[0][1] is pid else 0
        return child is not None and self._pool.limits.end(child, signum, only)

    def look(self) -> None:
        """Look at the pages of all children."""
        self._pool.look()

    def grow(self, n: int = 1) -> None:
        """Add ``n`` processes."""
        self._on_loop(self._pool.grow, n)
        self.limit = (self.limit or 0) + n

    def shrink(self, n: int = 1) -> None:
        """Take ``n`` processes away, idle ones first; none is disturbed in what it runs.

        Raises:
            ValueError: no process would be left.
        """
        limit = self.limit or 0
        if n >= limit:
            raise ValueError(f"Cannot take {n} of {limit} processes away: a pool needs one")
        self._on_loop(self._pool.shrink, n)
        self.limit = limit - n

    def restart(self) -> None:
        """Replace all processes; each finishes what it runs."""
        self._on_loop(self._pool.restart)

    def _on_loop(self, method: Callable[..., Any], *args: Any) -> None:
        """Call ``method`` on the loop's thread: the autoscaler has one of its own."""
        if self._pool.hub is None or threading.get_ident() == self._thread:
            method(*args)
        else:
            self._pool.hub.call_soon(method, *args)

    @property
    def in_flight(self) -> int:
        return self._pool.in_flight

    @property
    def num_processes(self) -> int:
        return self._pool.limit

    def _get_info(self) -> dict[str, Any]:
        children = list(self._pool.children.values())
        limits = self._pool.limits
        return {
            **super()._get_info(),
            "processes": [child.pid for child in children],
            "max-tasks-per-child": self.options.get("maxtasksperchild") or "N/A",
            "put-guarded-by-semaphore": False,
            "timeouts": [limits.soft or 0, limits.hard or 0],
            "writes": _write_stats([child.sent for child in children], sum(not child.is_idle for child in children)),
        }


def _signal_number(signal: Any) -> int:
    """Return the number of a signal given as number or name; a plain one, for it is shown to users."""
    return int(platforms.signals.signum(signal))


def _write_stats(counts: list[int], active: int) -> dict[str, Any]:
    """Return how evenly jobs were given out to the present processes, as ``inspect stats`` shows it."""
    total = sum(counts)
    return {
        "total": total,
        "avg": f"{1 / len(counts) if total else 0:.2f}",
        "all": ", ".join(f"{count / total:.2f}" for count in counts) if total else "",
        "raw": ", ".join(map(str, counts)) if total else "",
        "strategy": "fair",
        "inqueues": {"total": len(counts), "active": active},
    }
