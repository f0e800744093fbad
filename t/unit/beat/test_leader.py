"""Several beats, one sends: with a ledger in memory and a clock that the test turns."""

from __future__ import annotations

import itertools

import pytest

from celery import Celery
from celery.beat import Scheduler
from celery.beat.leader import Leadership, open_leadership
from celery.beat.ledgers.base import LedgerError, Lost, State
from celery.exceptions import ImproperlyConfigured


class Book:
    """A ledger of this process."""

    def __init__(self):
        self.state, self.entries, self.is_away = None, {}, False

    def _reached(self):
        if self.is_away:
            raise LedgerError("away")

    def _led_by(self, state):
        self._reached()
        if self.state[:2] != state[:2]:
            raise Lost

    def read(self):
        self._reached()
        return self.state

    def take(self, seen, holder):
        if self.read() != seen:
            return None
        self.state = State(holder, seen.epoch + 1 if seen else 1, 0)
        return self.state

    def renew(self, state):
        self._led_by(state)
        self.state = state._replace(beats=state.beats + 1)
        return self.state

    def release(self, state):
        self._led_by(state)
        self.state = self.state._replace(holder="")

    def runs(self):
        self._reached()
        return dict(self.entries)

    def write(self, state, runs):
        self._led_by(state)
        self.entries.update(runs)

    def claim(self, state, name, before, run):
        self._led_by(state)
        if self.entries.get(name, (0, 0))[0] > before:
            return self.entries[name]
        self.entries[name] = run
        return None


class Recording(Scheduler):
    producer = None

    def setup_schedule(self):
        self.sent = []
        super().setup_schedule()

    def send_task(self, name, args, kwargs, **options):
        self.sent.append((name, self.app.now()))


@pytest.fixture
def book():
    return Book()


@pytest.fixture
def seconds(monkeypatch):
    """The time that passes, for everybody."""
    now = [1000.0]
    monkeypatch.setattr("celery.beat.leader.elapsed_seconds", lambda: now[0])
    return now


@pytest.fixture
def beats(app, clock, every, book, seconds, monkeypatch):
    """``beats()``: one more beat with an entry of every ten seconds, and a lease of five."""
    monkeypatch.setattr(app, "now", clock)
    app.conf.beat_schedule = {"a": every(10)}

    def make():
        scheduler = Recording(app)
        scheduler.leadership = Leadership(book, 5)
        return scheduler

    return make


def turn(scheduler):
    if scheduler.standby() is None:
        scheduler.tick()
        return True
    return False


@pytest.fixture
def passing(clock, seconds):
    """``passing(10, *beats)``: let that many seconds pass, in steps of a tenth."""

    def passing(length, *beats):
        for _ in range(round(length * 10)):
            clock.turn(milliseconds=100)
            seconds[0] += 0.1
            for scheduler in beats:
                turn(scheduler)

    return passing


def test_one_sends_and_the_others_stand_by(beats, passing):
    first, second, third = beats(), beats(), beats()
    passing(61, first, second, third)
    assert [len(scheduler.sent) for scheduler in (first, second, third)] == [6, 0, 0]


def test_another_takes_over_within_the_lease(beats, passing, seconds):
    first, second = beats(), beats()
    passing(25, first, second)
    died = seconds[0]
    while not turn(second):
        passing(0.1, second)
    assert seconds[0] - died <= 5
    passing(60 - (seconds[0] - died), second)
    assert len(first.sent) + len(second.sent) == 8  # in 85 seconds
    moments = [moment for _, moment in first.sent + second.sent]
    assert all((b - a).total_seconds() == pytest.approx(10, abs=0.11) for a, b in itertools.pairwise(moments))


def test_a_leader_that_was_stopped_sends_nothing_when_it_goes_on(beats, passing):
    first, second = beats(), beats()
    passing(25, first, second)
    passing(10, second)  # the first does not run
    assert len(second.sent) == 1
    first.tick()  # as if it had been stopped between looking at its lease and sending
    assert len(first.sent) == 2
    passing(30, first, second)
    assert (len(first.sent), len(second.sent)) == (2, 4)


def test_a_lease_that_is_given_back_is_taken_at_once(beats, passing, clock):
    first, second = beats(), beats()
    passing(1, first, second)
    first.leadership.resign()
    assert turn(second)


def test_while_the_store_is_away_nothing_is_sent(beats, passing, book, caplog):
    first, second = beats(), beats()
    passing(11, first, second)
    book.is_away = True
    passing(60, first, second)
    assert len(first.sent) == 1
    assert caplog.text.count("The store of the lease does not answer: away") == 2  # each says it once
    book.is_away = False
    passing(1, first, second)
    assert len(first.sent) + len(second.sent) == 2  # one stands for those that were missed


def test_a_store_that_forgets_all_makes_nothing_run_twice(beats, passing, book):
    first = beats()
    passing(25, first)
    book.state, book.entries = None, {}
    book.take(None, "somebody")
    passing(3, first)
    book.state = book.state._replace(holder="")
    passing(3, first)
    assert len(first.sent) == 3  # after 31 seconds


def test_the_store_is_named_or_found():
    for conf, kind in (
        ({"broker_url": "redis://nowhere"}, "RedisLedger"),
        ({"broker_url": "amqp://", "result_backend": "redis://nowhere"}, "RedisLedger"),
        ({"broker_url": "redis://nowhere", "beat_leader_url": "db+sqlite:///x.db"}, "SQLLedger"),
    ):
        with Celery("x", set_as_current=False) as app:
            app.conf.update(beat_leader_lease=5, **conf)
            assert type(open_leadership(app).ledger).__name__ == kind


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({"beat_leader_lease": 5, "broker_url": "amqp://"}, "Set `beat_leader_url`"),
        ({"beat_leader_lease": 0.1, "broker_url": "redis://"}, "at least 1 second"),
    ],
)
def test_a_lease_without_a_store_is_refused(conf, reason):
    with Celery("x", set_as_current=False) as app:
        app.conf.update(conf)
        with pytest.raises(ImproperlyConfigured, match=reason):
            open_leadership(app)
