"""An app, a clock that the test turns, and schedulers that write down what they would send."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from celery import Celery
from celery.beat import PersistentScheduler
from celery.schedules import schedule


class Clock:
    def __init__(self):
        self.time = datetime(2026, 11, 20, 10, 30, tzinfo=timezone.utc)

    def __call__(self):
        return self.time

    def turn(self, **delta):
        self.time += timedelta(**delta)


@pytest.fixture(autouse=True)
def _told(caplog):
    """What beat tells is seen, whatever level another test has left."""
    caplog.set_level("INFO", logger="celery.beat")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def app():
    with Celery("beat", broker="memory://", backend="cache+memory://", set_as_current=False) as app:
        app.conf.timezone = "UTC"
        yield app


@pytest.fixture
def every(clock):
    """``every(seconds, task)``: the fields of an entry that goes by the turnable clock."""

    def every(seconds, task="a", **fields):
        return {"task": task, "schedule": schedule(seconds, nowfun=clock), **fields}

    return every


@pytest.fixture
def kept(app, tmp_path):
    """Makes persistent schedulers that write down what they would send; each is closed at the end."""

    class Kept(PersistentScheduler):
        producer = None

        def setup_schedule(self):
            self.sent = []
            super().setup_schedule()

        def send_task(self, name, args, kwargs, **options):
            self.sent.append(name)

    made = []

    def make(**options):
        made.append(Kept(app, schedule_filename=str(tmp_path / "schedule"), **options))
        return made[-1]

    yield make
    for scheduler in made:
        scheduler._release()
