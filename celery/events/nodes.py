"""A worker, as its events tell of it.  Its door is `celery.events.state`."""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from math import ceil
from typing import Any

from celery.utils.functional import memoize
from celery.utils.log import get_logger

__all__ = ("Worker", "heartbeat_expires")

logger = get_logger("celery.events.state")

#: A worker counts as alive for this many percent of its heartbeat interval after the last one.
HEARTBEAT_EXPIRE_WINDOW = 200

#: Seconds between sending and receiving a heartbeat from which the clocks, or the load, are worth a warning.
HEARTBEAT_DRIFT_MAX = 16


@memoize(maxsize=1000, keyfun=lambda hostname, *_: hostname)
def _warn_drift(hostname: str, drift: float, local_received: float, timestamp: float) -> None:
    """Warn once of each node whose events come late, or come from a clock that differs."""
    logger.warning(
        "Substantial drift from %s may mean clocks are out of sync.  Current drift is %s seconds.  [orig: %s recv: %s]",
        hostname,
        ceil(drift),
        datetime.fromtimestamp(local_received),
        datetime.fromtimestamp(timestamp),
    )


def heartbeat_expires(
    timestamp: Any,
    freq: Any = 60,
    expire_window: Any = HEARTBEAT_EXPIRE_WINDOW,
    Decimal: type = Decimal,
    float: Callable[[Any], Any] = float,
    isinstance: Callable[..., bool] = isinstance,
) -> float:
    """Return until when a worker is alive whose last heartbeat was at ``timestamp``; all in seconds."""
    # Snapshots that went through a database come back with decimals.
    seconds, every, percent = (
        float(value) if isinstance(value, Decimal) else value for value in (timestamp, freq, expire_window)
    )
    return seconds + every * (percent / 1e2)  # type: ignore[no-any-return]  # whatever number it was


class Worker:
    """A node, and the times of its last heartbeats."""

    hostname: str | None
    pid: int | None
    #: seconds between two heartbeats
    freq: float
    #: when it was heard of last, oldest first
    heartbeats: list[float]
    clock: int
    #: how many tasks run, and how many have run
    active: int | None
    processed: int | None
    loadavg: Any
    sw_ident: str | None
    sw_ver: str | None
    sw_sys: str | None

    heartbeat_max = 4
    expire_window = HEARTBEAT_EXPIRE_WINDOW

    _fields = (
        "hostname",
        "pid",
        "freq",
        "heartbeats",
        "clock",
        "active",
        "processed",
        "loadavg",
        "sw_ident",
        "sw_ver",
        "sw_sys",
    )

    def __init__(
        self,
        hostname: str | None = None,
        pid: int | None = None,
        freq: float = 60,
        heartbeats: list[float] | None = None,
        clock: int = 0,
        active: int | None = None,
        processed: int | None = None,
        loadavg: Any = None,
        sw_ident: str | None = None,
        sw_ver: str | None = None,
        sw_sys: str | None = None,
    ) -> None:
        self.hostname = hostname
        self.pid = pid
        self.freq = freq
        self.heartbeats = [] if heartbeats is None else heartbeats
        self.clock = clock or 0
        self.active = active
        self.processed = processed
        self.loadavg = loadavg
        self.sw_ident = sw_ident
        self.sw_ver = sw_ver
        self.sw_sys = sw_sys

    def event(
        self,
        type_: str | None,
        timestamp: float | None = None,
        local_received: float | None = None,
        fields: dict[str, Any] | None = None,
    ) -> None:
        """Take in an event of this node: its fields, and that the node was alive at ``local_received``."""
        for name, value in (fields or {}).items():
            if name in _NOT_FROM_EVENTS or (name in _NUMBERS and not isinstance(value, (int, float, Decimal))):
                continue
            setattr(self, name, value)
        if type_ == "offline":
            self.heartbeats[:] = []
        elif local_received and timestamp:
            drift = abs(local_received - timestamp)
            if drift > HEARTBEAT_DRIFT_MAX:
                _warn_drift(str(self.hostname), drift, local_received, timestamp)
            if self.heartbeats and local_received < self.heartbeats[-1]:
                bisect.insort(self.heartbeats, local_received)
            else:
                self.heartbeats.append(local_received)
            del self.heartbeats[: -self.heartbeat_max]

    def update(self, f: dict[str, Any], **kw: Any) -> None:
        """Set attributes from ``f`` and the keywords."""
        for name, value in {**f, **kw}.items():
            setattr(self, name, value)

    @property
    def status_string(self) -> str:
        return "ONLINE" if self.alive else "OFFLINE"

    @property
    def heartbeat_expires(self) -> float:
        return heartbeat_expires(self.heartbeats[-1], self.freq, self.expire_window)

    @property
    def alive(self) -> bool:
        return bool(self.heartbeats) and time.time() < self.heartbeat_expires

    @property
    def id(self) -> str:
        return f"{self.hostname}.{self.pid}"

    def __eq__(self, other: object) -> bool:
        return self.hostname == other.hostname if isinstance(other, Worker) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.hostname)

    def __reduce__(self) -> Any:
        return self.__class__, tuple(getattr(self, name) for name in self._fields)

    def __repr__(self) -> str:
        return f"<Worker: {self.hostname} ({self.status_string})>"


#: Fields of an event that say nothing of its node, and what no event may put in the place of our own.
_NOT_FROM_EVENTS = frozenset({"type", "timestamp", "local_received", "utcoffset", "heartbeats", *vars(Worker)})
#: Fields that are counted with.
_NUMBERS = frozenset({"freq", "clock"})

Worker.__module__ = "celery.events.state"  # pickles name the door
