"""The gevent pool; see `celery.concurrency.green` for what it promises."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import gevent
from gevent import GreenletExit, monkey
from gevent.pool import Pool

from celery.concurrency import base
from celery.concurrency.green import Flight, GreenPool, GreenTimer

__all__ = ("TaskPool",)


class Timer(GreenTimer):
    """A timer of gevent's greenlets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.GreenletExit = GreenletExit

    def spawn_after(self, seconds: float, function: Callable[[], Any]) -> Any:
        return _Cancellable(gevent.spawn_later(seconds, function))


class _Cancellable:
    """A greenlet that can be called off before it begins."""

    def __init__(self, greenlet: Any) -> None:
        self._greenlet = greenlet

    def cancel(self) -> None:
        if self._greenlet is not gevent.getcurrent():
            self._greenlet.kill(block=False)


class TaskPool(GreenPool):
    """Runs jobs in gevent's greenlets."""

    Timer = Timer
    name = "gevent"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.timeout: float | None = kwargs.get("timeout")
        super().__init__(*args, **kwargs)
        self.Pool = Pool
        self.getcurrent = gevent.getcurrent
        self.spawn_n: Callable[..., Any] = gevent.spawn

    def is_patched(self) -> bool:
        return all(monkey.is_module_patched(name) for name in ("socket", "threading", "time"))

    def spawn(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.spawn_n(function, *args)

    def spawn_after(self, seconds: float, function: Callable[..., Any], *args: Any) -> Any:
        return _Cancellable(gevent.spawn_later(seconds, function, *args))

    def call_between(self, function: Callable[[], Any]) -> None:
        gevent.get_hub().loop.run_callback(function)

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        timeout: float | None = None,
        timeout_callback: Callable[..., Any] | None = None,
        apply_target: Callable[..., Any] = base.apply_target,
        error_callback: Callable[..., Any] | None = None,
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
            timeout or self.timeout,
            timeout_callback,
            soft_timeout,
        )

    # Here so that they stand in the class, where programs look for them.
    grow, shrink, terminate_job = GreenPool.grow, GreenPool.shrink, GreenPool.terminate_job

    @property
    def num_processes(self) -> int:
        """How many jobs can run at once."""
        return self.limit
