"""The eventlet pool; see `celery.concurrency.green` for what it promises."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import eventlet
from eventlet import hubs, patcher
from eventlet.greenpool import GreenPool as EventletPool
from eventlet.greenthread import getcurrent, spawn_after
from greenlet import GreenletExit

from celery.concurrency.green import Flight, GreenPool, GreenTimer

__all__ = ("TaskPool",)


class Timer(GreenTimer):
    """A timer of eventlet's greenlets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.GreenletExit = GreenletExit

    def spawn_after(self, seconds: float, function: Callable[[], Any]) -> Any:
        return spawn_after(seconds, function)


class TaskPool(GreenPool):
    """Runs jobs in eventlet's greenlets."""

    Timer = Timer
    name = "eventlet"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.Pool = EventletPool
        self.getcurrent = getcurrent
        # Not a pool's, which would make the loop wait for a slot held by a task that lets nothing end it.
        self.spawn_n: Callable[..., Any] = eventlet.spawn_n

    def is_patched(self) -> bool:
        return all(patcher.is_monkey_patched(name) for name in ("socket", "thread", "time"))

    def spawn(self, function: Callable[..., Any], *args: Any) -> Any:
        return eventlet.spawn(function, *args)

    def spawn_after(self, seconds: float, function: Callable[..., Any], *args: Any) -> Any:
        return spawn_after(seconds, function, *args)

    def call_between(self, function: Callable[[], Any]) -> None:
        hubs.get_hub().schedule_call_global(0, function)

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        error_callback: Callable[..., Any] | None = None,
        timeout: float | None = None,
        timeout_callback: Callable[..., Any] | None = None,
        soft_timeout: float | None = None,
        **_: Any,
    ) -> Flight:
        return self._apply(
            target,
            args,
            kwargs,
            callback,
            accept_callback,
            error_callback,
            timeout,
            timeout_callback,
            soft_timeout,
        )

    # Here so that they stand in the class, where programs look for them.
    grow, shrink, terminate_job = GreenPool.grow, GreenPool.shrink, GreenPool.terminate_job
