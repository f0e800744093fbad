"""One thing to send again and again: what, when, and when it was sent last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from functools import total_ordering
from typing import Any

from celery.schedules import crontab, maybe_schedule, schedule
from celery.utils.time import maybe_make_aware

__all__ = ("BeatLazyFunc", "Entries", "ScheduleEntry", "SchedulingError", "believable", "evaluated", "missed_runs")

#: A clock put back by no more than this is taken for a change like that of a season.
_SHORT_STEP = timedelta(hours=3)


class SchedulingError(Exception):
    """An entry could not be sent."""


class BeatLazyFunc:
    """An argument of an entry that is computed each time the entry is sent."""

    def __init__(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._func = func
        self._arguments = args, kwargs

    def __call__(self) -> Any:
        return self.delay()

    def delay(self) -> Any:
        args, kwargs = self._arguments
        return self._func(*args, **kwargs)


def evaluated(arguments: Any) -> Any:
    """Return the arguments of an entry with lazy ones computed."""
    if not arguments:
        return {} if isinstance(arguments, Mapping) else []
    if isinstance(arguments, Mapping):
        return {name: value() if isinstance(value, BeatLazyFunc) else value for name, value in arguments.items()}
    return [value() if isinstance(value, BeatLazyFunc) else value for value in arguments]


@total_ordering
class ScheduleEntry:
    """An entry of the schedule.

    ``last_run_at`` is the time of creation until it was sent first.  Iterating gives its fields by name, so that
    ``Entry(**dict(entry, ...))`` makes a changed copy.
    """

    app: Any
    name: str | None = None
    task: str | None
    schedule: Any = None
    args: Any = None
    kwargs: Any = None
    options: Any = None
    last_run_at: datetime | None = None
    total_run_count: int = 0

    #: the time of the run that other beats were told of (`celery.beat.leader`)
    _claimed_run: datetime | None = None

    def __init__(
        self,
        name: str | None = None,
        task: str | None = None,
        last_run_at: datetime | None = None,
        total_run_count: int | None = None,
        schedule: Any = None,
        args: Any = (),
        kwargs: Any = None,
        options: Any = None,
        relative: bool = False,
        app: Any = None,
    ) -> None:
        self.app = app
        self.name = name
        self.task = task
        self.args = args
        self.kwargs = kwargs or {}
        self.options = options or {}
        self.schedule = maybe_schedule(schedule, relative, app=app)
        self.last_run_at = last_run_at or self.default_now()
        self.total_run_count = total_run_count or 0

    def default_now(self) -> datetime:
        return self.schedule.now() if self.schedule else self.app.now()  # type: ignore[no-any-return]

    _default_now = default_now  # Upstream: its older name

    def _next_instance(self, last_run_at: datetime | None = None) -> Any:
        """Return this entry as it is after it was sent.

        An interval goes on from the time it was due, so that being late adds up to nothing; of the runs that were
        missed, one stands for all.
        """
        changed = {
            "last_run_at": last_run_at or self._claimed_run or self._this_run(),
            "total_run_count": self.total_run_count + 1,
        }
        return type(self)(**{**dict(self), **changed})

    # Upstream: one function by three names; subclasses override it by any
    next = __next__ = _next_instance

    def _this_run(self) -> datetime:
        """Return the time that counts as that of the run which is due: for an interval, the last multiple of it."""
        now = self.default_now()
        every = getattr(self.schedule, "run_every", None)
        if type(self.schedule) is not schedule or self.schedule.relative or not every or self.last_run_at is None:
            return now
        last = maybe_make_aware(self.last_run_at)
        passed = (maybe_make_aware(now) - last) // every
        # subtracting and adding by UTC: an hour is an hour, also when the clock is put forward
        return (last.astimezone(timezone.utc) + passed * every).astimezone(now.tzinfo) if passed > 0 else now

    @property
    def seconds_to_wait(self) -> float | None:
        """Seconds until an interval is due; ``None`` for other schedules, which tell by ``is_due``."""
        if type(self.schedule) is not schedule or self.last_run_at is None:
            return None
        return self.schedule.remaining_estimate(self.last_run_at).total_seconds()

    def is_due(self) -> Any:
        """Return ``(send it now?, seconds until the next look)``."""
        return self.schedule.is_due(self.last_run_at)

    def update(self, other: Any) -> None:
        """Take over what the user may have changed in ``other``; what was counted stays."""
        self.task, self.schedule = other.task, other.schedule
        self.args, self.kwargs, self.options = other.args, other.kwargs, other.options

    def editable_fields_equal(self, other: Any) -> bool:
        return all(
            getattr(self, field) == getattr(other, field) for field in ("task", "args", "kwargs", "options", "schedule")
        )

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return ((name, value) for name, value in vars(self).items() if name != "_claimed_run")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (
            self.name,
            self.task,
            self.last_run_at,
            self.total_run_count,
            self.schedule,
            self.args,
            self.kwargs,
            self.options,
        )

    def __repr__(self) -> str:
        shown = [repr(value) for value in self.args or ()] + [f"{k}={v!r}" for k, v in self.kwargs.items()]
        return f"<{type(self).__name__}: {self.name} {self.task}({', '.join(shown)}) {self.schedule}>"

    # two entries due at the same time stand in the heap in any order
    def __lt__(self, other: object) -> bool:
        return id(self) < id(other) if isinstance(other, ScheduleEntry) else NotImplemented

    def __eq__(self, other: object) -> bool:
        return self.editable_fields_equal(other) if isinstance(other, ScheduleEntry) else NotImplemented

    __hash__ = object.__hash__


def missed_runs(entry: Any, following: Any) -> int:
    """Return how many runs of an interval fell due between ``entry`` and ``following``, which stands for them."""
    every = getattr(entry.schedule, "run_every", None)
    if type(entry).__next__ is not ScheduleEntry.__next__ or type(entry.schedule) is not schedule or not every:
        return 0
    if entry.schedule.relative or entry.last_run_at is None or following.last_run_at is None:
        return 0
    passed: int = (maybe_make_aware(following.last_run_at) - maybe_make_aware(entry.last_run_at)) // every
    return max(passed - 1, 0)


def believable(schedule_: Any, last_run_at: datetime, now: datetime) -> datetime:
    """Return when an entry ran last, for a clock that says ``now``: not in the future.

    An interval starts anew.  A crontab that ran within the next three hours does not run again until the clock has
    caught up, as in the night when the clock is put back; one for every hour goes by real time.
    """
    if maybe_make_aware(last_run_at) <= maybe_make_aware(now):
        return last_run_at
    if isinstance(schedule_, crontab) and len(schedule_.hour) < 24:
        is_short = maybe_make_aware(last_run_at) - maybe_make_aware(now) <= _SHORT_STEP
        return last_run_at if is_short else now
    return now


class Entries(dict[Any, Any]):
    """A schedule that counts its changes, so that nobody has to compare it."""

    version = 0

    def __setitem__(self, name: Any, entry: Any) -> None:
        self.version += 1
        super().__setitem__(name, entry)

    def __delitem__(self, name: Any) -> None:
        self.version += 1
        super().__delitem__(name)

    def __ior__(self, other: Any) -> Any:  # type: ignore[override,misc]
        self.update(other)
        return self

    def update(self, *args: Any, **kwargs: Any) -> None:
        self.version += 1
        super().update(*args, **kwargs)

    def pop(self, *args: Any) -> Any:
        self.version += 1
        return super().pop(*args)

    def popitem(self) -> Any:
        self.version += 1
        return super().popitem()

    def setdefault(self, name: Any, default: Any = None) -> Any:
        self.version += 1
        return super().setdefault(name, default)

    def clear(self) -> None:
        self.version += 1
        super().clear()

    def put_after_run(self, entry: Any) -> None:
        """Put the entry that follows one that was sent in its place; that is no change of the schedule."""
        super().__setitem__(entry.name, entry)


# Upstream: entries are stored by this path
for _class in (BeatLazyFunc, ScheduleEntry, SchedulingError):
    _class.__module__ = "celery.beat"
