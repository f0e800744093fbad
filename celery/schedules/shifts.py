"""Nights in which a clock is put forward or back."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from datetime import timezone as _fixed

__all__ = ("LONGEST_SHIFT", "change_between", "moment_of", "offset_at")

#: a change of the clock is looked for this far ahead; no zone changes it by more
LONGEST_SHIFT = timedelta(hours=3)


def offset_at(moment: datetime, tz: tzinfo) -> timedelta:
    """Return how far ``tz`` is ahead of UTC at an aware moment."""
    return moment.astimezone(tz).utcoffset() or timedelta(0)


def moment_of(clock: datetime, tz: tzinfo) -> datetime:
    """Return when the clock in ``tz`` first shows ``clock``; for a time that it leaps over, where it lands."""
    early, late = (clock.replace(tzinfo=tz, fold=fold).astimezone(_fixed.utc) for fold in (0, 1))
    due = early.astimezone(tz)
    if due.replace(tzinfo=None, fold=0) == clock:
        return due
    change = change_between(late, early, tz)  # in a gap, the later rule gives the earlier moment
    return due if change is None else change.astimezone(tz)


def change_between(start: datetime, end: datetime, tz: tzinfo) -> datetime | None:
    """Return the first second at which the clock in ``tz`` is no longer as at ``start``; both are in UTC."""
    before = offset_at(start, tz)
    if offset_at(end, tz) == before:
        return None
    low, high = int(start.timestamp()), int(end.timestamp())
    while high - low > 1:
        middle = (low + high) // 2
        if offset_at(datetime.fromtimestamp(middle, _fixed.utc), tz) == before:
            low = middle
        else:
            high = middle
    return datetime.fromtimestamp(high, _fixed.utc)
