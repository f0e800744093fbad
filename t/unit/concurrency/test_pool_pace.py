"""Mean runtimes."""

from __future__ import annotations

from celery.concurrency.processes.pace import SHORT_SECONDS, Pace


def test_a_name_never_seen_is_not_short():
    assert Pace()["new"] > SHORT_SECONDS


def test_the_first_run_is_the_mean():
    pace = Pace()
    pace.note("name", 0.0001)

    assert pace["name"] == 0.0001


def test_one_long_run_makes_a_name_long_and_short_ones_make_it_short_again():
    pace = Pace()
    for _ in range(10):
        pace.note("name", 0.0001)
    pace.note("name", 0.1)
    assert pace["name"] > SHORT_SECONDS
    for _ in range(30):
        pace.note("name", 0.0001)

    assert pace["name"] < SHORT_SECONDS
