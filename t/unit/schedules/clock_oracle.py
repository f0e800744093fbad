"""A slow and simple answer to when a crontab runs: look at every minute.  ``python t/unit/schedules/clock_oracle.py``

checks every zone that changed its clock from 2020 to 2030, each change of it, for twelve crontabs.
"""

from __future__ import annotations

import sys
import zoneinfo
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from celery import Celery
from celery.schedules import crontab

UTC = timezone.utc
MINUTE = timedelta(minutes=1)
#: Around a change of the clock, so much is looked at.
WINDOW = timedelta(hours=40)

CRONTABS = (
    "* * * * *",
    "*/15 * * * *",
    "30 * * * *",
    "0 0 * * *",
    "30 2 * * *",
    "*/20 1-3 * * *",
    "15,45 0,2,23 * * *",
    "59 1 * * sun",
    "0 3 * * *",
    "10 */2 * * *",
    "5 0 28-31 * *",
    "*/7 2 * 3,10 *",
)


def changes(zone: str, first: int = 2020, last: int = 2030) -> list[datetime]:
    """Return the moments, to the hour, before which the clock of a zone changes."""
    tz, found = ZoneInfo(zone), []
    moment, end = datetime(first, 1, 1, tzinfo=UTC), datetime(last + 1, 1, 1, tzinfo=UTC)
    offset = moment.astimezone(tz).utcoffset()
    while moment < end:
        moment += timedelta(hours=1)
        if (new := moment.astimezone(tz).utcoffset()) != offset:
            found.append(moment)
            offset = new
    return found


def zones() -> dict[str, list[datetime]]:
    """Return the zones that change their clock, one of those that do so at the same moments by the same amount."""
    found: dict[tuple[object, ...], tuple[str, list[datetime]]] = {}
    for zone in sorted(zoneinfo.available_timezones()):
        if zone.startswith(("right/", "posix/")) or zone in ("localtime", "Factory"):
            continue
        if moments := changes(zone):
            offsets = tuple(moment.astimezone(ZoneInfo(zone)).utcoffset() for moment in moments)
            found.setdefault((*moments, *offsets), (zone, moments))
    return dict(found.values())


@lru_cache(maxsize=4)
def minutes(zone: str, moment: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """Return each minute, and what the clock shows then."""
    tz, shown = ZoneInfo(zone), []
    while moment <= end:
        shown.append((moment, moment.astimezone(tz).replace(tzinfo=None)))
        moment += MINUTE
    return shown


def expected(line: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    """Return when a crontab runs after ``start`` and up to ``end``, by a look at every minute."""
    minute, hour, day, month, weekday = (
        crontab.from_string(line).__dict__[name]
        for name in ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
    )

    def is_named(clock: datetime) -> bool:
        return (
            clock.minute in minute
            and clock.hour in hour
            and clock.day in day
            and clock.month in month
            and clock.isoweekday() % 7 in weekday
        )

    shown = minutes(zone, start - timedelta(hours=4), end)
    if len(hour) == 24:  # goes by real time
        return [moment for moment, clock in shown if is_named(clock) and start < moment]
    first_shown: dict[datetime, datetime] = {}
    for moment, clock in shown:
        first_shown.setdefault(clock, moment)
    runs, clock, last = set(), shown[0][1], max(clock for _, clock in shown)
    while clock <= last:
        if is_named(clock):
            lands = clock
            while lands not in first_shown and lands <= last:
                lands += MINUTE  # left out: when the clock next shows anything
            if lands in first_shown:
                runs.add(first_shown[lands])
        clock += MINUTE
    return sorted(moment for moment in runs if start < moment <= end)


def answered(line: str, app: Celery, start: datetime, end: datetime) -> list[datetime]:
    """Return when a crontab runs by its own account, with beat looking at the very moment each time."""
    schedule = crontab.from_string(line)
    schedule.app = app
    now, runs = start, []
    schedule.nowfun = lambda: now
    while (now := now + schedule.remaining_estimate(now)) <= end:
        runs.append(now)
    return runs


def disagreements(zone: str, moments: list[datetime]) -> Iterator[str]:
    with Celery("oracle", set_as_current=False) as app:
        app.conf.timezone = zone
        for moment in moments:
            start, end = moment - WINDOW, moment + WINDOW
            for line in CRONTABS:
                wanted, got = expected(line, zone, start, end), answered(line, app, start, end)
                if wanted != got:
                    odd = sorted(set(wanted) ^ set(got))
                    yield f"{line!r} in {zone} about {moment}: {[str(run.astimezone(ZoneInfo(zone))) for run in odd[:4]]}"


def main() -> int:
    wrong, cells = [], 0
    table = zones()
    for zone, moments in table.items():
        cells += len(moments) * len(CRONTABS)
        wrong += list(disagreements(zone, moments))
    print(f"{len(table)} zones, {cells} changes x crontabs, {len(wrong)} disagreements")
    print("\n".join(wrong[:20]))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
