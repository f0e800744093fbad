"""The worker controller: options in, boot steps up, and down again in good order.

A signal handler sets `state.should_stop` or `state.should_terminate`; the loop sees it, the exception it raises ends
`start`, and from there `celery.worker.shutdown` stops everything in the main thread, outside of any handler.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from billiard import cpu_count

from celery import bootsteps, signals
from celery import concurrency as pools
from celery.exceptions import ImproperlyConfigured, OperationalError, WorkerTerminate
from celery.platforms import EX_FAILURE, EX_UNAVAILABLE, LockFailed, create_pidlock
from celery.utils.imports import reload_from_cwd
from celery.utils.log import mlevel
from celery.utils.log import worker_logger as logger
from celery.utils.nodenames import default_nodename, worker_direct
from celery.utils.stopping import stopping
from celery.utils.sysinfo import cpu_budget, is_auto_concurrency
from celery.utils.text import str_to_list
from celery.worker import state
from celery.worker.impatience import Impatience
from celery.worker.shutdown import Shutdown

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

__all__ = ("WorkController",)

#: sysexits.h: something is wrong with the configuration.
EX_CONFIG = getattr(os, "EX_CONFIG", 78)

#: Concurrency where the number of cores cannot be found out.
FALLBACK_CONCURRENCY = 2

#: Option → the setting that says what it is by default.
DEFAULTS = {
    "concurrency": "worker_concurrency",
    "task_events": "worker_send_task_events",
    "pool_cls": "worker_pool",
    "consumer_cls": "worker_consumer",
    "timer_cls": "worker_timer",
    "timer_precision": "worker_timer_precision",
    "autoscaler_cls": "worker_autoscaler",
    "pool_putlocks": "worker_pool_putlocks",
    "pool_restarts": "worker_pool_restarts",
    "pool_start_method": "worker_pool_start_method",
    "statedb": "worker_state_db",
    "schedule_filename": "beat_schedule_filename",
    "scheduler": "beat_scheduler",
    "time_limit": "task_time_limit",
    "soft_time_limit": "task_soft_time_limit",
    "max_tasks_per_child": "worker_max_tasks_per_child",
    "max_memory_per_child": "worker_max_memory_per_child",
    "prefetch_multiplier": "worker_prefetch_multiplier",
    "disable_rate_limits": "worker_disable_rate_limits",
    "worker_lost_wait": "worker_lost_wait",
}


def _is_asked_to_stop() -> bool:
    return any(flag is not None and flag is not False for flag in (state.should_stop, state.should_terminate))


class WorkController:
    """A worker in this process.

    Every option of ``celery worker`` is a keyword argument; what is not given is taken from the configuration.  A
    subclass may override the ``on_*`` methods.
    """

    app: Any = None
    pidlock: Any = None
    blueprint: Any = None
    pool: Any = None
    consumer: Any = None
    #: Upstream: pools that counted their slots with it; ours count their own.
    semaphore: Any = None
    #: What `start` leaves for ``sys.exit``; ``None`` for a clean end.
    exitcode: int | None = None
    # parts that steps put here, and what `setup_defaults` does
    autoscale: Any
    hub: Any
    timer: Any
    autoscaler_cls: Any
    consumer_cls: Any
    disable_rate_limits: bool | None
    max_memory_per_child: int | None
    max_tasks_per_child: int | None
    pool_cls: Any
    pool_putlocks: bool | None
    pool_restarts: bool | None
    pool_start_method: str | None
    prefetch_multiplier: Any
    schedule_filename: str | None
    scheduler: Any
    soft_time_limit: float | None
    statedb: str | None
    task_events: Any
    time_limit: float | None
    timer_cls: Any
    timer_precision: float | None
    worker_lost_wait: float | None

    class Blueprint(bootsteps.Blueprint):
        """The parts, in the order in which they start."""

        name = "Worker"
        default_steps = {
            "celery.worker.components:Hub",
            "celery.worker.components:Pool",
            "celery.worker.components:Beat",
            "celery.worker.components:Timer",
            "celery.worker.components:StateDB",
            "celery.worker.components:Consumer",
            "celery.worker.autoscale:WorkerComponent",
        }

    def __init__(self, app: Any = None, hostname: str | None = None, **kwargs: Any) -> None:
        self.app = app or self.app
        self.hostname = default_nodename(hostname)
        self.startup_time = datetime.now(timezone.utc)
        self.impatience = Impatience(self._is_busy_itself)
        self._ending = Shutdown(self)
        self.app.loader.init_worker()
        self.on_before_init(**kwargs)
        self.setup_defaults(**kwargs)
        self.on_after_init(**kwargs)
        self.setup_instance(**self.prepare_args(**kwargs))

    # -- for subclasses --------------------------------------------------------------------------------------------

    def on_before_init(self, **kwargs: Any) -> None:
        """Called first, with the options as given."""

    def on_after_init(self, **kwargs: Any) -> None:
        """Called when the options are known and nothing is made of them yet."""

    def on_init_blueprint(self) -> None:
        """Called before the parts are made."""

    def on_start(self) -> None:
        """Called when the parts are about to start."""

    def on_consumer_ready(self, consumer: Any) -> None:
        """Called when the first connection consumes."""
        signals.worker_ready.send(sender=consumer)
        logger.info("%s ready.", self.hostname)

    def on_close(self) -> None:
        """Called when the shutdown begins."""
        self.app.loader.shutdown_worker()

    def on_stopped(self) -> None:
        """Called when the parts have stopped."""
        self.timer.stop()
        with self.impatience.watching():
            self.consumer.shutdown()
        if self.pidlock:
            self.pidlock.release()

    def prepare_args(self, **kwargs: Any) -> dict[str, Any]:
        """Return the arguments for `setup_instance`."""
        return kwargs

    # -- options ---------------------------------------------------------------------------------------------------

    def setup_defaults(
        self,
        concurrency: int | str | None = None,
        loglevel: int | str | None = "WARN",
        logfile: str | None = None,
        task_events: bool | None = None,
        pool: Any = None,
        consumer_cls: Any = None,
        timer_cls: Any = None,
        timer_precision: float | None = None,
        autoscaler_cls: Any = None,
        pool_putlocks: bool | None = None,
        pool_restarts: bool | None = None,
        optimization: str | None = None,
        O: str | None = None,  # noqa: E741  # Upstream: the option's short name
        statedb: str | None = None,
        time_limit: float | None = None,
        soft_time_limit: float | None = None,
        scheduler: Any = None,
        pool_cls: Any = None,
        state_db: str | None = None,
        task_time_limit: float | None = None,
        task_soft_time_limit: float | None = None,
        scheduler_cls: Any = None,
        schedule_filename: str | None = None,
        max_tasks_per_child: int | None = None,
        prefetch_multiplier: int | None = None,
        disable_rate_limits: bool | None = None,
        worker_lost_wait: float | None = None,
        max_memory_per_child: int | None = None,
        pool_start_method: str | None = None,
        **_kw: Any,
    ) -> None:
        """Put the options on this worker, each as given, under its other name, or from the configuration."""
        given = {
            "concurrency": concurrency,
            "task_events": task_events,
            "pool_cls": pool or pool_cls,
            "consumer_cls": consumer_cls,
            "timer_cls": timer_cls,
            "timer_precision": timer_precision,
            "autoscaler_cls": autoscaler_cls,
            "pool_putlocks": pool_putlocks,
            "pool_restarts": pool_restarts,
            "pool_start_method": pool_start_method,
            "statedb": statedb or state_db,
            "schedule_filename": schedule_filename,
            "scheduler": scheduler or scheduler_cls,
            "time_limit": time_limit if time_limit is not None else task_time_limit,
            "soft_time_limit": soft_time_limit if soft_time_limit is not None else task_soft_time_limit,
            "max_tasks_per_child": max_tasks_per_child,
            "max_memory_per_child": max_memory_per_child,
            "prefetch_multiplier": prefetch_multiplier,
            "disable_rate_limits": disable_rate_limits,
            "worker_lost_wait": worker_lost_wait,
        }
        for option, value in given.items():
            setattr(self, option, self.app.either(DEFAULTS[option], value))
        self.loglevel: Any = loglevel
        self.logfile = logfile
        self.optimization = optimization or O
        self.prefetch_multiplier = int(self.prefetch_multiplier)

    def setup_instance(
        self,
        queues: Any = None,
        ready_callback: Callable[[Any], Any] | None = None,
        pidfile: str | None = None,
        include: Any = None,
        use_eventloop: bool | None = None,
        exclude_queues: Any = None,
        disable_prefetch: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Make the parts."""
        self.pidfile = pidfile
        if disable_prefetch:
            self.app.conf.worker_disable_prefetch = True
        state.keeps_successful = bool(self.app.conf.worker_deduplicate_successful_tasks)
        self.setup_queues(queues, exclude_queues)
        self.setup_includes(str_to_list(include))
        self.pool_cls = pools.get_implementation(self.pool_cls)
        self.concurrency = self._number_of_slots()
        self.loglevel = mlevel(self.loglevel)
        self.ready_callback = ready_callback or self.on_consumer_ready
        self.use_eventloop = self.should_use_eventloop() if use_eventloop is None else use_eventloop
        self.options = kwargs
        signals.worker_init.send(sender=self)
        self.steps: list[Any] = []
        self._conninfo = self.app.connection_for_read()
        self.on_init_blueprint()
        self.blueprint = self.Blueprint(
            steps=self.app.steps["worker"],
            on_start=self.on_start,
            on_close=self.on_close,
            on_stopped=self.on_stopped,
        )
        self.blueprint.apply(self, **kwargs)

    def _number_of_slots(self) -> int:
        wanted = self.concurrency
        if is_auto_concurrency(wanted):
            isolates = getattr(getattr(self.pool_cls, "traits", None), "isolates_tasks", False)
            return int(cpu_budget(use_cgroup_quota=isolates).count)
        if wanted is None:
            try:
                return int(cpu_count())
            except NotImplementedError:
                return FALLBACK_CONCURRENCY
        try:
            number = int(wanted)
        except (TypeError, ValueError):
            number = 0
        if number < 1:
            raise ImproperlyConfigured(
                f"The concurrency must be a whole number of at least 1, or `auto`; it is {wanted!r} "
                "(--concurrency or `worker_concurrency`)."
            )
        return number

    def setup_queues(self, include: Any, exclude: Any = None) -> None:
        """Consume from the queues ``include`` (by default all that are configured) without ``exclude``; both are
        lists of names, or text with commas.
        """
        include, exclude = str_to_list(include), str_to_list(exclude)
        queues = self.app.amqp.queues
        try:
            queues.select(include)
        except KeyError as exc:
            raise ImproperlyConfigured(
                f"-Q {','.join(include)}: there is no queue {exc.args[0] if exc.args else exc} in `task_queues`, and "
                "`task_create_missing_queues` is off."
            ) from exc
        for name in exclude or ():
            if name not in queues.consume_from:
                raise ImproperlyConfigured(
                    f"-X {name}: this queue is not consumed. Consumed are: {', '.join(queues.consume_from) or 'none'}."
                )
        if exclude:
            queues.deselect(exclude)
        if self.app.conf.worker_direct:
            queues.select_add(worker_direct(self.hostname))

    def setup_includes(self, includes: Any) -> None:
        """Import the modules ``includes``, and note in the configuration which modules have tasks: for children."""
        previous = tuple(self.app.conf.include)
        if includes:
            previous += tuple(includes)
            for module in includes:
                self.app.loader.import_task_module(module)
        self.include = includes
        found = {task.__class__.__module__ for task in self.app.tasks.values()}
        self.app.conf.include = tuple(dict.fromkeys((*previous, *sorted(filter(None, found)))))

    def should_use_eventloop(self) -> bool:
        """Return whether the worker runs on the hub: where the pool works with it."""
        return hasattr(self.pool_cls, "submit") or (
            not self.pool_cls.is_green
            and bool(self.app.connection_for_read().is_evented)
            and "register_with_event_loop" in vars(self.pool_cls)
        )

    def register_with_event_loop(self, hub: Any) -> None:
        """Let the parts put what they have on ``hub``."""
        self.blueprint.send_all(self, "register_with_event_loop", args=(hub,), description="hub.register")

    # -- work --------------------------------------------------------------------------------------------------------

    def process_task(self, request: Any) -> None:
        """Hand ``request`` to the pool."""
        try:
            request.execute_using_pool(self.pool)
        except Exception as exc:
            self._on_refused(request, exc)

    def _on_refused(self, request: Any, exc: Exception) -> None:
        from celery.exceptions import TaskRevokedError

        if isinstance(exc, TaskRevokedError):
            return  # it has said so itself
        logger.critical("The pool refused %s: %r", request, exc, exc_info=True)
        if getattr(self.pool, "holds", lambda job: False)(request) and not self.pool.withdraw(request):
            return  # it had it already, and runs it
        state.task_ready(request)
        request.reject(requeue=True)

    _process_task = process_task

    # -- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Work until stopped; what to tell the shell is then in `exitcode`."""
        stopping.forget()
        stopping.sign = _is_asked_to_stop  # a task may run in the thread that would say so
        try:
            if self.pidfile:
                self.pidlock = create_pidlock(self.pidfile)
            self.blueprint.start(self)
        except WorkerTerminate as exc:
            self._note_exitcode(exc.code)
            self.terminate()
        except (ImproperlyConfigured, LockFailed) as exc:
            logger.critical("%s", exc)
            self.stop(exitcode=EX_CONFIG)
        except OperationalError as exc:
            logger.critical("%s", exc)
            logger.debug("The broker's error:", exc_info=True)
            self.stop(exitcode=EX_UNAVAILABLE)
        except Exception as exc:
            logger.critical("Unrecoverable error: %r", exc, exc_info=True)
            self.stop(exitcode=EX_FAILURE)
        except SystemExit as exc:
            self.stop(exitcode=exc.code if isinstance(exc.code, int) else EX_FAILURE if exc.code else None)
        except KeyboardInterrupt:
            self.stop(exitcode=EX_FAILURE)

    def stop(self, in_sighandler: bool = False, exitcode: int | None = None) -> None:
        """Warm shutdown: what runs is finished, what waits goes back to the broker."""
        self._note_exitcode(exitcode)
        if in_sighandler:
            self.signal_consumer_close()
            return
        if self.blueprint.state == bootsteps.RUN:
            self._shutdown(warm=True)
        self._say_stopped()

    def terminate(self, in_sighandler: bool = False) -> None:
        """Cold shutdown: what runs is ended."""
        if in_sighandler:
            state.should_terminate = self.exitcode or 0
            return
        if self.blueprint.state != bootsteps.TERMINATE:
            self._shutdown(warm=False)
        self._say_stopped()

    def _note_exitcode(self, exitcode: Any) -> None:
        if isinstance(exitcode, int) and not isinstance(exitcode, bool):
            self.exitcode = exitcode

    def _say_stopped(self) -> None:
        signals.worker_shutdown.send(sender=self)

    def signal_consumer_close(self) -> None:
        """Make the loop end, and the worker stop after it; safe to call in a signal handler or from another thread."""
        if state.should_stop is None:
            state.should_stop = self.exitcode or 0

    def _shutdown(self, warm: bool = True) -> None:
        if self.blueprint is not None:
            self._ending.run(warm)

    def _is_busy_itself(self) -> bool:
        """Return whether a task runs in the thread that talks to the broker."""
        traits = getattr(self.pool, "traits", None)
        return bool(state.active_requests) and (traits is None or traits.blocks_loop)

    def wait_for_soft_shutdown(self) -> None:
        """Give running tasks ``worker_soft_shutdown_timeout`` seconds before a cold shutdown ends them.

        What has not begun goes back at once.  `cut_soft_shutdown` ends the wait.
        """
        self._ending.wait_softly()

    def cut_soft_shutdown(self) -> None:
        """End the wait of a soft shutdown; safe to call in a signal handler."""
        self._ending.is_in_haste = True

    def reload(self, modules: Any = None, reload: bool = False, reloader: Callable[[Any], Any] | None = None) -> None:
        """Import ``modules`` (by default those of the tasks), anew with ``reload``, and restart the pool."""
        names = set(self.app.loader.task_modules if modules is None else modules or ())
        for name in names:
            if name not in sys.modules:
                logger.debug("importing module %s", name)
                self.app.loader.import_from_cwd(name)
            elif reload:
                logger.debug("reloading module %s", name)
                reload_from_cwd(sys.modules[name], reloader)
        if self.consumer:
            self.consumer.update_strategies()
            self.consumer.reset_rate_limits()
        try:
            self.pool.restart()
        except NotImplementedError:
            pass  # tasks run in this process, which has the modules anew

    # -- what it says of itself ------------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        uptime = datetime.now(timezone.utc) - self.startup_time
        return {
            "total": dict(self.state.total_count),
            "pid": os.getpid(),
            "clock": str(self.app.clock),
            "uptime": round(uptime.total_seconds()),
        }

    def rusage(self) -> dict[str, Any]:
        """Return what the process has used.

        Raises:
            NotImplementedError: the platform does not tell.
        """
        if resource is None:
            raise NotImplementedError("rusage is not supported by this platform")
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {name[3:]: getattr(usage, name) for name in dir(usage) if name.startswith("ru_")}

    def stats(self) -> dict[str, Any]:
        info = self.info()
        info.update(self.blueprint.info(self))
        info.update(self.consumer.blueprint.info(self.consumer))
        try:
            info["rusage"] = self.rusage()
        except NotImplementedError:
            info["rusage"] = "N/A"
        return info

    @property
    def state(self) -> Any:
        return state

    def __repr__(self) -> str:
        return f"<Worker: {self.hostname} ({self.blueprint.human_state() if self.blueprint else 'INIT'})>"

    def __str__(self) -> str:
        return self.hostname
