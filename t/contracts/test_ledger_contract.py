"""What every store of beat's lease promises: one leader, each run once, and nothing from a leader that was."""

from __future__ import annotations

import os
import uuid

import pytest

from celery import Celery
from celery.beat.leader import open_leadership
from celery.beat.ledgers.base import LedgerError, Lost

REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379") + "/11"
POSTGRES = os.environ.get("TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")


def reachable(url, leadership):
    try:
        leadership.ledger.read()
    except LedgerError as error:
        pytest.fail(f"{url}: {error}") if os.environ.get("CI") else pytest.skip(f"{url}: {error}")


@pytest.fixture(params=["redis", "sqlite", "postgres"])
def leaders(request, tmp_path):
    """Makes leaderships that share one ledger."""
    pytest.importorskip({"redis": "redis", "sqlite": "sqlalchemy", "postgres": "psycopg2"}[request.param])
    url = {
        "redis": REDIS,
        "sqlite": f"db+sqlite:///{tmp_path}/ledger.db",
        "postgres": "db+" + POSTGRES.replace("postgresql:", "postgresql+psycopg2:"),
    }[request.param]
    with Celery(f"ledger-{uuid.uuid4().hex}", broker="memory://", set_as_current=False) as app:
        app.conf.update(beat_leader_lease=1, beat_leader_url=url)

        def make():
            leadership = open_leadership(app)
            reachable(url, leadership)
            return leadership

        yield make


@pytest.fixture
def ledger(leaders):
    return leaders().ledger


def test_one_of_several_is_the_first(ledger):
    assert ledger.read() is None
    mine = ledger.take(None, "a")
    assert mine == ("a", 1, 0)
    assert ledger.take(None, "b") is None
    assert ledger.read() == mine


def test_who_has_seen_an_older_state_takes_nothing(ledger):
    seen = ledger.take(None, "a")
    ledger.renew(seen)
    assert ledger.take(seen, "b") is None
    assert ledger.take(ledger.read(), "b") == ("b", 2, 0)


def test_a_leader_that_was_can_do_nothing(ledger):
    old = ledger.take(None, "a")
    new = ledger.take(ledger.read(), "b")
    for step in (
        lambda: ledger.renew(old),
        lambda: ledger.release(old),
        lambda: ledger.claim(old, "entry", 5, (10, 1)),
        lambda: ledger.write(old, {"entry": (10, 1)}),
    ):
        with pytest.raises(Lost):
            step()
    assert ledger.runs() == {}
    assert ledger.read() == new


def test_a_run_is_granted_once(ledger):
    mine = ledger.take(None, "a")
    assert ledger.claim(mine, "entry", 5, (10, 1)) is None
    assert ledger.claim(mine, "entry", 5, (11, 1)) == (10, 1)
    assert ledger.claim(mine, "entry", 10, (20, 2)) is None
    assert ledger.claim(mine, "other \N{SNOWMAN}", 5, (10, 1)) is None
    assert ledger.runs() == {"entry": (20, 2), "other \N{SNOWMAN}": (10, 1)}


def test_runs_are_written_whatever_was_there(ledger):
    mine = ledger.take(None, "a")
    ledger.claim(mine, "entry", 5, (10**16, 1))
    runs = {"entry": (7, 1), **{f"e{number}": (number, number) for number in range(1500)}}
    ledger.write(mine, runs)
    assert ledger.runs() == runs


def test_a_lease_that_is_given_back_is_free(ledger):
    ledger.release(ledger.take(None, "a"))
    assert ledger.read().holder == ""
    assert ledger.take(ledger.read(), "b").epoch == 2
