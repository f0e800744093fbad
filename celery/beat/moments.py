"""Times and names as the schedule file and the ledgers have them: microseconds since 1970, and text."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any

from celery.utils.time import maybe_make_aware

__all__ = ("key_of", "microseconds", "moment_at")

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(moment: datetime) -> int:
    """Return a time as microseconds since 1970; one without a zone is in UTC."""
    return (maybe_make_aware(moment) - _EPOCH) // _MICROSECOND


def moment_at(since_1970: int, zone: tzinfo) -> datetime:
    """Return the time so many microseconds after the beginning of 1970, in ``zone``."""
    return (_EPOCH + since_1970 * _MICROSECOND).astimezone(zone)


def key_of(name: Any) -> str:
    """Return the name of an entry as text; users may have others as keys."""
    return name if isinstance(name, str) else repr(name)
