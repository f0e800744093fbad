"""Sends entries when they are due; what keeps them between runs is up to subclasses."""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from functools import cached_property
from typing import Any, NamedTuple

from kombu import Producer
from kombu.exceptions import OperationalError

from celery.beat.checks import check_fields, check_interval, check_schedule
from celery.beat.entries import Entries, ScheduleEntry, SchedulingError, believable, evaluated, missed_runs
from celery.beat.moments import key_of
from celery.exceptions import ImproperlyConfigured
from celery.schedules import BaseSchedule, crontab
from celery.utils import uuid
from celery.utils.failpoints import failpoint
from celery.utils.functional import maybe_evaluate
from celery.utils.log import get_logger
from celery.utils.time import humanize_seconds

__all__ = ("DEFAULT_MAX_INTERVAL", "Interrupted", "Scheduler", "event_t")

logger = get_logger("celery.beat")

#: seconds between two looks at the schedule, at most
DEFAULT_MAX_INTERVAL = 300

#: entries that are due at the same second are sent in any order
PRIORITY = 5

CLEANUP = "celery.backend_cleanup"

#: A wait shorter than this many seconds is waited out to its end; a longer one ends a little early.
_PRECISE_BELOW = 0.02

#: How often a run is sent anew that a broker refuses which answers.
_ATTEMPTS = 3


class event_t(NamedTuple):
    """A place in the heap: an entry, and when to look at it (seconds since the epoch)."""

    time: float
    priority: int
    entry: Any


class Interrupted(Exception):
    """Beat was asked to stop while it waited for the broker."""


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

    app: Any
    #: the entries by name, wherever they are kept
    data: Any
    Producer: Any
    _heap: list[event_t] | None
    #: the schedule that the heap was made of
    old_schedulers: dict[str, Any] | None

    #: who of several beats may send (`celery.beat.leader`); nobody else is asked where this is not set
    leadership: Any = None
    #: whether beat was asked to stop; the service says so
    is_stopping: Callable[[], bool] = staticmethod(lambda: False)

    #: id of the message of the run that is being sent
    _message_id: str | None = None
    _last_sync: float | None = None
    _tasks_since_sync = 0
    _seen_version: int | None = None

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
        self._heap = None
        self.old_schedulers = None
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
        self._heap = None

    def _maybe_entry(self, name: str, entry: Any) -> Any:
        try:
            if isinstance(entry, self.Entry):
                check_interval(entry)
                entry.app = self.app
                return entry
            check_fields(entry)
            made = self.Entry(**{**entry, "name": name, "app": self.app})
            check_schedule(made)
        except (TypeError, AttributeError, ValueError, ArithmeticError) as error:
            raise ImproperlyConfigured(f"`beat_schedule`, entry {name!r}: {error}") from error
        return made

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

    def _is_as_seen(self) -> bool:
        """Whether the schedule is still the one that the heap was made of."""
        schedule = self.schedule
        if isinstance(schedule, Entries) and type(self).schedules_equal is Scheduler.schedules_equal:
            return schedule.version == self._seen_version
        return self.schedules_equal(self.old_schedulers, schedule)

    def _note_as_seen(self) -> None:
        schedule = self.schedule
        if isinstance(schedule, Entries):
            self._seen_version = schedule.version
        self.old_schedulers = dict(schedule)

    # -- time

    def standby(self) -> float | None:
        """Return the seconds until it is worth asking again while another beat sends; ``None`` if it is for us.

        Called before each `tick` by the service.
        """
        return None if self.leadership is None else self.leadership.standby(self)

    def tick(
        self,
        event_t: Any = event_t,
        min: Callable[..., Any] = min,
        heappop: Callable[..., Any] = heapq.heappop,
        heappush: Callable[..., Any] = heapq.heappush,
    ) -> float:
        """Send the first entry if it is due; return the seconds until there is something to do again."""
        if self._heap is None or not self._is_as_seen():
            self._note_as_seen()
            self.populate_heap()
        heap = self._heap
        if not heap:
            return self.max_interval  # type: ignore[no-any-return]
        event = heap[0]
        entry = event.entry
        is_due, seconds = self._asked(entry)
        if not is_due:
            # it may be due later than was thought: others must not wait behind it
            heapq.heapreplace(heap, event_t(self._when(entry, seconds), event.priority, entry))
            if heap[0].entry is not entry:
                seconds = max(heap[0].time - entry.default_now().timestamp(), 0)
            return self._until(seconds, min)
        producer = self.producer  # waits for the broker, before anything is said to be sent
        if self.leadership is not None and not self.leadership.claim(entry):
            self._heap = None  # another beat has sent it; the entry says by now when
            return 0
        heappop(heap)
        following = self._reserved(entry)
        try:
            self.apply_entry(entry, producer=producer)
        except Interrupted:
            self._put_back(entry)
            raise
        heappush(heap, event_t(self._when(following, self._wait_of(following, seconds)), event.priority, following))
        return 0

    def _asked(self, entry: Any) -> Any:
        """Return what an entry says of itself; one that raises is asked again later, and holds up no other."""
        try:
            return self.is_due(entry)
        except Exception:  # it is the user's own schedule
            return self._is_due_failed(entry)

    def _is_due_failed(self, entry: Any) -> tuple[bool, float]:
        logger.error(
            "beat: Cannot calculate the next run of %r, trying again %s.",
            entry.name,
            humanize_seconds(self.max_interval, prefix="in "),
            exc_info=True,
        )
        return False, self.max_interval

    def _until(self, seconds: Any, min: Callable[..., Any]) -> float:
        adjusted = self.adjust(seconds)
        if not isinstance(adjusted, (int, float)):
            return self.max_interval  # type: ignore[no-any-return]
        if 0 < seconds < _PRECISE_BELOW:
            adjusted = seconds
        return min(adjusted, self.max_interval)  # type: ignore[no-any-return]

    def populate_heap(self, event_t: Any = event_t, heapify: Callable[..., Any] = heapq.heapify) -> None:
        """Make the heap of the schedule."""
        heap = []
        for entry in self.schedule.values():
            is_due, seconds = self._asked(entry)
            heap.append(event_t(self._when(entry, 0 if is_due else seconds), PRIORITY, entry))
        heapify(heap)
        self._heap = heap

    def _when(self, entry: Any, next_time_to_run: float | None) -> float:
        wait = self.max_interval if next_time_to_run is None else self.adjust(next_time_to_run)
        return entry.default_now().timestamp() + (wait or 0)  # type: ignore[no-any-return]

    def _wait_of(self, entry: Any, seconds: Any) -> Any:
        """Return the seconds until ``entry``, just sent, is due again; ``seconds`` is what its schedule said."""
        exact = getattr(entry, "seconds_to_wait", None)
        return seconds if exact is None else max(exact, 0)

    def adjust(self, n: Any, drift: float = -0.010) -> Any:
        """Return ``n`` seconds a little early, for the time it takes to wake up."""
        return n + drift if n and n > 0 else n

    def is_due(self, entry: Any) -> Any:
        return entry.is_due()

    def reserve(self, entry: Any) -> Any:
        """Note that ``entry`` is sent now; return what takes its place."""
        following = next(entry)
        schedule = self.schedule
        if isinstance(schedule, Entries) and entry.name in schedule:
            schedule.put_after_run(following)
        else:
            schedule[entry.name] = following
        return following

    def _reserved(self, entry: Any) -> Any:
        following = self.reserve(entry)
        missed = missed_runs(entry, following)
        if missed:
            logger.warning(
                "beat: Missed %d run(s) of %r; the one that is sent now stands for them.", missed, entry.name
            )
        if self.old_schedulers is not None and entry.name in self.old_schedulers:
            self.old_schedulers[entry.name] = following
        return following

    def _put_back(self, entry: Any) -> None:
        """Undo `reserve`: the run is due still, for whoever beats next."""
        self.schedule[entry.name] = entry
        if self.leadership is not None:
            self.leadership.rewrite(self)

    def clock_was_set(self, seconds: float) -> None:
        """Go on after the clock on the wall was moved by that many seconds.

        Intervals are times that pass: theirs goes on as if nothing had happened.  Crontabs go by the clock: what it
        leapt over runs once, and what it comes to for the second time follows the rule of `believable`.
        """
        for entry in self.schedule.values():
            schedule = getattr(entry, "schedule", None)
            if not isinstance(schedule, BaseSchedule) or schedule.nowfun is not None or entry.last_run_at is None:
                continue
            if getattr(schedule, "run_every", None) is not None and not getattr(schedule, "relative", False):
                entry.last_run_at += timedelta(seconds=seconds)
            else:
                entry.last_run_at = believable(schedule, entry.last_run_at, entry.default_now())
        self._heap = None
        if self.leadership is not None:
            self.leadership.rewrite(self)

    def _adopt(self, runs: Any, overrule: bool = False) -> None:
        """Take over what is known of earlier runs: a mapping of names to ``(last run, count)``.

        An entry that has run more often than is known there keeps what it has, unless ``overrule`` is set.
        """
        for name, entry in self.schedule.items():
            known = runs.get(key_of(name))
            if known is not None and (overrule or known[1] >= entry.total_run_count):
                entry.last_run_at = believable(entry.schedule, known[0], entry.default_now())
                entry.total_run_count = known[1]
        self._heap = None

    # -- sending

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send a due entry; one that cannot be sent is told in the log and holds up no other.

        While the broker is away this waits, and sends when it is back.
        """
        logger.info("Scheduler: Sending due task %s (%s)", entry.name, entry.task)
        failpoint("beat.before_send")
        try:
            result = self._sent(entry, producer)
        except Interrupted:
            raise
        except Exception as error:
            logger.error("Message Error: %s", error, exc_info=True)
        else:
            if getattr(result, "id", None) is not None:
                logger.debug("%s sent. id->%s", entry.task, result.id)
            else:
                logger.debug("%s sent.", entry.task)
        failpoint("beat.after_send")

    def _sent(self, entry: Any, producer: Any) -> Any:
        """Send ``entry``; while the broker is away wait and offer the same message again, with the same id."""
        self._message_id = uuid()
        attempts = 0
        try:
            while True:
                attempts += 1
                try:
                    return self.apply_async(entry, producer=producer, advance=False)
                except SchedulingError as error:
                    if attempts == _ATTEMPTS or not isinstance(error.__cause__, OperationalError):
                        raise
                    logger.error("beat: %s", error)
                    with self.connection.clone() as connection:  # the one we have believes that it is connected
                        self._ensure_connected(connection)
        finally:
            self._message_id = None

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any) -> Any:
        """Send an entry; with ``advance`` it is noted as sent.

        Raises:
            SchedulingError: it could not be sent.
        """
        if advance:
            entry = self.reserve(entry)
        if producer is not None and producer is self.__dict__.get("producer") and type(producer) is Producer:
            producer = None  # nobody asked for another way than the app's own, which is quicker
        task = self.app.tasks.get(entry.task)
        try:
            entry_args, entry_kwargs = evaluated(entry.args), evaluated(entry.kwargs)
            options = {"task_id": self._message_id, **entry.options} if self._message_id else entry.options
            if task is not None:
                return task.apply_async(entry_args, entry_kwargs, producer=producer, **options)
            return self.send_task(entry.task, entry_args, entry_kwargs, producer=producer, **options)
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

    def _ensure_connected(self, connection: Any = None) -> Any:
        """Wait until the broker is there; raises `Interrupted` if beat is to stop meanwhile."""

        def told(error: Exception, interval: float) -> None:
            logger.error("beat: Connection error: %s. Trying again in %s seconds...", error, interval)

        def stop_if_asked() -> None:
            if self.is_stopping():
                raise Interrupted

        return (connection or self.connection).ensure_connection(
            told, self.app.conf.broker_connection_max_retries, callback=stop_if_asked
        )

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


# Upstream: as custom schedulers know them
for _class in (Scheduler, event_t):
    _class.__module__ = "celery.beat"
