"""When is it due next?  Intervals, crontabs and the sun.

A schedule answers from the time of the last run alone and remembers nothing: ``is_due(last_run_at)`` says whether to
run now, and after how many seconds to ask again.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, tzinfo
from datetime import timezone as _fixed
from functools import cached_property
from typing import Any, NamedTuple

from celery import _state
from celery.exceptions import ImproperlyConfigured
from celery.utils.time import (
    WEEKDAYS,
    YEARMONTHS,
    ffwd,
    humanize_seconds,
    localize,
    maybe_make_aware,
    maybe_timedelta,
    remaining,
    timezone,
)

__all__ = ("ParseException", "schedule", "crontab", "crontab_parser", "maybe_schedule", "solar")

#: a change of the clock is looked for this far ahead; no zone changes it by more
LONGEST_SHIFT = timedelta(hours=3)

#: 29 February on a given weekday comes back within 40 years
MAX_YEARS = 41

#: days by month, in a leap year
LONGEST_MONTHS = {month: calendar.monthrange(2000, month)[1] for month in range(1, 13)}


class schedstate(NamedTuple):
    """What a schedule answers: run now?, and the seconds until the next look."""

    is_due: bool
    next: float


class ParseException(Exception):
    """A crontab expression that is not one."""


class BaseSchedule:
    """What every schedule has: the time, and the zone that its clock is in."""

    def __init__(self, nowfun: Callable[[], datetime] | None = None, app: Any = None) -> None:
        self.nowfun = nowfun
        self._app = app

    def now(self) -> datetime:
        return (self.nowfun or self.app.now)()

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return the time until the next run; zero or less if it is due."""
        raise NotImplementedError(f"{type(self).__name__} must define remaining_estimate()")

    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        """Return whether to run now, and the seconds until the next look."""
        raise NotImplementedError(f"{type(self).__name__} must define is_due()")

    def maybe_make_aware(self, dt: datetime, naive_as_utc: bool = True) -> datetime:
        return maybe_make_aware(dt, self.tz, naive_as_utc=naive_as_utc)

    @property
    def app(self) -> Any:
        return self._app or _state.get_current_app()

    @app.setter
    def app(self, app: Any) -> None:
        self._app = app

    # both can be assigned, as subclasses with a zone of their own do
    @cached_property
    def tz(self) -> tzinfo:
        return self.app.timezone  # type: ignore[no-any-return]

    @cached_property
    def utc_enabled(self) -> bool:
        return self.app.conf.enable_utc  # type: ignore[no-any-return]

    def to_local(self, dt: datetime) -> datetime:
        return dt if self.utc_enabled else timezone.to_local_fallback(dt)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, BaseSchedule):
            return bool(other.nowfun == self.nowfun)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # Upstream: schedules are compared, never hashed


class schedule(BaseSchedule):
    """Due when ``run_every`` (a timedelta or seconds) has passed since the last run.

    With ``relative`` the moment is rounded down to the day, hour or minute, whichever the interval is made of.
    """

    relative: bool = False

    def __init__(
        self,
        run_every: float | timedelta | None = None,
        relative: bool = False,
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
    ) -> None:
        self.run_every = maybe_timedelta(run_every)
        self.relative = relative
        super().__init__(nowfun=nowfun, app=app)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        last_run_at, now = self.maybe_make_aware(last_run_at), self.maybe_make_aware(self.now())
        return remaining(last_run_at, self.run_every, now, self.relative)

    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        seconds = self.remaining_estimate(last_run_at).total_seconds()
        if seconds > 0:
            return schedstate(False, seconds)
        return schedstate(True, max(self.remaining_estimate(self.now()).total_seconds(), 0))

    @property
    def seconds(self) -> float:
        """The interval; never negative."""
        return max(self.run_every.total_seconds(), 0)  # type: ignore[no-any-return]

    @property
    def human_seconds(self) -> str:
        return humanize_seconds(self.seconds)

    def __repr__(self) -> str:
        return f"<freq: {self.human_seconds}>"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, schedule):
            return bool(self.run_every == other.run_every)
        return bool(self.run_every == other)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.run_every, self.relative, self.nowfun)


# -- crontab


class crontab_parser:
    """Turns one field of a crontab into the set of numbers it names, from ``min_`` up, ``max_`` of them.

    Known are ``*``, ``*/3``, ``5``, ``1-5``, ``1-5/2``, names of days and months, and lists of these with commas.  A
    range whose end comes before its start goes around: ``fri-mon``.
    """

    ParseException = ParseException

    def __init__(self, max_: int = 60, min_: int = 0) -> None:
        self.max_ = max_
        self.min_ = min_
        self.pats: tuple[tuple[re.Pattern[str], Callable[..., list[int]]], ...] = (
            (re.compile(r"(\w+)-(\w+)/(\w+)"), self._range_with_steps),
            (re.compile(r"(\w+)-(\w+)"), self._range),
            (re.compile(r"\*/(\w+)"), self._all_with_steps),
            (re.compile(r"\*"), self._all),
            (re.compile(r"(\w+)"), self._one),
        )

    def parse(self, spec: str) -> set[int]:
        """Return the numbers.

        Raises:
            ParseException: a part is empty, has no step after its slash, or is negative.
            ValueError: a part is out of range, or nothing that is known.
        """
        return {number for part in spec.split(",") for number in self._part(part.strip(), spec)}

    def _part(self, part: str, spec: str) -> list[int]:
        if not part:
            raise ParseException(f"empty part in {spec!r}")
        if part.startswith("-"):
            raise ParseException(f"negative numbers are not supported: {part!r}")
        if part.endswith("/"):
            raise ParseException(f"a step is missing after the slash of {part!r}")
        for pattern, numbers in self.pats:
            if match := pattern.fullmatch(part):
                return numbers(*match.groups())
        raise ValueError(f"{part!r} is no crontab expression: expected one of *, */3, 5, 1-5, 1-5/2, mon-fri")

    def _one(self, text: str) -> list[int]:
        return [self._number(text)]

    def _all(self) -> list[int]:
        return list(range(self.min_, self.min_ + self.max_))

    def _all_with_steps(self, step: str) -> list[int]:
        return self._all()[:: self._step(step)]

    def _range(self, first: str, last: str) -> list[int]:
        start, end = self._number(first), self._number(last)
        if start <= end:
            return list(range(start, end + 1))
        return list(range(start, self.min_ + self.max_)) + list(range(self.min_, end + 1))

    def _range_with_steps(self, first: str, last: str, step: str) -> list[int]:
        return self._range(first, last)[:: self._step(step)]

    def _step(self, text: str) -> int:
        if not text.isdecimal() or not int(text):
            raise ValueError(f"the step {text!r} is not a number above zero")
        return int(text)

    def _number(self, text: str) -> int:
        number = self._named(text) if not text.isdecimal() else int(text)
        last = self.min_ + self.max_ - 1
        if number > last:
            raise ValueError(f"Invalid end range: {number} > {last}.")
        if number < self.min_:
            raise ValueError(f"Invalid beginning range: {number} < {self.min_}.")
        return number

    def _named(self, text: str) -> int:
        start = text[:3].lower()
        try:
            return WEEKDAYS[start] if start in WEEKDAYS else YEARMONTHS[start]
        except KeyError:
            raise ValueError(f"{text!r} is neither a number nor the name of a day or month") from None


class crontab(BaseSchedule):
    """Due at the minutes that these fields name, by the clock of the app's time zone; all fields must agree.

    A field is a number, a crontab expression or an iterable of numbers; Sunday is day 0 of the week.

    When the clock is put forward, what is named in the hour left out runs once, at its end.  When it is put back, what
    is named in the hour that comes twice runs once, in the first; only a crontab for every hour runs in both.
    """

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
            due = _moment(clock, tz)
            if due.astimezone(_fixed.utc) > last.astimezone(
                _fixed.utc
            ):  # else the hour comes twice; it ran in the first
                return due

    def _next_of_every_hour(self, last: datetime, tz: tzinfo) -> datetime:
        """Go by real time where the clock changes, so that no run is left out for an hour."""
        clock = self._next_on_clock(last.replace(tzinfo=None, fold=0))
        start = last.astimezone(_fixed.utc)
        change = _change_between(start, start + LONGEST_SHIFT, tz)
        if change is None:
            due = _moment(clock, tz)
            is_past = due.astimezone(_fixed.utc) <= start  # the first of two hours, while we are in the second
            return due.replace(fold=1) if is_past else due
        due = (clock - _offset(last, tz)).replace(tzinfo=_fixed.utc)  # by the clock as it is before the change
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


def numbers_in(field: str, spec: Any, max_: int, min_: int = 0) -> set[int]:
    """Return the numbers that a user gave for a field of a crontab: a number, an expression or some numbers."""
    if isinstance(spec, str):
        return crontab_parser(max_, min_).parse(spec)
    if isinstance(spec, int):
        numbers = {spec}
    elif isinstance(spec, Iterable):
        numbers = set(spec)
    else:
        raise TypeError(f"{field} must be a number, a string or an iterable of numbers, not {type(spec)!r}")
    for number in numbers:
        if not isinstance(number, int):
            raise TypeError(f"{field} must be made of numbers; {number!r} is none")
        if not min_ <= number < min_ + max_:
            raise ValueError(f"Invalid crontab pattern: {field} is {min_} to {min_ + max_ - 1}, but {number} was given")
    if not numbers:
        raise ValueError(f"{field} names nothing, so this crontab would never come")
    return numbers


# -- changes of the clock


def _offset(moment: datetime, tz: tzinfo) -> timedelta:
    """Return how far ``tz`` is ahead of UTC at an aware moment."""
    return moment.astimezone(tz).utcoffset() or timedelta(0)


def _moment(clock: datetime, tz: tzinfo) -> datetime:
    """Return when the clock in ``tz`` first shows ``clock``; for a time that it leaps over, where it lands."""
    early, late = (clock.replace(tzinfo=tz, fold=fold).astimezone(_fixed.utc) for fold in (0, 1))
    due = early.astimezone(tz)
    if due.replace(tzinfo=None, fold=0) == clock:
        return due
    change = _change_between(late, early, tz)  # in a gap, the later rule gives the earlier moment
    return due if change is None else change.astimezone(tz)


def _change_between(start: datetime, end: datetime, tz: tzinfo) -> datetime | None:
    """Return the first second at which the clock in ``tz`` is no longer as at ``start``; both are in UTC."""
    before = _offset(start, tz)
    if _offset(end, tz) == before:
        return None
    low, high = int(start.timestamp()), int(end.timestamp())
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(datetime.fromtimestamp(middle, _fixed.utc), tz) == before:
            low = middle
        else:
            high = middle
    return datetime.fromtimestamp(high, _fixed.utc)


def maybe_schedule(s: Any, relative: bool = False, app: Any = None) -> Any:
    """Return a schedule for a number of seconds or a timedelta; a schedule gets ``app``, and nothing stays nothing."""
    if s is None:
        return None
    if isinstance(s, (int, float, timedelta)):
        return schedule(s, relative, app=app)
    try:
        s.app = app
    except AttributeError:
        raise AttributeError(f"{s!r} is no schedule: expected seconds, a timedelta, or a schedule object") from None
    return s


# -- the sun


class _Event(NamedTuple):
    method: str
    horizon: str
    use_center: bool


#: the horizons of twilight are those of the centre of the sun; at sunrise its upper edge is seen, with refraction
SOLAR_EVENTS = {
    "dawn_astronomical": _Event("next_rising", "-18", True),
    "dawn_civil": _Event("next_rising", "-6", True),
    "dawn_nautical": _Event("next_rising", "-12", True),
    "dusk_astronomical": _Event("next_setting", "-18", True),
    "dusk_civil": _Event("next_setting", "-6", True),
    "dusk_nautical": _Event("next_setting", "-12", True),
    "solar_noon": _Event("next_transit", "0", False),
    "sunrise": _Event("next_rising", "-0:34", False),
    "sunset": _Event("next_setting", "-0:34", False),
}


class solar(BaseSchedule):
    """Due at an event of the sun, such as ``sunset``, at a place given in degrees; north and east are positive.

    Where the sun does not set (or rise) for months, the next time it does is meant.  Needs the library ``ephem``.
    """

    max_search_days: int = 366

    def __init__(self, event: str, lat: float, lon: float, **kwargs: Any) -> None:
        try:
            import ephem
        except ImportError:
            raise ImproperlyConfigured("Solar schedules need the library ephem: pip install celery[solar]") from None
        if event not in SOLAR_EVENTS:
            raise ValueError(f'Argument event "{event}" is invalid, must be one of {", ".join(SOLAR_EVENTS)}.')
        if not -90 <= lat <= 90:
            raise ValueError(f"Argument latitude {lat} is invalid, must be between -90 and 90.")
        if not -180 <= lon <= 180:
            raise ValueError(f"Argument longitude {lon} is invalid, must be between -180 and 180.")
        super().__init__(**kwargs)
        self.ephem: Any = ephem
        self.event = event
        self.lat = lat
        self.lon = lon
        self.method, horizon, self.use_center = SOLAR_EVENTS[event]
        self.cal = ephem.Observer()
        self.cal.lat = str(lat)
        self.cal.lon = str(lon)
        self.cal.elev = 0
        self.cal.pressure = 0  # the horizon of sunrise holds the refraction already
        self.cal.horizon = horizon

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        last_run_at = self.maybe_make_aware(last_run_at).astimezone(_fixed.utc)
        return self._next_after(last_run_at) - self.maybe_make_aware(self.now())

    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        seconds = self.remaining_estimate(last_run_at).total_seconds()
        if seconds > 0:
            return schedstate(False, seconds)
        return schedstate(True, max(self.remaining_estimate(self.now()).total_seconds(), 0))

    def _next_after(self, start: datetime) -> datetime:
        options = {} if self.method == "next_transit" else {"use_center": self.use_center}
        for quarters in range(self.max_search_days * 4 + 1):  # near the pole, day breaks within a few hours of one day
            self.cal.date = self.ephem.Date(start.replace(tzinfo=None) + timedelta(hours=6 * quarters))
            try:
                event = getattr(self.cal, self.method)(self.ephem.Sun(), **options)
            except self.ephem.CircumpolarError:
                continue
            return event.datetime().replace(tzinfo=_fixed.utc)  # type: ignore[no-any-return]
        raise RuntimeError(
            f"there is no {self.event} at latitude {self.lat}, longitude {self.lon} in the {self.max_search_days} days "
            f"after {start.isoformat()}"
        )

    def __repr__(self) -> str:
        return f"<solar: {self.event} at latitude {self.lat}, longitude: {self.lon}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, solar):
            return NotImplemented
        return (self.event, self.lat, self.lon) == (other.event, other.lat, other.lon)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.event, self.lat, self.lon)
