from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from celery.worker import state
from celery.worker.consumer.watchdog import FIRST_PATIENCE, SECOND_LOOK, Stalled, Watchdog

pytestmark = pytest.mark.usefixtures("fresh_state")


class Timer:
    """Keeps what is planned, to be called by hand."""

    def __init__(self):
        self.planned = []

    def call_after(self, seconds, call, args):
        entry = SimpleNamespace(seconds=seconds, call=call, args=args, cancelled=False)
        entry.cancel = lambda: setattr(entry, "cancelled", True)
        self.planned.append(entry)
        return entry

    def fire(self):
        entry = self.planned.pop()
        entry.call(*entry.args)
        return entry.seconds


class House:
    """A consumer on a broker with ``waiting`` messages that it does not deliver."""

    def __init__(self, waiting):
        self.waiting = waiting
        self.timer = Timer()
        self.hub = object()
        self.connection = SimpleNamespace(transport=SimpleNamespace(implements=SimpleNamespace(asynchronous=True)))
        self.calls = []
        self.has_call = threading.Event()
        self.watchdog = Watchdog(self)
        self.watchdog._messages_waiting = lambda: self.waiting

    def call_soon(self, call, *args):
        self.calls.append((call, args))
        self.has_call.set()

    def look(self):
        """Let the planned look happen, with the answer of its thread."""
        seconds = self.timer.fire()
        if not self.timer.planned:
            assert self.has_call.wait(5)
            self.has_call.clear()
            call, args = self.calls.pop()
            call(*args)
        return seconds


@pytest.fixture
def house():
    house = House(waiting=3)
    house.watchdog.start()
    house.timer.fire()  # the first look only notes how far the work is
    return house


def test_idling_beside_a_full_queue_rebuilds_the_connection(house):
    assert house.look() == FIRST_PATIENCE
    with pytest.raises(Stalled, match="3 messages wait"):
        house.look()


def test_the_queue_is_looked_at_twice(house):
    house.look()

    assert house.timer.planned[-1].seconds == SECOND_LOOK


def test_an_empty_queue_is_no_reason(house):
    house.waiting = 0
    house.look()
    house.look()

    assert house.timer.planned[-1].seconds == FIRST_PATIENCE


def test_work_between_the_looks_is_progress(house):
    house.look()
    state.all_total_count[0] += 1
    house.timer.fire()

    assert house.timer.planned[-1].seconds == FIRST_PATIENCE


def test_a_task_that_is_held_is_no_reason(house):
    state.requests["id-1"] = object()
    house.timer.fire()

    assert house.timer.planned[-1].seconds == FIRST_PATIENCE


def test_a_rebuild_that_does_not_help_is_repeated_ever_less_often(house):
    for times in (1, 2, 4):
        assert house.timer.planned[-1].seconds == FIRST_PATIENCE * times
        house.look()
        with pytest.raises(Stalled):
            house.look()
        house.watchdog.start()


def test_the_answer_for_an_earlier_connection_is_ignored(house):
    house.timer.fire()
    assert house.has_call.wait(5)
    house.connection = SimpleNamespace()
    call, args = house.calls.pop()
    call(*args)

    assert house.timer.planned == []


def test_a_transport_that_is_polled_is_not_watched():
    house = House(waiting=1)
    house.connection.transport.implements.asynchronous = False
    house.watchdog.start()

    assert house.timer.planned == []
