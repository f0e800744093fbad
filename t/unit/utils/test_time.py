import time as _time
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.utils import time
from celery.utils.time import (
    LocalTimezone,
    add_seconds_to_datetime,
    adjust_timestamp,
    delta_resolution,
    ffwd,
    get_exponential_backoff_interval,
    humanize_seconds,
    localize,
    make_aware,
    maybe_iso8601,
    maybe_make_aware,
    maybe_timedelta,
    rate,
    remaining,
    subtract_datetimes,
    to_utc,
    utcoffset,
    weekday,
    yearmonth,
)

NEW_YORK = ZoneInfo("America/New_York")
UTC = timezone.utc
WEDNESDAY = datetime(2026, 5, 6, 7, 8, 9)


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Kolkata"])
def machine_zone(request, monkeypatch):
    monkeypatch.setenv("TZ", request.param)
    _time.tzset()
    yield request.param
    monkeypatch.undo()
    _time.tzset()


@pytest.mark.parametrize(
    ("text", "times_a_second"),
    [("10/s", 10), ("6/m", 0.1), ("3600/h", 1), ("10", 10), (7, 7), (None, 0), ("", 0), (0, 0), ("1.5/s", 1.5)],
)
def test_rates_are_times_a_second(text, times_a_second):
    assert rate(text) == pytest.approx(times_a_second)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x", "^'x' does not begin with a number, as 10/s, 10/m and 10/h do$"),
        ("99/q", "^'99/q' has the unit 'q', which is none of s, m and h, as in 10/m$"),
    ],
)
def test_bad_rates_are_refused_by_name(text, reason):
    with pytest.raises(ValueError, match=reason) as refusal:
        rate(text)
    assert isinstance(refusal.value, KeyError)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4 * 86400, "4.00 days"),
        (86400, "1.00 day"),
        (9000, "2.50 hours"),
        (60, "1.00 minute"),
        (2.4567, "2.46 seconds"),
        (0.5, "now"),
        (0, "now"),
        (-5, "now"),
    ],
)
def test_durations_are_told_in_their_largest_unit(seconds, text):
    assert humanize_seconds(seconds) == text


def test_durations_take_words_around_them():
    assert humanize_seconds(90, prefix="in ") == "in 1.50 minutes"
    assert humanize_seconds(0.5, microseconds=True) == "0.50 seconds"
    assert humanize_seconds(0, now="done") == "done"


def test_weekdays_and_months_are_known_by_name():
    assert (weekday("Sunday"), weekday("mon"), yearmonth("December")) == (0, 1, 12)
    for function in (weekday, yearmonth):
        with pytest.raises(KeyError, match="nope"):
            function("nope")


# -- zones


def test_a_time_that_the_clock_leaps_over_is_moved_on():
    assert make_aware(datetime(2026, 3, 8, 2, 30), NEW_YORK).hour == 3
    assert make_aware(WEDNESDAY, NEW_YORK).isoformat() == "2026-05-06T07:08:09-04:00"


def test_localizing_keeps_the_moment():
    aware = WEDNESDAY.replace(tzinfo=UTC)
    assert localize(aware, NEW_YORK).isoformat() == "2026-05-06T03:08:09-04:00"
    assert localize(WEDNESDAY, NEW_YORK).hour == 7
    assert to_utc(localize(aware, NEW_YORK)) == aware
    assert to_utc(localize(aware, NEW_YORK)).hour == 7


@given(st.datetimes(min_value=datetime(1975, 1, 1), max_value=datetime(2090, 1, 1), timezones=st.timezones()))
def test_aware_times_keep_their_moment_everywhere(dt):
    there = (to_utc(dt), localize(dt, NEW_YORK), time.timezone.to_local(dt, NEW_YORK))

    # By timestamp: where a clock is turned back, Python calls times of two zones unequal.
    assert {moment.timestamp() for moment in there} == {dt.timestamp()}


def test_naive_times_are_utc_unless_said_otherwise():
    assert maybe_make_aware(WEDNESDAY, NEW_YORK).isoformat() == "2026-05-06T03:08:09-04:00"
    assert maybe_make_aware(WEDNESDAY, NEW_YORK, naive_as_utc=False).isoformat() == "2026-05-06T07:08:09-04:00"
    assert maybe_make_aware(WEDNESDAY).utcoffset() == timedelta(0)
    aware = WEDNESDAY.replace(tzinfo=UTC)
    assert maybe_make_aware(aware, NEW_YORK) is aware


def test_zones_are_known_by_name():
    zone = time.timezone
    assert zone.get_timezone("America/New_York") is NEW_YORK
    assert zone.tz_or_local(NEW_YORK) is NEW_YORK
    assert zone.tz_or_local() is zone.local
    with pytest.raises(ZoneInfoNotFoundError):
        zone.get_timezone("Europe/Atlantis")
    assert zone.to_local(WEDNESDAY, NEW_YORK, NEW_YORK).hour == 7


def test_utc_is_there_without_any_zone_data(monkeypatch):
    import zoneinfo

    def nothing(name):
        raise ZoneInfoNotFoundError(name)

    monkeypatch.setattr(zoneinfo, "ZoneInfo", nothing)
    assert time._Zone().utc is timezone.utc


@pytest.mark.parametrize("month", [1, 7])
def test_the_machine_s_zone_agrees_with_the_c_library(machine_zone, month):
    local = LocalTimezone()
    naive = datetime(2026, month, 15, 12)
    expected = naive.astimezone()

    assert local.utcoffset(naive) == expected.utcoffset()
    assert local.tzname(naive) == expected.tzname()
    assert local.dst(naive) == (
        timedelta(hours=1) if machine_zone.startswith("America") and month == 7 else timedelta()
    )
    assert local.dst(None) == timedelta()
    at_utc = expected.astimezone(UTC).replace(tzinfo=local)
    assert local.fromutc(at_utc).utcoffset() is not None
    assert "UTC" in repr(local)
    assert time.timezone.to_system(naive) == expected


def test_timestamps_move_between_offsets(machine_zone):
    hours = {"UTC": [0], "America/New_York": [4, 5], "Asia/Kolkata": [-5.5]}[machine_zone]
    assert utcoffset() in hours
    assert adjust_timestamp(1000, 3, here=lambda: 5) == 8200
    assert adjust_timestamp(1000, utcoffset()) == 1000


# -- intervals


def test_fields_move_a_time_on():
    assert WEDNESDAY + ffwd(hour=3, minute=0) == datetime(2026, 5, 6, 3, 0, 9)
    assert WEDNESDAY + ffwd(month=2, day=31) == datetime(2026, 2, 28, 7, 8, 9)
    assert WEDNESDAY + ffwd(year=2024, month=2, day=30) == datetime(2024, 2, 29, 7, 8, 9)
    assert WEDNESDAY + ffwd(weeks=1, weekday=2) == datetime(2026, 5, 13, 7, 8, 9)
    assert [(WEDNESDAY + ffwd(weekday=day)).day for day in range(7)] == [11, 12, 6, 7, 8, 9, 10]
    assert repr(ffwd(weeks=1, hour=3)) == "ffwd(hour=3, weeks=1)"
    with pytest.raises(TypeError):
        3 + ffwd(hour=1)


@given(st.datetimes(max_value=datetime(9000, 1, 1)), st.integers(0, 6))
def test_the_next_weekday_is_within_a_week(dt, day):
    moved = dt + ffwd(weekday=day)
    assert moved.weekday() == day
    assert timedelta() <= moved - dt < timedelta(days=7)


def test_what_remains_is_real_time():
    before = datetime(2026, 3, 7, 12, tzinfo=NEW_YORK)  # the night before the clock leaps
    assert remaining(before, timedelta(days=1), now=datetime(2026, 3, 8, 6, tzinfo=NEW_YORK)) == timedelta(hours=7)
    assert remaining(before, ffwd(day=8, hour=12), now=before + timedelta(hours=1)) == timedelta(hours=22)
    start = WEDNESDAY.replace(tzinfo=UTC)
    assert remaining(start, timedelta(hours=1), now=start + timedelta(hours=2)) == timedelta(hours=-1)
    assert remaining(start, timedelta(hours=1), now=start, relative=True) == timedelta(minutes=51, seconds=51)
    assert remaining(datetime.now(UTC), timedelta(hours=1)) <= timedelta(hours=1)


def test_time_remains_until_a_moment_after_the_last_year_that_has_a_date():
    start, ages = datetime(2026, 11, 20, tzinfo=UTC), timedelta(seconds=1e12)
    assert remaining(start, ages, now=start + timedelta(hours=1)) == ages - timedelta(hours=1)
    assert remaining(start, ages, now=start + timedelta(hours=1), relative=True) == ages - timedelta(hours=1)


def test_a_naive_time_among_aware_ones_is_the_machine_s(machine_zone):
    start = WEDNESDAY.astimezone(UTC)
    assert remaining(start, timedelta(hours=1), now=WEDNESDAY) == timedelta(hours=1)


def test_seconds_are_added_and_subtracted_in_real_time():
    before = datetime(2026, 3, 8, 1, 30, tzinfo=NEW_YORK)
    after = add_seconds_to_datetime(before, 3600)
    assert after.isoformat() == "2026-03-08T03:30:00-04:00"
    assert subtract_datetimes(after, before) == timedelta(hours=1)
    assert subtract_datetimes(WEDNESDAY, WEDNESDAY.replace(tzinfo=UTC)) == timedelta()
    assert add_seconds_to_datetime(WEDNESDAY, 1).second == 10


def test_times_are_cut_to_the_unit_of_an_interval():
    for delta, expected in (
        (timedelta(days=2), (0, 0, 0)),
        (timedelta(hours=2), (7, 0, 0)),
        (timedelta(minutes=2), (7, 8, 0)),
        (timedelta(seconds=2), (7, 8, 9)),
    ):
        cut = delta_resolution(WEDNESDAY, delta)
        assert (cut.hour, cut.minute, cut.second) == expected


def test_numbers_are_seconds():
    assert maybe_timedelta(1.5) == timedelta(seconds=1.5)
    assert maybe_timedelta(None) is None


@pytest.mark.parametrize(
    ("args", "seconds"),
    [
        ((1, 3, 100), 8),
        ((2, 10, 100), 100),
        ((1.5, 3, 100), 12),
        ((-1, 3, 100), 0),
        ((1, 5000, 600), 600),
        ((1, 3, 0), 0),
    ],
)
def test_pauses_double_up_to_a_maximum(args, seconds):
    assert get_exponential_backoff_interval(*args) == seconds


@given(st.floats(0, 10), st.integers(0, 4000), st.integers(0, 1000))
def test_jitter_stays_below_the_pause(factor, retries, maximum):
    pause = get_exponential_backoff_interval(factor, retries, maximum)
    assert 0 <= get_exponential_backoff_interval(factor, retries, maximum, full_jitter=True) <= pause


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02T03:04:05", datetime(2026, 1, 2, 3, 4, 5)),
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05.123456+02:00", datetime(2026, 1, 2, 1, 4, 5, 123456, tzinfo=UTC)),
        ("20260102T030405Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05.1", datetime(2026, 1, 2, 3, 4, 5, 100000)),
        ("2026-01-02", datetime(2026, 1, 2)),
        (WEDNESDAY, WEDNESDAY),
        ("", None),
        (None, None),
    ],
)
def test_iso_dates_are_read(text, expected):
    assert maybe_iso8601(text) == expected


def test_other_text_is_no_date():
    with pytest.raises(ValueError):
        maybe_iso8601("tomorrow")


@given(st.datetimes(timezones=st.none() | st.just(UTC)))
def test_iso_dates_go_there_and_back(dt):
    assert maybe_iso8601(dt.isoformat()) == dt
