"""The parts of a worker, as boot steps: timer, hub, pool, beat, state file, consumer."""

from __future__ import annotations

import atexit
from functools import partial
from typing import Any

from kombu.asynchronous import Hub as KombuHub
from kombu.asynchronous import get_event_loop, set_event_loop
from kombu.asynchronous.semaphore import DummyLock
from kombu.asynchronous.timer import Timer as HubTimer

from celery import _state, bootsteps
from celery.exceptions import ImproperlyConfigured
from celery.utils.log import worker_logger as logger

__all__ = ("Timer", "Hub", "Pool", "Beat", "StateDB", "Consumer")

#: Upstream: pools are asked for their traits here, not for their names.
GREEN_POOLS = {"eventlet", "gevent"}

#: The longest sleep of the hub's timer, in seconds.
MAX_TIMER_INTERVAL = 10.0


class Timer(bootsteps.Step):
    """What calls functions later: the hub's own timer, or the pool's where there is no hub."""

    def create(self, w: Any) -> None:
        if w.use_eventloop:
            w.timer = HubTimer(max_interval=MAX_TIMER_INTERVAL)
            return
        w.timer = self.instantiate(
            w.timer_cls or w.pool_cls.Timer,
            max_interval=w.timer_precision,
            on_error=self.on_timer_error,
            on_tick=self.on_timer_tick,
        )

    def on_timer_error(self, exc: BaseException) -> None:
        logger.error("Timer error: %r", exc, exc_info=True)

    def on_timer_tick(self, delay: float) -> None:
        logger.debug("Timer wake-up! Next ETA %s secs.", delay)


class Hub(bootsteps.StartStopStep):
    """kombu's event loop."""

    requires = (Timer,)

    def __init__(self, w: Any, **kwargs: Any) -> None:
        w.hub = None
        super().__init__(w, **kwargs)

    def include_if(self, w: Any) -> bool:
        return bool(w.use_eventloop)

    def create(self, w: Any) -> Any:
        w.hub = get_event_loop()
        if w.hub is None:
            required = getattr(w._conninfo.transport, "requires_hub", None)
            w.hub = set_event_loop((required or KombuHub)(w.timer))
        else:
            w.timer = w.hub.timer
        # Everything that uses the pool's locks runs on one thread.
        w.process_lock = DummyLock()
        return self

    def start(self, w: Any) -> None:
        """Nothing to do: the consumer's loop turns it."""

    def stop(self, w: Any) -> None:
        with w.impatience.watching():  # what it still has to call may ask the broker
            w.hub.close()

    def terminate(self, w: Any) -> None:
        self.stop(w)


class Pool(bootsteps.StartStopStep):
    """The pool in which tasks run."""

    requires = (Hub,)

    def __init__(self, w: Any, autoscale: Any = None, **kwargs: Any) -> None:
        w.pool = None
        w.max_concurrency = None
        w.min_concurrency = w.concurrency
        self.optimization = w.optimization
        if isinstance(autoscale, str):
            highest, _, lowest = autoscale.partition(",")
            autoscale = (int(highest), int(lowest or 0))
        w.autoscale = autoscale
        self.wants_beat = bool(kwargs.get("beat"))
        if autoscale:
            w.max_concurrency, w.min_concurrency = sorted(autoscale, reverse=True)
            w.min_concurrency = max(w.min_concurrency, 1)
        super().__init__(w, **kwargs)

    def create(self, w: Any) -> Any:
        import celery.worker.strategy  # noqa: F401  # needed soon; what is there before a fork, processes share
        from celery.app.trace.child import Runner
        from celery.concurrency.prefork import process_initializer

        w.pool = self.instantiate(
            w.pool_cls,
            w.min_concurrency,
            runner=partial(Runner, w.app, w.hostname),
            initializer=process_initializer,
            initargs=(w.app, w.hostname),
            maxtasksperchild=w.max_tasks_per_child,
            max_memory_per_child=w.max_memory_per_child,
            timeout=w.time_limit,
            soft_timeout=w.soft_time_limit,
            putlocks=w.pool_putlocks,
            lost_worker_timeout=w.worker_lost_wait,
            start_method=w.pool_start_method,
            proc_alive_timeout=w.app.conf.worker_proc_alive_timeout,
            allow_restart=bool(w.pool_restarts),
            sched_strategy=self.optimization,
            app=w.app,
        )
        self._refuse_what_the_pool_cannot(w)
        traits = getattr(w.pool, "traits", None)
        _state.joins_may_deadlock = traits is None or traits.join_may_deadlock
        return w.pool

    def _refuse_what_the_pool_cannot(self, w: Any) -> None:
        if w.autoscale and not (hasattr(w.pool, "grow") and hasattr(w.pool, "shrink")):
            raise ImproperlyConfigured(
                f"--autoscale needs a pool that can grow and shrink, such as prefork; {type(w.pool).__module__} cannot."
            )
        traits = getattr(w.pool, "traits", None)
        if self.wants_beat and traits is not None and not traits.hosts_beat:
            raise ImproperlyConfigured(
                f"-B does not work with {type(w.pool).__module__}: run `celery beat` as a program of its own."
            )

    def close(self, w: Any) -> None:
        w.pool.close()

    def terminate(self, w: Any) -> None:
        w.pool.terminate()

    def info(self, w: Any) -> dict[str, Any]:
        return {"pool": w.pool.info if w.pool is not None else "N/A"}

    def register_with_event_loop(self, w: Any, hub: Any) -> None:
        w.pool.register_with_event_loop(hub)


class Beat(bootsteps.StartStopStep):
    """A beat inside this worker, for ``-B``."""

    label = "Beat"
    conditional = True

    def __init__(self, w: Any, beat: bool = False, **kwargs: Any) -> None:
        self.enabled = w.beat = beat
        w.beat = None
        super().__init__(w, beat=beat, **kwargs)

    def create(self, w: Any) -> Any:
        from celery.beat import EmbeddedService  # few workers need it

        beat = w.beat = EmbeddedService(w.app, schedule_filename=w.schedule_filename, scheduler_cls=w.scheduler)
        return beat


class StateDB(bootsteps.Step):
    """The file that keeps revoked ids over a restart."""

    def __init__(self, w: Any, **kwargs: Any) -> None:
        self.enabled = bool(w.statedb)
        w._persistence = None
        super().__init__(w, **kwargs)

    def create(self, w: Any) -> None:
        w._persistence = w.state.Persistent(w.state, w.statedb, w.app.clock)
        atexit.register(w._persistence.save)


class Consumer(bootsteps.StartStopStep):
    """The consumer: last to start, and it returns only at the end."""

    last = True

    def create(self, w: Any) -> Any:
        concurrency = w.max_concurrency or w.concurrency
        consumer = w.consumer = self.instantiate(
            w.consumer_cls,
            w.process_task,
            hostname=w.hostname,
            task_events=w.task_events,
            init_callback=w.ready_callback,
            initial_prefetch_count=max(concurrency, 1) * w.prefetch_multiplier,
            pool=w.pool,
            timer=w.timer,
            app=w.app,
            controller=w,
            hub=w.hub,
            worker_options=w.options,
            disable_rate_limits=w.disable_rate_limits,
            prefetch_multiplier=w.prefetch_multiplier,
        )
        return consumer

    def stop(self, w: Any) -> Any:
        with w.impatience.watching():
            return super().stop(w)

    def terminate(self, w: Any) -> Any:
        with w.impatience.watching():
            return super().terminate(w)
