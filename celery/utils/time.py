"""Dates, time zones, intervals and rates."""

from __future__ import annotations

import calendar
import time as _time
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from datetime import timezone as _fixed
from functools import cached_property
from typing import Any

from celery.exceptions import InvalidRate

from .text import pluralize

__all__ = (
    "LocalTimezone",
    "timezone",
    "maybe_timedelta",
    "delta_resolution",
    "remaining",
    "rate",
    "weekday",
    "humanize_seconds",
    "maybe_iso8601",
    "is_naive",
    "add_seconds_to_datetime",
    "subtract_datetimes",
    "make_aware",
    "localize",
    "to_utc",
    "maybe_make_aware",
    "ffwd",
    "utcoffset",
    "adjust_timestamp",
    "get_exponential_backoff_interval",
)

DAYNAMES = "sun", "mon", "tue", "wed", "thu", "fri", "sat"
WEEKDAYS = {name: number for number, name in enumerate(DAYNAMES)}

MONTHNAMES = "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"
YEARMONTHS = {name: number for number, name in enumerate(MONTHNAMES, 1)}

#: what a rate is given by → times a second
RATE_MODIFIER_MAP: dict[str, Callable[[float], float]] = {
    "s": lambda n: n,
    "m": lambda n: n / 60.0,
    "h": lambda n: n / 60.0 / 60.0,
}

#: name, seconds, how a number of it is written
TIME_UNITS: tuple[tuple[str, float, Callable[[float], str]], ...] = tuple(
    (name, seconds, "{:.2f}".format)
    for name, seconds in (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0), ("second", 1.0))
)

ZERO = timedelta(0)


# -- zones


class LocalTimezone(tzinfo):
    """The zone of this machine, by the rules of the C library."""

    _offset_cache: dict[int, tzinfo] = {}

    def __init__(self) -> None:
        self.STDOFFSET = timedelta(seconds=-_time.timezone)
        self.DSTOFFSET = timedelta(seconds=-_time.altzone) if _time.daylight else self.STDOFFSET
        self.DSTDIFF = self.DSTOFFSET - self.STDOFFSET
        super().__init__()

    def __repr__(self) -> str:
        return f"<LocalTimezone: UTC{int(self.DSTOFFSET.total_seconds() / 3600):+03d}>"

    def utcoffset(self, dt: datetime | None) -> timedelta:
        return self.DSTOFFSET if self._isdst(dt) else self.STDOFFSET

    def dst(self, dt: datetime | None) -> timedelta:
        return self.DSTDIFF if self._isdst(dt) else ZERO

    def tzname(self, dt: datetime | None) -> str:
        return _time.tzname[self._isdst(dt)]

    def fromutc(self, dt: datetime) -> datetime:
        """Return the time here; its zone is a fixed offset."""
        minutes = int(self.utcoffset(dt).total_seconds() // 60)
        zone = self._offset_cache.setdefault(minutes, _fixed(timedelta(minutes=minutes)) if minutes else _fixed.utc)
        return zone.fromutc(dt.replace(tzinfo=zone))

    def _isdst(self, dt: datetime | None) -> bool:
        if dt is None:
            return False
        stamp = _time.mktime((dt.year, dt.month, dt.day, dt.hour, dt.minute, dt.second, dt.weekday(), 0, 0))
        return _time.localtime(stamp).tm_isdst > 0


class _Zone:
    """Zones by name, and conversions; ``timezone`` is the only one of it."""

    @cached_property
    def utc(self) -> tzinfo:
        return self.get_timezone("UTC")

    @cached_property
    def local(self) -> tzinfo:
        """The zone of this machine."""
        from tzlocal import get_localzone

        return get_localzone()

    def tz_or_local(self, tzinfo: Any = None) -> tzinfo:
        return self.get_timezone(tzinfo) if tzinfo else self.local

    def get_timezone(self, zone: Any) -> tzinfo:
        """Return the zone with this name; a zone is returned as it is.

        Raises:
            zoneinfo.ZoneInfoNotFoundError: there is none.
        """
        if not isinstance(zone, str):
            return zone  # type: ignore[no-any-return]
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

        try:
            return ZoneInfo(zone)
        except ZoneInfoNotFoundError:
            if zone.upper() == "UTC":  # a machine without any zone data
                return _fixed.utc
            raise

    def to_local(self, dt: datetime, local: Any = None, orig: Any = None) -> datetime:
        """Return ``dt`` in the zone ``local`` (default: this machine's); a naive one is in ``orig`` (default: UTC)."""
        if is_naive(dt):
            dt = make_aware(dt, orig or self.utc)
        return localize(dt, self.tz_or_local(local))

    def to_system(self, dt: datetime) -> datetime:
        """Return ``dt`` in the zone of this machine, as a fixed offset; a naive one is there already."""
        return dt.astimezone()

    def to_local_fallback(self, dt: datetime) -> datetime:
        """Return ``dt`` in the zone of this machine; a naive one is there already."""
        return make_aware(dt, self.local) if is_naive(dt) else localize(dt, self.local)


timezone = _Zone()


def is_naive(dt: datetime) -> bool:
    """Say whether ``dt`` has no zone."""
    return dt.tzinfo is None or dt.tzinfo.utcoffset(dt) is None


def make_aware(dt: datetime, tz: tzinfo) -> datetime:
    """Put ``dt`` in zone ``tz`` without changing the clock, but for a time that the clock leaps over."""
    aware = dt.replace(tzinfo=tz)
    if tz is _fixed.utc or tz is timezone.__dict__.get("utc"):
        return aware
    return aware.astimezone(_fixed.utc).astimezone(tz).replace(fold=aware.fold)


def localize(dt: datetime, tz: tzinfo) -> datetime:
    """Return the same moment in zone ``tz``; a naive ``dt`` is there already."""
    return make_aware(dt, tz) if is_naive(dt) else dt.astimezone(tz)


def to_utc(dt: datetime) -> datetime:
    """Return the same moment in UTC; a naive ``dt`` is there already."""
    return localize(dt, timezone.utc)


def maybe_make_aware(dt: datetime, tz: tzinfo | None = None, naive_as_utc: bool = True) -> datetime:
    """Return ``dt``, put in zone ``tz`` if it has none.

    A naive ``dt`` is taken for UTC, or with ``naive_as_utc=False`` for a time in ``tz``.
    """
    if not is_naive(dt):
        return dt
    if naive_as_utc:
        dt = to_utc(dt)
        return dt if tz is None else localize(dt, tz)
    return make_aware(dt, timezone.utc if tz is None else tz)


def utcoffset(time: Any = _time, localtime: Callable[..., Any] = _time.localtime) -> float:
    """Return how many hours this machine is behind UTC now; negative east of Greenwich."""
    seconds = time.altzone if localtime().tm_isdst > 0 else time.timezone
    return seconds / 3600.0  # type: ignore[no-any-return]


def adjust_timestamp(ts: float, offset: float, here: Callable[..., float] = utcoffset) -> float:
    """Return the timestamp that a machine ``offset`` hours behind UTC calls ``ts``, as we would call it."""
    return ts - (offset - here()) * 3600


# -- intervals


class ffwd:
    """Moves a datetime to the next time with these fields: ``datetime + ffwd(hour=3, minute=0)``.

    ``weeks`` are added first; ``weekday`` (Monday is 0) then moves on to that day.  A day that the month does
    not have becomes its last.
    """

    def __init__(
        self,
        year: int | None = None,
        month: int | None = None,
        weeks: int = 0,
        weekday: int | None = None,
        day: int | None = None,
        hour: int | None = None,
        minute: int | None = None,
        second: int | None = None,
        microsecond: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.year = year
        self.month = month
        self.weeks = weeks
        self.weekday = weekday
        self.day = day
        self.hour = hour
        self.minute = minute
        self.second = second
        self.microsecond = microsecond
        self.days = weeks * 7
        self._has_time = self.hour is not None or self.minute is not None

    def __repr__(self) -> str:
        shown = (f"{name}={value!r}" for name, value in sorted(self._fields().items()))
        return f"ffwd({', '.join(shown)})"

    def _fields(self) -> dict[str, Any]:
        names = ("year", "month", "day", "hour", "minute", "second", "microsecond", "weekday")
        fields = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.weeks:
            fields["weeks"] = self.weeks
        return fields

    def __radd__(self, other: Any) -> datetime:
        if not isinstance(other, datetime):
            return NotImplemented
        fields = {name: value for name, value in self._fields().items() if name not in ("weeks", "weekday")}
        if "year" in fields or "month" in fields or "day" in fields:
            year, month = fields.get("year", other.year), fields.get("month", other.month)
            fields["day"] = min(calendar.monthrange(year, month)[1], fields.get("day", other.day))
        moved = other.replace(**fields) + timedelta(days=self.days)
        if self.weekday is not None:
            moved += timedelta(days=(self.weekday - moved.weekday()) % 7)
        return moved


def maybe_timedelta(delta: Any) -> Any:
    """Return a number of seconds as a timedelta, and anything else as it is."""
    return timedelta(seconds=delta) if isinstance(delta, (int, float)) else delta


def delta_resolution(dt: datetime, delta: timedelta) -> datetime:
    """Cut ``dt`` to the day, hour or minute, whichever the largest unit in ``delta`` is."""
    seconds = max(delta.total_seconds(), 0)
    if seconds >= 86400:
        return datetime(dt.year, dt.month, dt.day, tzinfo=dt.tzinfo)
    if seconds >= 3600:
        return datetime(dt.year, dt.month, dt.day, dt.hour, tzinfo=dt.tzinfo)
    if seconds >= 60:
        return datetime(dt.year, dt.month, dt.day, dt.hour, dt.minute, tzinfo=dt.tzinfo)
    return dt


def remaining(start: datetime, ends_in: Any, now: datetime | None = None, relative: bool = False) -> timedelta:
    """Return the time from ``now`` until ``ends_in`` after ``start``; negative if it is over.

    A timedelta is real time: an hour is an hour, also when the clock is put forward meanwhile.  An ``ffwd`` goes by
    the clock of ``start``'s zone.  With ``relative`` the end is rounded by ``delta_resolution``.
    """
    now = now or datetime.now(timezone.utc)
    try:
        end = start + ends_in if isinstance(ends_in, ffwd) else _add(start, ends_in)
    except OverflowError:  # no datetime goes that far
        return ends_in - subtract_datetimes(now, start)  # type: ignore[no-any-return]
    if relative:
        end = delta_resolution(end, ends_in).replace(microsecond=0)
    if is_naive(now) != is_naive(end):
        # the one without a zone is read off this machine's clock; upstream takes it for that too
        end, now = end.astimezone(), now.astimezone()
    return subtract_datetimes(end, now)


def _add(dt: datetime, delta: timedelta) -> datetime:
    """Return the moment ``delta`` of real time after ``dt``, in its zone."""
    if is_naive(dt):
        return dt + delta
    return (dt.astimezone(_fixed.utc) + delta).astimezone(dt.tzinfo)


def add_seconds_to_datetime(dt: datetime, seconds: float) -> datetime:
    """Return the moment that many seconds after ``dt``, in its zone."""
    return _add(dt, timedelta(seconds=seconds))


def subtract_datetimes(end: datetime, start: datetime) -> timedelta:
    """Return the real time between two moments; a naive one among them is taken for UTC."""
    if is_naive(end) and is_naive(start):
        return end - start
    return _as_utc(end) - _as_utc(start)


def _as_utc(dt: datetime) -> datetime:
    return dt.replace(tzinfo=_fixed.utc) if is_naive(dt) else dt.astimezone(_fixed.utc)


def get_exponential_backoff_interval(factor: float, retries: int, maximum: float, full_jitter: bool = False) -> float:
    """Return the seconds to wait before retry number ``retries``: ``factor * 2 ** retries``, ``maximum`` at most.

    With ``full_jitter`` it is a random whole number up to that.
    """
    # 2 ** 64 seconds are more than enough, and a float holds them
    countdown: float = min(maximum, factor * (2 ** min(retries, 64)))
    if full_jitter:
        from random import randrange

        countdown = randrange(max(int(countdown), 0) + 1)
    return max(0, countdown)


# -- text


def rate(r: Any) -> float:
    """Return times a second for ``"10/s"``, ``"100/m"``, ``"3/h"`` or a number; nothing is zero.

    Raises:
        InvalidRate: the text is none of these.
    """
    if not r:
        return 0
    if not isinstance(r, str):
        return r  # type: ignore[no-any-return]
    ops, _, modifier = r.partition("/")
    try:
        times_a_second, number = RATE_MODIFIER_MAP[modifier or "s"], float(ops)
    except KeyError:
        raise InvalidRate(f"{r!r} has the unit {modifier!r}, which is none of s, m and h, as in 10/m") from None
    except ValueError:
        raise InvalidRate(f"{r!r} does not begin with a number, as 10/s, 10/m and 10/h do") from None
    return times_a_second(number) or 0


def weekday(name: str) -> int:
    """Return the number of a day by (the start of) its English name; Sunday is 0."""
    try:
        return WEEKDAYS[name[:3].lower()]
    except KeyError:
        raise KeyError(name) from None


def yearmonth(name: str) -> int:
    """Return the number of a month by (the start of) its English name; January is 1."""
    try:
        return YEARMONTHS[name[:3].lower()]
    except KeyError:
        raise KeyError(name) from None


def humanize_seconds(secs: float, prefix: str = "", sep: str = "", now: str = "now", microseconds: bool = False) -> str:
    """Return a duration in its largest unit: ``2.50 hours``; below a second, ``now`` unless ``microseconds``."""
    secs = float(f"{float(secs):.2f}")
    for unit, size, formatted in TIME_UNITS:
        if secs >= size:
            amount = secs / size
            return f"{prefix}{sep}{formatted(amount)} {pluralize(amount, unit)}"
    if microseconds and secs > 0.0:
        return f"{prefix}{sep}{secs:.2f} seconds"
    return now


def maybe_iso8601(dt: Any) -> datetime | None:
    """Read a date and time in ISO 8601; a datetime is returned as it is, nothing as ``None``.

    Raises:
        ValueError: the text is no date.
    """
    if not dt:
        return None
    if isinstance(dt, datetime):
        return dt
    try:
        return datetime.fromisoformat(dt)
    except ValueError:  # the standard library knows the common forms only
        from dateutil.parser import isoparse

        return isoparse(dt)
