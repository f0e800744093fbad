"""Crontabs against what Celery 5.7.0 answered, far from changes of the clock (see t/facts/record_crontabs.py)."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from celery import Celery
from celery.schedules import crontab

FACTS = Path(__file__).parents[2] / "facts" / "crontabs.json"


def test_a_thousand_answers_are_those_of_celery():
    different = []
    with Celery("recorded", set_as_current=False) as app:
        for line, zone, last, now, is_due, seconds in json.loads(FACTS.read_text()):
            app.conf.timezone = zone
            schedule = crontab.from_string(line)
            schedule.app = app
            schedule.nowfun = lambda now=now, zone=zone: datetime.fromisoformat(now).astimezone(ZoneInfo(zone))
            answer = schedule.is_due(datetime.fromisoformat(last))
            if answer != (is_due, pytest.approx(seconds, abs=1e-3)):
                different.append(f"{line!r} in {zone}, last {last}, now {now}: {answer}, not {is_due, seconds}")
    assert different == []
