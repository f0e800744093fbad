"""Dates and times as text, the way upstream's own parser read them; ``time.maybe_iso8601`` reads more."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from celery.utils.deprecated import warn

__all__ = ("parse_iso8601",)

_ISO8601 = re.compile(
    r"(?P<year>\d{4})(?:-(?P<month>\d{1,2})(?:-(?P<day>\d{1,2})"
    r"(?:T(?P<hour>\d{2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:\.(?P<fraction>\d+))?)?"
    r"(?P<zone>Z|[-+]\d{2}:?\d{2})?)?)?)?"
)


def parse_iso8601(datestring: str) -> datetime:
    """Read ``2026-11-20T10:00:00.5Z`` and the like; without a zone the answer is naive."""
    warn("parse_iso8601", "v5.3", "v6", "datetime.datetime.fromisoformat or dateutil.parser.isoparse", stacklevel=3)
    match = _ISO8601.match(datestring)
    if match is None:
        raise ValueError(f"unable to parse date string {datestring!r}")
    found = match.groupdict()
    numbers = [int(found[name] or default) for name, default in _FIELDS]
    microsecond = int((found["fraction"] or "0")[:6].ljust(6, "0"))
    return datetime(*numbers, microsecond, tzinfo=_zone(found["zone"]))  # type: ignore[arg-type, misc]


_FIELDS = (("year", 1), ("month", 1), ("day", 1), ("hour", 0), ("minute", 0), ("second", 0))


def _zone(text: str | None) -> timezone | None:
    if text is None:
        return None
    if text == "Z":
        return timezone.utc
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[-2:]))
    return timezone(-offset if text[0] == "-" else offset)
