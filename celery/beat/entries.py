"""One thing to send again and again: what, when, and when it was sent last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import total_ordering
from typing import Any

from celery.schedules import maybe_schedule

__all__ = ("BeatLazyFunc", "ScheduleEntry", "SchedulingError", "evaluated")


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

    name: str | None = None
    schedule: Any = None
    args: Any = None
    kwargs: Any = None
    options: Any = None
    last_run_at: datetime | None = None
    total_run_count: int = 0

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

    def next(self, last_run_at: datetime | None = None) -> Any:
        """Return this entry as it is after it was sent."""
        changed = {"last_run_at": last_run_at or self.default_now(), "total_run_count": self.total_run_count + 1}
        return type(self)(**{**dict(self), **changed})

    # subclasses override either name
    def _next_instance(self, last_run_at: datetime | None = None) -> Any:
        return self.next(last_run_at)

    def __next__(self) -> Any:
        return self.next()

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
        return iter(vars(self).items())

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


# Upstream: entries are stored by this path
for _class in (BeatLazyFunc, ScheduleEntry, SchedulingError):
    _class.__module__ = "celery.beat"
