"""Sends entries when they are due; what keeps them between runs is up to subclasses."""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

from celery.beat.entries import ScheduleEntry, SchedulingError, evaluated
from celery.schedules import crontab
from celery.utils.functional import maybe_evaluate
from celery.utils.log import get_logger

__all__ = ("DEFAULT_MAX_INTERVAL", "Scheduler", "event_t")

logger = get_logger("celery.beat")

#: seconds between two looks at the schedule, at most
DEFAULT_MAX_INTERVAL = 300

#: entries that are due at the same second are sent in any order
PRIORITY = 5

CLEANUP = "celery.backend_cleanup"


class event_t(NamedTuple):
    """A place in the heap: an entry, and when to look at it (seconds since the epoch)."""

    time: float
    priority: int
    entry: Any


class Scheduler:
    """Sends what is due at each ``tick()``.

    ``schedule`` is a dict of entries by name.  The heap is made anew when an entry came, went or was changed.
    """

    Entry: type[ScheduleEntry] = ScheduleEntry
    logger: logging.Logger = logger
    max_interval: Any = DEFAULT_MAX_INTERVAL
    #: seconds between two calls of ``sync()``
    sync_every: float = 3 * 60
    #: or so many entries sent
    sync_every_tasks: int | None = None

    _last_sync: float | None = None
    _tasks_since_sync = 0

    def __init__(
        self,
        app: Any,
        schedule: Any = None,
        max_interval: float | None = None,
        Producer: Any = None,
        lazy: bool = False,
        sync_every_tasks: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.app = app
        self.data = maybe_evaluate({} if schedule is None else schedule)
        self.max_interval = max_interval or app.conf.beat_max_loop_interval or self.max_interval
        self.Producer = Producer or app.amqp.Producer
        self.sync_every_tasks = app.conf.beat_sync_every if sync_every_tasks is None else sync_every_tasks
        self._heap: list[event_t] | None = None
        self.old_schedulers: dict[str, Any] | None = None
        if not lazy:
            self.setup_schedule()

    # -- the entries

    def setup_schedule(self) -> None:
        """Fill the schedule, once, at the start."""
        self.install_default_entries(self.data)
        self.merge_inplace(self.app.conf.beat_schedule)

    def get_schedule(self) -> Any:
        return self.data

    def set_schedule(self, schedule: Any) -> None:
        self.data = schedule

    @property
    def schedule(self) -> Any:
        return self.get_schedule()

    @schedule.setter
    def schedule(self, schedule: Any) -> None:
        self.set_schedule(schedule)

    def add(self, **kwargs: Any) -> ScheduleEntry:
        """Put an entry with these fields into the schedule."""
        entry = self.Entry(app=self.app, **kwargs)
        self.schedule[entry.name] = entry
        return entry

    def install_default_entries(self, data: Any) -> None:
        """Have expired results deleted every night, where the store does not do it by itself."""
        conf = self.app.conf
        if conf.result_expires and CLEANUP not in data and not self.app.backend.supports_autoexpire:
            entry = {"task": CLEANUP, "schedule": crontab("0", "4", "*"), "options": {"expires": 12 * 3600}}
            self.update_from_dict({CLEANUP: entry})

    def update_from_dict(self, dict_: Any) -> None:
        self.schedule.update({name: self._maybe_entry(name, entry) for name, entry in dict_.items()})

    def merge_inplace(self, b: Any) -> None:
        """Make the schedule hold what ``b`` holds; entries that are in both keep their counts and last run."""
        schedule = self.schedule
        for name in set(schedule) - set(b) - {CLEANUP}:
            del schedule[name]
        for name, fields in b.items():
            entry = self._maybe_entry(name, fields)
            if name in schedule:
                schedule[name].update(entry)
            else:
                schedule[name] = entry

    def _maybe_entry(self, name: str, entry: Any) -> Any:
        if isinstance(entry, self.Entry):
            entry.app = self.app
            return entry
        return self.Entry(**{**entry, "name": name, "app": self.app})

    def schedules_equal(self, old_schedules: Any, new_schedules: Any) -> bool:
        """Whether the heap made of the one is good for the other."""
        if old_schedules is None or new_schedules is None:
            return old_schedules is new_schedules
        if old_schedules.keys() != new_schedules.keys():
            return False
        return all(
            old is new_schedules[name] or old.editable_fields_equal(new_schedules[name])
            for name, old in old_schedules.items()
        )

    # -- time

    def tick(
        self,
        event_t: Any = event_t,
        min: Callable[..., Any] = min,
        heappop: Callable[..., Any] = heapq.heappop,
        heappush: Callable[..., Any] = heapq.heappush,
    ) -> float:
        """Send the first entry if it is due; return the seconds until there is something to do again."""
        if self._heap is None or not self.schedules_equal(self.old_schedulers, self.schedule):
            self.old_schedulers = dict(self.schedule)
            self.populate_heap()
        heap = self._heap
        if not heap:
            return self.max_interval  # type: ignore[no-any-return]
        event = heap[0]
        is_due, seconds = self.is_due(event.entry)
        if not is_due:
            # it may be due later than was thought: others must not wait behind it
            heapq.heapreplace(heap, event_t(self._when(event.entry, seconds), event.priority, event.entry))
            if heap[0].entry is not event.entry:
                seconds = max(heap[0].time - event.entry.default_now().timestamp(), 0)
            return self._until(seconds, min)
        heappop(heap)
        following = self.reserve(event.entry)
        self.apply_entry(event.entry, producer=self.producer)
        heappush(heap, event_t(self._when(following, seconds), event.priority, following))
        return 0

    def _until(self, seconds: Any, min: Callable[..., Any]) -> float:
        adjusted = self.adjust(seconds)
        if not isinstance(adjusted, (int, float)):
            return self.max_interval  # type: ignore[no-any-return]
        return min(adjusted, self.max_interval)  # type: ignore[no-any-return]

    def populate_heap(self, event_t: Any = event_t, heapify: Callable[..., Any] = heapq.heapify) -> None:
        """Make the heap of the schedule."""
        heap = []
        for entry in self.schedule.values():
            is_due, seconds = entry.is_due()
            heap.append(event_t(self._when(entry, 0 if is_due else seconds), PRIORITY, entry))
        heapify(heap)
        self._heap = heap

    def _when(self, entry: Any, next_time_to_run: float | None) -> float:
        wait = self.max_interval if next_time_to_run is None else self.adjust(next_time_to_run)
        return entry.default_now().timestamp() + (wait or 0)  # type: ignore[no-any-return]

    def adjust(self, n: Any, drift: float = -0.010) -> Any:
        """Return ``n`` seconds a little early, for the time it takes to wake up."""
        return n + drift if n and n > 0 else n

    def is_due(self, entry: Any) -> Any:
        return entry.is_due()

    def reserve(self, entry: Any) -> Any:
        """Note that ``entry`` is sent now; return what takes its place."""
        following = self.schedule[entry.name] = next(entry)
        return following

    # -- sending

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send a due entry; one that cannot be sent is told in the log and holds up no other."""
        logger.info("Scheduler: Sending due task %s (%s)", entry.name, entry.task)
        try:
            result = self.apply_async(entry, producer=producer, advance=False)
        except Exception as error:
            logger.error("Message Error: %s", error, exc_info=True)
        else:
            if getattr(result, "id", None) is not None:
                logger.debug("%s sent. id->%s", entry.task, result.id)
            else:
                logger.debug("%s sent.", entry.task)

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any) -> Any:
        """Send an entry; with ``advance`` it is noted as sent.

        Raises:
            SchedulingError: it could not be sent.
        """
        if advance:
            entry = self.reserve(entry)
        task = self.app.tasks.get(entry.task)
        try:
            entry_args, entry_kwargs = evaluated(entry.args), evaluated(entry.kwargs)
            if task is not None:
                return task.apply_async(entry_args, entry_kwargs, producer=producer, **entry.options)
            return self.send_task(entry.task, entry_args, entry_kwargs, producer=producer, **entry.options)
        except Exception as error:
            raise SchedulingError(f"Couldn't apply scheduled task {entry.name}: {error}") from error
        finally:
            self._tasks_since_sync += 1
            if self.should_sync():
                self._do_sync()

    def send_task(self, *args: Any, **kwargs: Any) -> Any:
        return self.app.send_task(*args, **kwargs)

    @cached_property
    def connection(self) -> Any:
        return self.app.connection_for_write()

    @cached_property
    def producer(self) -> Any:
        return self.Producer(self._ensure_connected(), auto_declare=False)

    def _ensure_connected(self) -> Any:
        def told(error: Exception, interval: float) -> None:
            logger.error("beat: Connection error: %s. Trying again in %s seconds...", error, interval)

        return self.connection.ensure_connection(told, self.app.conf.broker_connection_max_retries)

    # -- keeping

    def should_sync(self) -> bool:
        return (
            self._last_sync is None
            or time.monotonic() - self._last_sync > self.sync_every
            or bool(self.sync_every_tasks and self._tasks_since_sync >= self.sync_every_tasks)
        )

    def _do_sync(self) -> None:
        try:
            logger.debug("beat: Synchronizing schedule...")
            self.sync()
        finally:
            self._last_sync = time.monotonic()
            self._tasks_since_sync = 0

    def sync(self) -> None:
        """Store the schedule; a scheduler that keeps nothing has nothing to do."""

    def close(self) -> None:
        self.sync()

    @property
    def info(self) -> str:
        """What the banner of beat tells of this scheduler."""
        return ""
