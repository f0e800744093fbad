"""Writes crontabs.json: what Celery answers for crontabs.  Run it with Celery's own Python, from this directory.

Each line is ``[crontab, zone, last run, now, is due, seconds until the next look]``; the last run is within two days
of now, and neither is within two days of a change of the clock.
"""

import json
import random
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

from celery import Celery
from celery.schedules import crontab

SIZES = ((60, 0), (24, 0), (31, 1), (12, 1), (7, 0))
ZONES = ("UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kolkata", "Pacific/Auckland")


def field(dice, size, first):
    low, high = sorted(dice.choices(range(first, first + size), k=2))
    step = dice.randint(1, size // 2)
    return dice.choice(["*", "*", "*", f"*/{step}", f"{low}", f"{low},{high}", f"{low}-{high}", f"{low}-{high}/{step}"])


def is_quiet(moment, zone):
    offsets = {(moment + timedelta(hours=hours)).astimezone(ZoneInfo(zone)).utcoffset() for hours in range(-48, 49, 6)}
    return len(offsets) == 1


def main():
    dice = random.Random(57)
    apps = {zone: Celery(zone, set_as_current=False) for zone in ZONES}
    for zone, app in apps.items():
        app.conf.timezone = zone
    lines = []
    while len(lines) < 1000:
        zone = dice.choice(ZONES)
        now = datetime(2020, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=dice.randrange(10 * 365 * 86400))
        last = now - timedelta(
            seconds=dice.choice([0, dice.randrange(120), dice.randrange(7200), dice.randrange(172800)])
        )
        if not (is_quiet(now, zone) and is_quiet(last, zone)):
            continue
        line = " ".join(field(dice, *size) for size in SIZES)
        try:
            schedule = crontab.from_string(line)
        except ValueError:
            continue
        schedule.app = apps[zone]
        schedule.nowfun = lambda now=now, zone=zone: now.astimezone(ZoneInfo(zone))
        try:
            is_due, seconds = schedule.is_due(last)
        except RuntimeError:  # no such day within the years that it looks ahead
            continue
        if is_quiet(now + timedelta(seconds=seconds), zone) and seconds < 300 * 86400:
            lines.append([line, zone, last.isoformat(), now.isoformat(), is_due, seconds])
    text = ",\n".join(json.dumps(line) for line in lines)
    Path(__file__).with_name("crontabs.json").write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    main()
