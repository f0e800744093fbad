"""Crontabs in the nights in which clocks change, against a look at every minute; all zones: run clock_oracle.py."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from clock_oracle import changes, disagreements

ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",  # half an hour beside the hours
    "Australia/Lord_Howe",  # by half an hour
    "Africa/Cairo",  # at midnight
    "Asia/Beirut",  # at midnight, back into the day before
    "Antarctica/Troll",  # by two hours
    "Africa/Casablanca",  # backwards, four times a year
]


@pytest.mark.parametrize("zone", ZONES)
def test_every_minute_of_those_nights_agrees(zone):
    moments = changes(zone, 2025, 2025)
    assert moments, "this zone changes its clock no more"
    assert list(disagreements(zone, moments)) == []


def test_the_oracle_sees_the_hours_that_we_know():
    from clock_oracle import expected

    night = datetime(2026, 3, 28, 20, tzinfo=timezone.utc), datetime(2026, 3, 29, 20, tzinfo=timezone.utc)
    assert expected("30 2 * * *", "Europe/Berlin", *night) == [datetime(2026, 3, 29, 1, tzinfo=timezone.utc)]
