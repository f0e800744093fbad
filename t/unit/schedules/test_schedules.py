"""Intervals and the sun; what makes a schedule of a number; schedules in the settings."""

from __future__ import annotations

import pickle
from datetime import datetime, timedelta, timezone

import pytest

from celery import Celery
from celery.schedules import BaseSchedule, crontab, maybe_schedule, schedule, solar

NOW = datetime(2026, 11, 20, 10, 30, 15, tzinfo=timezone.utc)


def now() -> datetime:
    return NOW


@pytest.fixture
def app():
    with Celery("schedules", set_as_current=False) as app:
        app.conf.timezone = "UTC"
        yield app


def test_an_interval_is_due_when_it_has_passed(app):
    every = schedule(30, app=app, nowfun=now)
    assert every.is_due(NOW) == (False, 30)
    assert every.is_due(NOW - timedelta(seconds=10)) == (False, 20)
    assert every.is_due(NOW - timedelta(seconds=31)) == (True, 30)
    assert every.is_due((NOW - timedelta(seconds=10)).replace(tzinfo=None)).next == 20


def test_a_relative_interval_is_rounded_down(app):
    hourly = schedule(timedelta(hours=1), relative=True, app=app, nowfun=now)
    assert hourly.is_due(NOW - timedelta(minutes=50)) == (True, 1785)
    daily = schedule(timedelta(days=1), relative=True, app=app, nowfun=now)
    assert daily.remaining_estimate(NOW) == datetime(2026, 11, 21, tzinfo=timezone.utc) - NOW


def test_intervals_show_compare_and_pickle():
    every = schedule(timedelta(days=2), relative=True)
    assert (repr(every), every.seconds, every.human_seconds) == ("<freq: 2.00 days>", 172800, "2.00 days")
    copy = pickle.loads(pickle.dumps(every))
    assert copy == every == timedelta(days=2)
    assert copy.relative
    assert every != schedule(3)
    assert schedule(-5).seconds == 0


def test_numbers_and_timedeltas_become_schedules(app):
    assert maybe_schedule(5, app=app).run_every == timedelta(seconds=5)
    assert maybe_schedule(timedelta(seconds=3), relative=True).relative
    assert maybe_schedule(None) is None
    given = crontab(5)
    assert maybe_schedule(given, app=app) is given
    assert given.app is app
    with pytest.raises(AttributeError, match="is no schedule"):
        maybe_schedule("daily")


def test_a_schedule_must_say_when():
    with pytest.raises(NotImplementedError, match="must define"):
        BaseSchedule().is_due(NOW)


def test_the_sun_rises_and_sets(app):
    pytest.importorskip("ephem")
    sunset = solar("sunset", -37.81753, 144.96715, app=app, nowfun=now)
    assert sunset.remaining_estimate(NOW).total_seconds() == pytest.approx(81951.8, abs=1)
    assert sunset.is_due(NOW - timedelta(days=1)).is_due
    assert pickle.loads(pickle.dumps(sunset)) == sunset
    assert repr(sunset) == "<solar: sunset at latitude -37.81753, longitude: 144.96715>"
    order = ["dusk_civil", "dusk_nautical", "dusk_astronomical", "dawn_astronomical", "dawn_nautical", "dawn_civil"]
    waits = [solar(event, 52, 13, app=app, nowfun=now).remaining_estimate(NOW) for event in order]
    assert waits == sorted(waits)


def test_the_polar_night_ends(app):
    pytest.importorskip("ephem")
    for latitude, days in ((80, 92), (89.9, 118)):
        sunrise = solar("sunrise", latitude, 13, app=app, nowfun=now)
        assert sunrise.remaining_estimate(NOW).days in (days, days - 1, days + 1)


def test_a_place_must_be_on_earth():
    pytest.importorskip("ephem")
    for wrong in (("moonrise", 1, 2), ("sunset", 91, 2), ("sunset", 1, 181)):
        with pytest.raises(ValueError, match="invalid"):
            solar(*wrong)


def test_an_app_takes_them_as_settings(app):
    app.conf.beat_schedule = {"morning": {"task": "add", "schedule": crontab(0, 7), "args": (1, 2)}}

    @app.task(name="add")
    def add(x, y):
        return x + y

    app.add_periodic_task(crontab(30, 7), add.s(3, 4), name="later")
    app.add_periodic_task(10, add.s(5, 6), expires=5)
    app.finalize()
    entries = app.conf.beat_schedule
    assert set(entries) == {"morning", "later", "add(5, 6)"}
    assert entries["later"]["schedule"] == crontab(30, 7)
    assert entries["add(5, 6)"]["options"] == {"expires": 5}
