"""Sign of life: the ``worker-online``, ``worker-heartbeat`` and ``worker-offline`` events."""

from __future__ import annotations

import time
from typing import Any

from celery import signals
from celery.utils.sysinfo import load_average
from celery.worker import state

__all__ = ("Heart",)

#: An event that took longer than this many seconds was held up by a broker that hangs; so long times ten, be silent.
SLOW_SECONDS, REST_FACTOR = 0.5, 10


class Heart:
    """Sends a heartbeat event every ``interval`` seconds (2 by default) for as long as events are enabled.

    ``timer`` is anything with ``call_repeatedly``; ``eventer`` an event dispatcher.
    """

    def __init__(self, timer: Any, eventer: Any, interval: float | None = None) -> None:
        self.timer = timer
        self.eventer = eventer
        self.interval = float(interval or 2.0)
        self.tref: Any = None
        self._silent_until = 0.0
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
            self._send("worker-offline")

    def _send(self, event: str) -> None:
        began = time.monotonic()
        if began < self._silent_until:
            return
        if signals.heartbeat_sent.receivers:
            signals.heartbeat_sent.send(sender=self)
        self.eventer.send(
            event,
            freq=self.interval,
            active=len(state.active_requests),
            processed=state.all_total_count[0],
            loadavg=load_average(),
            retry=False,  # the dispatcher keeps what cannot be sent
            **state.SOFTWARE_INFO,
        )
        took = time.monotonic() - began
        if took > SLOW_SECONDS:
            self._silent_until = time.monotonic() + took * REST_FACTOR
