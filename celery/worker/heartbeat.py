"""Sign of life: the ``worker-online``, ``worker-heartbeat`` and ``worker-offline`` events."""

from __future__ import annotations

from typing import Any

from celery import signals
from celery.utils.sysinfo import load_average
from celery.worker import state

__all__ = ("Heart",)


class Heart:
    """Sends a heartbeat event every ``interval`` seconds (2 by default) for as long as events are enabled.

    ``timer`` is anything with ``call_repeatedly``; ``eventer`` an event dispatcher.
    """

    def __init__(self, timer: Any, eventer: Any, interval: float | None = None) -> None:
        self.timer = timer
        self.eventer = eventer
        self.interval = float(interval or 2.0)
        self.tref: Any = None
        # Events may be switched on and off while the worker runs.
        self.eventer.on_enabled.add(self.start)
        self.eventer.on_disabled.add(self.stop)

    def start(self) -> None:
        if self.eventer.enabled:
            self._send("worker-online")
            self.tref = self.timer.call_repeatedly(self.interval, self._send, ("worker-heartbeat",))

    def stop(self) -> None:
        if self.tref is not None:
            self.timer.cancel(self.tref)
            self.tref = None
        if self.eventer.enabled:
            self._send("worker-offline", retry=False)

    def _send(self, event: str, retry: bool = True) -> Any:
        if signals.heartbeat_sent.receivers:
            signals.heartbeat_sent.send(sender=self)
        return self.eventer.send(
            event,
            freq=self.interval,
            active=len(state.active_requests),
            processed=state.all_total_count[0],
            loadavg=load_average(),
            retry=retry,
            **state.SOFTWARE_INFO,
        )
