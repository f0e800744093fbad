"""Grow the pool while tasks wait, shrink it when they do not."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from kombu.asynchronous.semaphore import DummyLock

from celery import bootsteps
from celery.utils.log import get_logger
from celery.utils.threads import bgThread
from celery.worker import state
from celery.worker.components import Pool

__all__ = ("Autoscaler", "WorkerComponent")

logger = get_logger(__name__)

#: Seconds without growth after which the pool may shrink.
AUTOSCALE_KEEPALIVE = float(os.environ.get("AUTOSCALE_KEEPALIVE", 30))


class WorkerComponent(bootsteps.StartStopStep):
    """Runs the autoscaler: on the hub, or in a thread where there is none."""

    label = "Autoscaler"
    conditional = True
    requires = (Pool,)

    def __init__(self, w: Any, **kwargs: Any) -> None:
        self.enabled = bool(w.autoscale)
        w.autoscaler = None
        super().__init__(w, **kwargs)

    def create(self, w: Any) -> Any:
        scaler = w.autoscaler = self.instantiate(
            w.autoscaler_cls,
            w.pool,
            w.max_concurrency,
            w.min_concurrency,
            worker=w,
            mutex=DummyLock() if w.use_eventloop else None,
        )
        return None if w.use_eventloop else scaler

    def start(self, w: Any) -> None:
        if not w.use_eventloop:
            super().start(w)
            w.consumer.on_task_message.add(w.autoscaler.maybe_scale)

    def register_with_event_loop(self, w: Any, hub: Any) -> None:
        w.consumer.on_task_message.add(w.autoscaler.maybe_scale)
        # Called once for each connection; the timer is one.
        if getattr(self, "_tref", None) is None:
            self._tref = hub.call_repeatedly(w.autoscaler.keepalive, w.autoscaler.maybe_scale)

    def info(self, w: Any) -> dict[str, Any]:
        return {"autoscaler": w.autoscaler.info()}


class Autoscaler(bgThread):
    """Keeps the pool between two sizes, by the number of requests that this worker holds."""

    def __init__(
        self,
        pool: Any,
        max_concurrency: int,
        min_concurrency: int = 0,
        worker: Any = None,
        keepalive: float = AUTOSCALE_KEEPALIVE,
        mutex: Any = None,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.mutex = mutex or threading.Lock()
        self.max_concurrency = max_concurrency
        self.min_concurrency = min_concurrency
        self.keepalive = keepalive
        self._last_scale_up: float | None = None
        self.worker = worker

    def body(self) -> None:
        with self.mutex:
            self.maybe_scale()
        time.sleep(1.0)

    def maybe_scale(self, req: Any = None) -> bool | None:
        """Change the pool's size by what waits now; true if it did."""
        cap = min(self.qty, self.max_concurrency)
        if cap > self.processes:
            self.scale_up(cap - self.processes)
            return True
        floor = max(self.qty, self.min_concurrency)
        if floor < self.processes:
            return self.scale_down(self.processes - floor)
        return None

    def on_task_received(self, req: Any) -> None:
        """Look at once: a task came in."""
        with self.mutex:
            self.maybe_scale(req)

    def update(self, max: int | None = None, min: int | None = None) -> tuple[int, int]:
        """Change the bounds, and the pool with them; returns ``(max, min)``."""
        with self.mutex:
            if max is not None:
                if max < self.processes:
                    self._shrink(self.processes - max)
                self.max_concurrency = max
            if min is not None:
                if min > self.processes:
                    self._grow(min - self.processes)
                self.min_concurrency = min
            return self.max_concurrency, self.min_concurrency

    def scale_up(self, n: int) -> None:
        self._last_scale_up = time.monotonic()
        self._grow(n)

    def scale_down(self, n: int) -> bool | None:
        """Shrink by ``n``, unless the pool has grown a short while ago."""
        if self._last_scale_up is not None and time.monotonic() - self._last_scale_up > self.keepalive:
            return self._shrink(n)
        return None

    def _grow(self, n: int) -> None:
        logger.info("Scaling up %s processes.", n)
        self.pool.grow(n)  # the credit is that of the largest size from the start

    def _shrink(self, n: int) -> bool:
        logger.info("Scaling down %s processes.", n)
        try:
            self.pool.shrink(n)
        except ValueError:
            logger.debug("Autoscaler won't scale down: all processes busy.")
            return False
        except Exception as exc:
            logger.error("Autoscaler: scale_down: %r", exc, exc_info=True)
            return False
        return True

    def info(self) -> dict[str, int]:
        return {
            "max": self.max_concurrency,
            "min": self.min_concurrency,
            "current": self.processes,
            "qty": self.qty,
        }

    @property
    def qty(self) -> int:
        """How many requests wait or run."""
        return len(state.reserved_requests)

    @property
    def processes(self) -> int:
        return int(self.pool.num_processes)
