from __future__ import annotations

from types import SimpleNamespace

import pytest
from kombu.asynchronous.timer import Timer
from kombu.utils import limits as kombu_limits

from celery.exceptions import ImproperlyConfigured
from celery.worker import state
from celery.worker.consumer.limits import RateLimits


class Request:
    def __init__(self, task_id, is_revoked=False):
        self.id, self.name, self.is_revoked = task_id, "t", is_revoked

    def revoked(self):
        return self.is_revoked


class House:
    """A consumer's worth of limits, with a clock that is turned by hand."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(kombu_limits, "monotonic", lambda: self.now)
        self.timer = Timer()
        self.ran = []
        self.app = SimpleNamespace(tasks={"t": SimpleNamespace(rate_limit="10/s")})
        self.run = lambda request: self.ran.append(request.id)
        self.limits = RateLimits(self)
        self.limits.reset()

    def take(self, *ids, **options):
        for task_id in ids:
            self.limits.limit(Request(task_id, **options), self.limits.buckets["t"], 1)

    def turn(self, seconds):
        """Let time pass, and call what the timer holds."""
        self.now += seconds
        for item in sorted(self.timer._queue):
            self.timer._queue.remove(item)
            if not item.entry.canceled:
                item.entry()


@pytest.fixture
def house(monkeypatch):
    state.reset_state()
    yield House(monkeypatch)
    state.reset_state()


def test_the_first_runs_at_once_and_the_next_one_waits(house):
    house.take("a", "b")

    assert house.ran == ["a"]


def test_who_waits_runs_in_order_as_tokens_come(house):
    house.take("a", "b", "c")
    house.turn(0.11)
    assert house.ran == ["a", "b"]

    house.turn(0.11)
    assert house.ran == ["a", "b", "c"]


def test_who_waits_is_reserved(house):
    house.take("a", "b")

    assert {request.id for request in state.reserved_requests} == {"a", "b"}


def test_a_revoked_request_does_not_run(house):
    house.take("a", is_revoked=True)

    assert house.ran == []


def test_taking_the_limit_away_lets_everybody_run(house):
    house.take("a", "b", "c")
    house.app.tasks["t"].rate_limit = 0
    house.limits.reset()

    assert house.ran == ["a", "b", "c"]
    assert house.limits.buckets["t"] is None


def test_a_new_limit_keeps_those_who_wait(house):
    house.take("a", "b", "c")
    house.app.tasks["t"].rate_limit = "1/s"
    house.limits.reset()
    assert house.ran == ["a", "b"]  # a new bucket is full

    house.turn(0.5)
    assert house.ran == ["a", "b"]
    house.turn(0.6)
    assert house.ran == ["a", "b", "c"]


def test_tasks_without_limit_have_no_bucket(house):
    assert house.limits.bucket_for(SimpleNamespace(rate_limit=None)) is None
    assert house.limits.bucket_for(SimpleNamespace()) is None
    assert house.limits.buckets["unknown"] is None


def test_a_task_whose_limit_is_no_rate_is_named(house):
    house.app.tasks["t"] = SimpleNamespace(name="proj.t", rate_limit="99/q")
    with pytest.raises(ImproperlyConfigured, match=r"task proj\.t is no rate: '99/q' has the unit 'q'"):
        house.limits.reset()
