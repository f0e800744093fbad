"""What the monitor for terminals shows, as text; `celery.events.cursesmon` puts it on the screen."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from celery import states
from celery.utils.text import abbr, abbrtask

__all__ = ("Columns", "Pace", "details", "row", "sparkline", "task_columns", "totals", "worker_row")

#: Heights of a bar, from nothing to full.
BARS = " ▁▂▃▄▅▆▇█"
ASCII_BARS = " ..::+*##"

#: State → how it is called in totals, in this order.
IN_TOTALS = {
    states.PENDING: "sent",
    states.RECEIVED: "received",
    states.STARTED: "started",
    states.SUCCESS: "succeeded",
    states.FAILURE: "failed",
    states.RETRY: "retry",
    states.REVOKED: "revoked",
    states.REJECTED: "rejected",
}


class Columns(NamedTuple):
    """Widths of the columns of tasks; 0 for one that is left out."""

    uuid: int
    task: int
    worker: int
    time: int
    state: int


def task_columns(width: int) -> Columns:
    """Return which columns a screen of that ``width`` has: what it is and how it is come last to go."""
    state = 9 if width >= 40 else 4
    clock = 8 if width >= 50 else 0
    left = width - state - clock - (1 if clock else 0) - 1
    uuid = 36 if left >= 100 else 8 if left >= 34 else 0
    left -= uuid + (1 if uuid else 0)
    worker = min(24, left // 3) if left >= 36 else 0
    return Columns(uuid, max(1, left - worker - (1 if worker else 0)), worker, clock, state)


def row(columns: Columns, uuid: Any, task: Any, worker: Any, timestamp: Any, state: Any) -> str:
    """Return one line about a task; what is too long is cut, names of tasks in their middle."""
    cells = (
        (str(uuid)[: columns.uuid], columns.uuid),
        (abbrtask(str(task), columns.task) if len(str(task)) > columns.task else str(task), columns.task),
        (abbr(str(worker), columns.worker) if columns.worker > 3 else "", columns.worker),
        (str(timestamp), columns.time),
        (str(state)[: columns.state], columns.state),
    )
    return " ".join(text[:width].ljust(width) for text, width in cells if width)


def clock_time(timestamp: Any) -> str:
    """Return the time of day, in this place."""
    return f"{datetime.fromtimestamp(timestamp):%H:%M:%S}" if timestamp else ""


def worker_row(worker: Any, width: int, now: float) -> str:
    """Return one line about a worker."""
    seen = f"{max(0, now - worker.heartbeats[-1]):.0f}s ago" if worker.heartbeats else "-"
    load = " ".join(f"{number:.2f}" for number in worker.loadavg or ())
    software = f"{worker.sw_ident or ''} {worker.sw_ver or ''}".strip()
    cells = (
        (abbr(str(worker.hostname), 30), 30, 0),
        (worker.status_string, 8, 0),
        (str(worker.active if worker.active is not None else "-"), 6, 46),
        (str(worker.processed if worker.processed is not None else "-"), 10, 58),
        (seen, 9, 68),
        (load, 15, 84),
        (software, 30, 116),
    )
    return " ".join(text[:size].ljust(size) for text, size, least_width in cells if width >= least_width)[:width]


WORKERS_HEAD = (
    ("WORKER", 30, 0), ("STATUS", 8, 0), ("ACTIVE", 6, 46), ("PROCESSED", 10, 58), ("SEEN", 9, 68), ("LOAD", 15, 84),
    ("SOFTWARE", 30, 116),
)  # fmt: skip


def workers_head(width: int) -> str:
    """Return the line above the workers."""
    return " ".join(text.ljust(size) for text, size, least_width in WORKERS_HEAD if width >= least_width)[:width]


def totals(tasks: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Yield ``(state, "12 failed")`` for the states that tasks are in."""
    counts = Counter(task.state for task in tasks)
    for state in [*IN_TOTALS, *(set(counts) - set(IN_TOTALS))]:
        if counts[state]:
            yield state, f"{counts[state]} {IN_TOTALS.get(state, state.lower())}"


def details(task: Any) -> Iterator[tuple[str, str]]:
    """Yield name and value of everything that is known of a task, line by line of the value."""
    first = ("name", "uuid", "state")
    info = task.info(extra=["state", "name", "uuid", "traceback", "client"])
    if task.worker is not None:
        info["worker"] = task.worker.hostname
    for name in ("sent", "received", "started", "succeeded", "failed", "retried", "revoked", "rejected"):
        if getattr(task, name, None):
            info[name] = f"{datetime.fromtimestamp(getattr(task, name)):%Y-%m-%d %H:%M:%S}"
    traceback = info.pop("traceback", None)
    for name in [*first, *sorted(set(info) - set(first))]:
        if name in info:
            yield name, str(info[name])
    if traceback:
        yield "traceback", str(traceback)


def lines_of(pairs: Iterable[tuple[str, str]], width: int) -> list[tuple[str, str]]:
    """Return labels and values as lines of at most ``width``; a value's further lines have no label."""
    found: list[tuple[str, str]] = []
    for label, value in pairs:
        for number, line in enumerate(_wrapped(value, max(8, width))):
            found.append((label if not number else "", line))
    return found


def _wrapped(text: str, width: int) -> Iterator[str]:
    for line in text.splitlines() or [""]:
        for start in range(0, max(1, len(line)), width):
            yield line[start : start + width]


def sparkline(values: Sequence[float], bars: str = BARS) -> str:
    """Return a line of bars, one for each value; the highest value is a full bar."""
    top = max(values, default=0)
    if not top:
        return bars[0] * len(values)
    last = len(bars) - 1
    return "".join(bars[min(last, round(value / top * last) or (1 if value else 0))] for value in values)


class Pace:
    """How many of something came in each of the last seconds."""

    def __init__(self, seconds: int = 60, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._counts: deque[int] = deque([0] * seconds, maxlen=seconds)
        self._second = int(clock())

    def count(self, number: int = 1) -> None:
        """Count what came now."""
        self._turn()
        self._counts[-1] += number

    def last(self, seconds: int) -> list[int]:
        """Return the numbers of the last whole seconds."""
        self._turn()
        return list(self._counts)[-1 - seconds : -1]

    def per_second(self, seconds: int = 5) -> float:
        """Return the mean over the last whole seconds."""
        counts = self.last(seconds)
        return sum(counts) / len(counts) if counts else 0.0

    def _turn(self) -> None:
        now = int(self.clock())
        self._counts.extend([0] * min(now - self._second, self._counts.maxlen or 0))
        self._second = now
