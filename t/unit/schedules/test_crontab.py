"""Crontabs: what the fields may be, and when the next run is, against croniter and across changes of the clock."""

from __future__ import annotations

import pickle
import random
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from celery import Celery
from celery.schedules import ParseException, crontab, crontab_parser

UTC = timezone.utc
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def app():
    with Celery("crontabs", set_as_current=False) as app:
        app.conf.timezone = "UTC"
        yield app


@pytest.fixture
def berlin(app):
    app.conf.timezone = "Europe/Berlin"
    return app


def runs(line: str, app: Celery, start: datetime, end: datetime) -> list[str]:
    """Return when it runs, with the offset, if beat looks at the very moment each time."""
    schedule = crontab.from_string(line)
    schedule.app = app
    now, moments = start.astimezone(UTC), []
    schedule.nowfun = lambda: now
    while True:
        now = now + schedule.remaining_estimate(now)
        if now > end.astimezone(UTC):
            return moments
        moments.append(now.astimezone(app.timezone).strftime("%d %H:%M %z"))


@pytest.mark.parametrize(
    ("spec", "size", "first", "numbers"),
    [
        ("*", 7, 0, {0, 1, 2, 3, 4, 5, 6}),
        ("*/15", 60, 0, {0, 15, 30, 45}),
        ("*/3", 12, 1, {1, 4, 7, 10}),
        ("5", 60, 0, {5}),
        (" 5 , 7", 60, 0, {5, 7}),
        ("1-5", 7, 0, {1, 2, 3, 4, 5}),
        ("1-10/3", 60, 0, {1, 4, 7, 10}),
        ("mon-fri", 7, 0, {1, 2, 3, 4, 5}),
        ("fri-MON", 7, 0, {5, 6, 0, 1}),
        ("fri-mon/2", 7, 0, {5, 0}),
        ("50-10/10", 60, 0, {50, 0, 10}),
        ("wednesday,sun", 7, 0, {3, 0}),
        ("nov-feb", 12, 1, {11, 12, 1, 2}),
        ("1,3-4,*/30", 60, 0, {0, 1, 3, 4, 30}),
    ],
)
def test_an_expression_names_numbers(spec, size, first, numbers):
    assert crontab_parser(size, first).parse(spec) == numbers


@pytest.mark.parametrize("spec", ["", "1,,2", "1,", "-1", "*/"])
def test_half_an_expression_is_refused(spec):
    with pytest.raises(ParseException):
        crontab_parser(60).parse(spec)


@pytest.mark.parametrize("spec", ["60", "*/0", "1-5/0", "abc", "5-", "1-2-3", "*/7/2", "5/2", "1-60", "L"])
def test_a_wrong_expression_is_refused(spec):
    with pytest.raises(ValueError):
        crontab_parser(60).parse(spec)


def test_fields_are_numbers_or_iterables_within_range():
    assert crontab(minute=5, hour=[1, 2], day_of_week={0}).hour == {1, 2}
    for wrong in ({"minute": 60}, {"hour": 24}, {"day_of_month": 0}, {"month_of_year": [13]}, {"day_of_week": []}):
        with pytest.raises(ValueError):
            crontab(**wrong)
    for wrong in ({"minute": 1.5}, {"minute": None}, {"minute": ["1"]}):
        with pytest.raises(TypeError):
            crontab(**wrong)


def test_a_day_that_no_month_has_is_refused_at_once():
    with pytest.raises(ValueError, match="never occurs"):
        crontab(day_of_month="30,31", month_of_year="feb")
    crontab(day_of_month="29", month_of_year="feb")


def test_a_line_has_five_fields():
    assert crontab.from_string("0 7 1 2 mon-fri") == crontab("0", "7", "mon-fri", "1", "2")
    with pytest.raises(ValueError, match="4 fields"):
        crontab.from_string("0 7 * *")


def test_it_shows_pickles_and_compares():
    schedule = crontab("*/15", "1-5,22", day_of_week="mon-fri")
    assert repr(schedule) == "<crontab: */15 1-5,22 * * mon-fri (m/h/dM/MY/d)>"
    copy = pickle.loads(pickle.dumps(schedule))
    assert copy == schedule
    assert copy != crontab("*/15")
    assert copy._orig_hour == "1-5,22"
    with pytest.raises(TypeError):
        hash(schedule)


def random_field(dice: random.Random, size: int, first: int) -> str:
    low, high = sorted(dice.choices(range(first, first + size), k=2))
    return dice.choice(["*", "*", f"*/{dice.randint(1, size // 2)}", f"{low}", f"{low},{high}", f"{low}-{high}"])


def test_fifty_years_of_random_expressions_agree_with_croniter(app):
    croniter = pytest.importorskip("croniter").croniter
    dice = random.Random(20)
    for _ in range(1500):
        fields = [random_field(dice, size, first) for size, first in ((60, 0), (24, 0), (31, 1), (12, 1), (7, 0))]
        if dice.random() < 0.5:
            fields[2] = "*"
        now = datetime(1990, 1, 1, tzinfo=UTC) + timedelta(seconds=dice.randrange(50 * 365 * 86400))
        try:
            schedule = crontab.from_string(" ".join(fields))
        except ValueError:
            continue  # no such day
        schedule.app, schedule.nowfun = app, lambda now=now: now
        # lists of numbers, as croniter lets one day field decide where the other starts with a star
        sets = schedule.minute, schedule.hour, schedule.day_of_month, schedule.month_of_year, schedule.day_of_week
        line = " ".join(",".join(map(str, sorted(numbers))) for numbers in sets)
        expected = croniter(line, now, day_or=False, max_years_between_matches=60).get_next(datetime)
        assert now + schedule.remaining_estimate(now) == expected, fields


def test_a_run_of_this_minute_does_not_come_twice(app):
    schedule = crontab(app=app, nowfun=lambda: datetime(2026, 11, 20, 10, 30, 15, tzinfo=UTC))
    assert schedule.is_due(datetime(2026, 11, 20, 10, 30, 1, tzinfo=UTC)) == (False, 45)
    assert schedule.is_due(datetime(2026, 11, 20, 10, 29, 59, tzinfo=UTC)) == (True, 45)


def test_a_run_missed_by_more_than_the_deadline_is_let_go(app):
    now = datetime(2026, 11, 20, 10, 30, 15, tzinfo=UTC)
    schedule = crontab(minute="0", app=app, nowfun=lambda: now)
    long_ago = now - timedelta(days=3)
    assert schedule.is_due(long_ago) == (True, 1785)
    app.conf.beat_cron_starting_deadline = 1000
    assert schedule.is_due(long_ago) == (False, 1785)
    app.conf.beat_cron_starting_deadline = 1900
    assert schedule.is_due(long_ago) == (True, 1785)


# In Berlin, 2026-03-29 has no 02:00 to 02:59, and 2026-10-25 has it twice.
SPRING = datetime(2026, 3, 28, 12, tzinfo=BERLIN), datetime(2026, 3, 30, 12, tzinfo=BERLIN)
AUTUMN = datetime(2026, 10, 24, 12, tzinfo=BERLIN), datetime(2026, 10, 26, 12, tzinfo=BERLIN)


def test_what_is_named_in_the_hour_left_out_runs_once_at_its_end(berlin):
    assert runs("30 2 * * *", berlin, *SPRING) == ["29 03:00 +0200", "30 02:30 +0200"]
    assert runs("*/20 2 * * *", berlin, *SPRING)[:2] == ["29 03:00 +0200", "30 02:00 +0200"]


def test_what_is_named_in_the_hour_that_comes_twice_runs_once(berlin):
    assert runs("30 2 * * *", berlin, *AUTUMN) == ["25 02:30 +0200", "26 02:30 +0100"]
    assert runs("*/30 1-3 * * *", berlin, *AUTUMN)[:6] == [
        "25 01:00 +0200",
        "25 01:30 +0200",
        "25 02:00 +0200",
        "25 02:30 +0200",
        "25 03:00 +0100",
        "25 03:30 +0100",
    ]


def test_every_hour_goes_by_real_time(berlin):
    for start, end in SPRING, AUTUMN:
        assert len(runs("*/15 * * * *", berlin, start, end)) == (end - start.astimezone(UTC)) / timedelta(minutes=15)
    night = AUTUMN[0].replace(day=25, hour=1, minute=40), AUTUMN[0].replace(day=25, hour=3, minute=30)
    assert runs("30 * * * *", berlin, *night) == ["25 02:30 +0200", "25 02:30 +0100", "25 03:30 +0100"]


def test_ends_of_months_and_leap_years(app):
    months = runs("0 0 31 * *", app, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 12, 31, tzinfo=UTC))
    assert len(months) == 7
    schedule = crontab(0, 0, day_of_month=29, month_of_year=2, day_of_week=0, app=app)
    schedule.nowfun = lambda: datetime(2026, 11, 20, tzinfo=UTC)
    assert schedule.now() + schedule.remaining_estimate(schedule.now()) == datetime(2032, 2, 29, tzinfo=UTC)


def test_a_subclass_may_have_a_zone_of_its_own(app):
    class Local(crontab):
        def __init__(self, *args, tz, **kwargs):
            self.tz = tz
            super().__init__(*args, **kwargs)

    now = datetime(2026, 7, 1, 5, 0, tzinfo=UTC)
    schedule = Local("30", "7", tz=BERLIN, app=app, nowfun=lambda: now)
    assert schedule.remaining_estimate(now) == timedelta(minutes=30)
    start, ends_in, _ = schedule.remaining_delta(now)
    assert start + ends_in == datetime(2026, 7, 1, 7, 30, tzinfo=BERLIN)
