"""What comes in floods has a share of the loop's time, with a clock and a loop that the test turns."""

from __future__ import annotations

import pytest

from celery.worker.intake import LONGEST_REST_SECONDS, SHARE, SHORTEST_REST_SECONDS, Intake


class Loop:
    """A hub with timers only, and its clock."""

    def __init__(self):
        self.now = 0.0
        self.timers = []
        self.is_busy = True

    def __call__(self):
        return self.now

    def call_later(self, seconds, callback):
        timer = Timer(self.now + seconds, callback)
        self.timers.append(timer)
        return timer

    def turn(self, seconds):
        """Let time pass, and call what is due."""
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.at <= end and not timer.is_cancelled]:
            first = min(due, key=lambda timer: timer.at)
            self.timers.remove(first)
            self.now = max(self.now, first.at)
            first.callback()
        self.now = max(self.now, end)


class Timer:
    def __init__(self, at, callback):
        self.at, self.callback, self.is_cancelled = at, callback, False

    def cancel(self):
        self.is_cancelled = True


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def done():
    return []


@pytest.fixture
def intake(loop, done):
    """Each thing is a number of milliseconds that it takes."""

    def deal(milliseconds):
        loop.now += milliseconds / 1000
        done.append(milliseconds)

    return Intake(deal, lambda: loop.is_busy, loop, loop)


def test_the_first_is_dealt_with_at_once(intake, done):
    intake.add(0.2)
    assert done == [0.2]


def test_a_few_are_dealt_with_soon(loop, intake, done):
    for _ in range(100):
        intake.add(0.3)
    loop.turn(0.05)
    assert len(done) == 100


def test_while_tasks_run_a_flood_has_a_tenth_of_the_time(loop, intake, done):
    for _ in range(2000):
        intake.add(0.3)
    loop.turn(3)
    assert sum(done) == pytest.approx(3000 * SHARE + 50, abs=5)
    assert len(intake) == 2000 - len(done)


def test_with_tasks_that_come_a_flood_gives_way(loop, intake, done):
    loop.is_busy = False
    for _ in range(20_000):
        intake.add(0.3)
    loop.turn(1)
    loop.is_busy = True
    before = sum(done)
    loop.turn(1)
    assert sum(done) - before < 1000 * SHARE + 5


def test_with_nothing_else_to_do_it_has_nearly_all(loop, intake, done):
    loop.is_busy = False
    for _ in range(2000):
        intake.add(0.3)
    loop.turn(0.5)
    assert sum(done) > 400


def test_all_is_dealt_with_in_its_order(loop, intake, done):
    things = [0.1 + number / 1000 for number in range(300)]
    for thing in things[:200]:
        intake.add(thing)
    loop.turn(0.05)
    for thing in things[200:]:
        intake.add(thing)
    loop.turn(10)
    assert done == things
    assert not [timer for timer in loop.timers if timer.at > loop.now]  # an idle loop sleeps


def test_one_that_takes_long_lets_the_next_wait_for_a_moment_only(loop, intake, done):
    intake.add(2000)
    intake.add(1)
    loop.turn(LONGEST_REST_SECONDS)
    assert done == [2000, 1]


def test_after_one_that_took_no_time_the_next_need_not_wait(loop, intake, done):
    intake.add(0)
    intake.add(0)
    loop.turn(SHORTEST_REST_SECONDS)
    assert done == [0, 0]


def test_what_comes_while_another_is_dealt_with_waits_for_its_end(loop):
    order = []

    def deal(name):
        order.append(f"{name} begins")
        if name == "first":
            intake.add("second")
        order.append(f"{name} ends")

    intake = Intake(deal, lambda: True, loop, loop)
    intake.add("first")
    loop.turn(1)
    assert order == ["first begins", "first ends", "second begins", "second ends"]


def test_an_error_passes_and_those_behind_are_dealt_with(loop, done):
    def deal(number):
        done.append(number)
        if number == 2:
            raise ValueError(number)

    intake = Intake(deal, lambda: True, loop, loop)
    for number in (1, 2, 3):
        intake.add(number)
    with pytest.raises(ValueError, match="2"):
        loop.turn(1)
    loop.turn(1)
    assert done == [1, 2, 3]


def test_without_a_loop_each_is_dealt_with_at_once(done):
    intake = Intake(done.append, lambda: True)
    for number in range(5):
        intake.add(number)
    assert done == list(range(5))


def test_what_was_cleared_is_not_dealt_with(loop, intake, done):
    for _ in range(10):
        intake.add(5)
    assert intake.clear() == 9
    loop.turn(10)
    assert done == [5]
    intake.add(1)
    assert done == [5, 1]
