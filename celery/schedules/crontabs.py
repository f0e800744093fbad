"""By the clock: minutes, hours, days and months."""

from __future__ import annotations

import calendar
from datetime import datetime, timedelta, tzinfo
from datetime import timezone as _fixed
from typing import Any

from celery.schedules.base import BaseSchedule, schedstate
from celery.schedules.fields import numbers_in
from celery.schedules.shifts import LONGEST_SHIFT, change_between, moment_of, offset_at
from celery.utils.time import ffwd, localize, remaining

__all__ = ("crontab",)

#: 29 February on a given weekday comes back within 40 years
MAX_YEARS = 41

#: days by month, in a leap year
LONGEST_MONTHS = {month: calendar.monthrange(2000, month)[1] for month in range(1, 13)}


class crontab(BaseSchedule):
    """Due at the minutes that these fields name, by the clock of the app's time zone; all fields must agree.

    A field is a number, a crontab expression or an iterable of numbers; Sunday is day 0 of the week.

    When the clock is put forward, what is named in the hour left out runs once, at its end.  When it is put back, what
    is named in the hour that comes twice runs once, in the first; only a crontab for every hour runs in both.
    """

    #: the numbers that each field names
    minute: set[int]
    hour: set[int]
    day_of_week: set[int]
    day_of_month: set[int]
    month_of_year: set[int]
    #: the fields as they were given
    _orig_minute: Any
    _orig_hour: Any
    _orig_day_of_week: Any
    _orig_day_of_month: Any
    _orig_month_of_year: Any

    def __init__(
        self,
        minute: Any = "*",
        hour: Any = "*",
        day_of_week: Any = "*",
        day_of_month: Any = "*",
        month_of_year: Any = "*",
        **kwargs: Any,
    ) -> None:
        self._orig_minute = minute
        self._orig_hour = hour
        self._orig_day_of_week = day_of_week
        self._orig_day_of_month = day_of_month
        self._orig_month_of_year = month_of_year
        self._orig_kwargs = kwargs
        self.minute = numbers_in("minute", minute, 60)
        self.hour = numbers_in("hour", hour, 24)
        self.day_of_week = numbers_in("day_of_week", day_of_week, 7)
        self.day_of_month = numbers_in("day_of_month", day_of_month, 31, 1)
        self.month_of_year = numbers_in("month_of_year", month_of_year, 12, 1)
        if min(self.day_of_month) > max(LONGEST_MONTHS[month] for month in self.month_of_year):
            raise ValueError(
                f"Invalid crontab: day_of_month {day_of_month!r} never occurs in month_of_year {month_of_year!r}."
            )
        super().__init__(**kwargs)

    @classmethod
    def from_string(cls, crontab: str) -> Any:
        """Read the five fields of a crontab line: minute, hour, day of month, month, day of week."""
        fields = crontab.split()
        if len(fields) != 5:
            raise ValueError(
                f"{crontab!r} has {len(fields)} fields; a crontab has five: minute hour day-of-month month day-of-week"
            )
        minute, hour, day_of_month, month_of_year, day_of_week = fields
        return cls(minute, hour, day_of_week, day_of_month, month_of_year)

    def remaining_delta(
        self, last_run_at: datetime, tz: tzinfo | None = None, ffwd: Any = ffwd
    ) -> tuple[datetime, Any, datetime]:
        """Return ``(last run, what leads from it to the next, now)``, both in the schedule's zone."""
        tz = tz or self.tz
        start = localize(self.maybe_make_aware(last_run_at), tz)
        now = localize(self.maybe_make_aware(self.now()), tz)
        due = self._next_after(start, tz)
        if due.fold or start.fold:  # fields of the clock would not tell the two hours apart
            return start, due.astimezone(_fixed.utc) - start.astimezone(_fixed.utc), now
        fields = {"year": due.year, "month": due.month, "day": due.day, "hour": due.hour, "minute": due.minute}
        return start, ffwd(**fields, second=0, microsecond=0), now

    def remaining_estimate(self, last_run_at: datetime, ffwd: Any = ffwd) -> timedelta:
        return remaining(*self.remaining_delta(last_run_at, ffwd=ffwd))

    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        """Return whether to run now, and the seconds until the next look.

        A run missed by more than ``beat_cron_starting_deadline`` seconds is let go.
        """
        deadline = self.app.conf.beat_cron_starting_deadline
        if deadline is not None:
            earliest = self.maybe_make_aware(self.now()) - timedelta(seconds=deadline)
            last_run_at = max(self.maybe_make_aware(last_run_at), earliest)
        seconds = self.remaining_estimate(last_run_at).total_seconds()
        if seconds > 0:
            return schedstate(False, seconds)
        return schedstate(True, max(self.remaining_estimate(self.now()).total_seconds(), 0))

    # -- finding the next minute

    def _next_after(self, last: datetime, tz: tzinfo) -> datetime:
        """Return the first moment after ``last``, which is in zone ``tz``."""
        if len(self.hour) == 24:
            return self._next_of_every_hour(last, tz)
        clock = last.replace(tzinfo=None, fold=0)
        while True:
            clock = self._next_on_clock(clock)
            due = moment_of(clock, tz)
            if due.astimezone(_fixed.utc) > last.astimezone(
                _fixed.utc
            ):  # else the hour comes twice; it ran in the first
                return due

    def _next_of_every_hour(self, last: datetime, tz: tzinfo) -> datetime:
        """Go by real time where the clock changes, so that no run is left out for an hour."""
        clock = self._next_on_clock(last.replace(tzinfo=None, fold=0))
        start = last.astimezone(_fixed.utc)
        change = change_between(start, start + LONGEST_SHIFT, tz)
        if change is None:
            due = moment_of(clock, tz)
            is_past = due.astimezone(_fixed.utc) <= start  # the first of two hours, while we are in the second
            return due.replace(fold=1) if is_past else due
        due = (clock - offset_at(last, tz)).replace(tzinfo=_fixed.utc)  # by the clock as it is before the change
        if due < change:
            return due.astimezone(tz)
        restart = change.astimezone(tz)
        clock = self._next_on_clock(restart.replace(tzinfo=None, fold=0) - timedelta(microseconds=1))
        return clock.replace(tzinfo=tz, fold=restart.fold).astimezone(_fixed.utc).astimezone(tz)

    def _next_on_clock(self, clock: datetime) -> datetime:
        """Return the first minute after ``clock`` that all fields name, by a clock that nobody changes."""
        clock = clock.replace(second=0, microsecond=0) + timedelta(minutes=1)
        day = self._next_day(clock)
        if day.date() == clock.date():
            for hour in sorted(self.hour):
                if hour < clock.hour:
                    continue
                for minute in sorted(self.minute):
                    if hour > clock.hour or minute >= clock.minute:
                        return clock.replace(hour=hour, minute=minute)
            day = self._next_day(day + timedelta(days=1))
        return day.replace(hour=min(self.hour), minute=min(self.minute))

    def _next_day(self, day: datetime) -> datetime:
        """Return the first day from ``day`` on that the fields name."""
        first_day = day.day
        for months in range(day.month - 1, day.month + MAX_YEARS * 12):
            year, month = day.year + months // 12, months % 12 + 1
            if month in self.month_of_year and year <= 9999:
                weekday, length = calendar.monthrange(year, month)  # Monday is 0
                for number in sorted(self.day_of_month):
                    if first_day <= number <= length and (weekday + number) % 7 in self.day_of_week:
                        return datetime(year, month, number, day.hour, day.minute)
            first_day = 1
        raise ValueError(f"{self!r} does not come again before the calendar ends")

    # -- identity

    def __repr__(self) -> str:
        return (
            f"<crontab: {self._orig_minute} {self._orig_hour} {self._orig_day_of_month} {self._orig_month_of_year} "
            f"{self._orig_day_of_week} (m/h/dM/MY/d)>"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, crontab):
            return NotImplemented
        return self._fields() == other._fields() and bool(self.nowfun == other.nowfun)

    __hash__ = None  # type: ignore[assignment]

    def _fields(self) -> tuple[set[int], ...]:
        return self.minute, self.hour, self.day_of_week, self.day_of_month, self.month_of_year

    def __reduce__(self) -> tuple[Any, ...]:
        fields = (
            self._orig_minute,
            self._orig_hour,
            self._orig_day_of_week,
            self._orig_day_of_month,
            self._orig_month_of_year,
        )
        return type(self), fields, self._orig_kwargs

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._orig_kwargs = state
        super().__init__(**state)
