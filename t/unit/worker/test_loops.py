from __future__ import annotations

import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest
from kombu.asynchronous import Hub

from celery.worker import loops


@pytest.fixture
def hub():
    hub = Hub()
    hub.add_reader(os.eventfd(0) if hasattr(os, "eventfd") else os.pipe()[0], lambda: None)
    yield hub
    for fd in list(hub.readers):
        hub.remove(fd)
        os.close(fd) if isinstance(fd, int) and fd > 2 else None
    hub.close()


class Connection:
    """A broker that cannot be polled."""

    def __init__(self, waiting=0):
        self.waiting = waiting
        self.looks = 0
        self.taken = 0

    def drain_events(self, timeout):
        assert timeout == 0
        self.looks += 1
        if not self.waiting:
            raise TimeoutError
        self.waiting -= 1
        self.taken += 1


class Timers:
    """A hub of which only the timers are used; they are called by hand."""

    def __init__(self):
        self.delays = []

    def call_later(self, delay, call):
        self.delays.append(delay)
        return SimpleNamespace(cancel=lambda: None)


def test_an_empty_broker_is_looked_at_ever_less_often():
    timers = Timers()
    drain = loops.Drain(Connection(), timers)
    for _ in range(10):
        drain()

    assert timers.delays[0] == loops.SHORTEST_LOOK * 2
    assert timers.delays[-1] == loops.LONGEST_LOOK
    assert timers.delays == sorted(timers.delays)


def test_a_message_brings_the_next_look_forward():
    timers = Timers()
    connection = Connection()
    drain = loops.Drain(connection, timers)
    for _ in range(10):
        drain()
    connection.waiting = 1
    drain()

    assert timers.delays[-1] == loops.SHORTEST_LOOK


def test_one_look_takes_many_messages_but_not_all():
    connection = Connection(waiting=1000)
    loops.Drain(connection, Timers())()

    assert connection.taken == loops.MESSAGES_PER_LOOK


def test_a_cancelled_drain_looks_no_more():
    connection = Connection()
    drain = loops.Drain(connection, Timers())
    drain.schedule()
    drain.cancel()
    drain()

    assert connection.looks == 0


def test_turning_ends_in_time(hub):
    start = time.monotonic()
    loops.turn(hub, 0.02)

    assert 0.015 < time.monotonic() - start < 0.5


def test_turning_ends_in_time_also_where_timers_take_theirs(hub):
    for delay, seconds in ((0.01, 0.03), (0.025, 0.02)):  # the second is due when the turn is over, and keeps it
        hub.call_later(delay, time.sleep, seconds)
    hub.call_later(5, time.sleep, 0)
    start = time.monotonic()
    loops.turn(hub, 0.02)

    assert time.monotonic() - start < 0.5


def test_turning_ends_when_that_is_reached_what_was_waited_for(hub):
    done = []
    hub.call_later(0.01, done.append, True)
    start = time.monotonic()
    loops.turn(hub, 30, until=lambda: bool(done))

    assert time.monotonic() - start < 5


def test_turning_leaves_no_timer_behind(hub):
    loops.turn(hub, 60, until=lambda: True)

    assert not [item for item in hub.timer._queue if not item.entry.canceled]


def test_a_signal_wakes_the_hub(hub):
    seen = []
    previous = signal.signal(signal.SIGUSR2, lambda *_: seen.append(True))
    hub.call_later(0.05, os.kill, os.getpid(), signal.SIGUSR2)
    try:
        with loops.wake_on_signal(hub):
            start = time.monotonic()
            loops.turn(hub, 30, until=lambda: bool(seen))
        assert time.monotonic() - start < 0.9
    finally:
        signal.signal(signal.SIGUSR2, previous)


def test_another_thread_wakes_the_hub(hub):
    done = []

    def ask():
        hub.call_soon(lambda: done.append(time.monotonic()))
        loops.wake(hub)

    with loops.wake_on_signal(hub):
        start = time.monotonic()
        thread = threading.Timer(0.05, ask)
        thread.start()
        loops.turn(hub, 30, until=lambda: bool(done))
        thread.join()
    assert done[0] - start < 0.9


def test_the_wakeup_descriptor_is_put_back(hub):
    with loops.wake_on_signal(hub):
        pass

    assert signal.set_wakeup_fd(-1) == -1
