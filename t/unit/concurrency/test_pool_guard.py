"""Where a soft limit may strike."""

from __future__ import annotations

import sys
import threading
from time import monotonic

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from celery.concurrency.guard import Abandoned, SoftlyTerminated, ThreadWatch, UserCode, Watch, take_back


def test_user_code_is_interrupted():
    user_code, announced = UserCode(), []
    with pytest.raises(SoftTimeLimitExceeded), user_code:
        user_code.interrupt(lambda: announced.append(True))

    assert announced == [True]


def test_an_interrupt_before_user_code_strikes_at_its_beginning():
    user_code, announced = UserCode(), []
    user_code.interrupt(lambda: announced.append(True))
    assert announced == []
    with pytest.raises(SoftTimeLimitExceeded), user_code:
        pytest.fail("was entered")

    assert announced == [True]


@pytest.mark.parametrize("is_early", [False, True])
def test_an_interrupt_may_say_that_the_task_is_terminated(is_early):
    user_code = UserCode()
    if is_early:
        user_code.interrupt(lambda: None, SoftlyTerminated)
    with pytest.raises(SoftlyTerminated), user_code:
        user_code.interrupt(lambda: None, SoftlyTerminated)


def test_an_interrupt_after_user_code_does_not_reach_the_next_job():
    user_code = UserCode()
    with user_code:
        pass
    user_code.interrupt(lambda: pytest.fail("was raised"))
    user_code.begin()
    with user_code:
        pass


def test_the_end_of_nested_user_code_is_not_the_end_of_the_outer():
    user_code = UserCode()
    with pytest.raises(SoftTimeLimitExceeded), user_code:
        with user_code:
            pass
        user_code.interrupt(lambda: None)


def test_user_code_that_raises_has_ended():
    user_code = UserCode()
    with pytest.raises(KeyError), user_code:
        raise KeyError
    user_code.interrupt(lambda: pytest.fail("was raised"))


# -- watches: limits of jobs that share the process


def throw(error: type[BaseException]) -> None:
    raise error


@pytest.fixture
def marks():
    user_code = UserCode()
    user_code.separate()
    return user_code


def test_a_watch_raises_in_user_code_and_nowhere_else(marks):
    watch = Watch(60, None, throw)
    watch.start(monotonic())
    marks.begin(watch)
    with pytest.raises(SoftTimeLimitExceeded), marks:
        watch.interrupt(SoftTimeLimitExceeded)
    watch.interrupt(SoftTimeLimitExceeded)  # is due now

    assert watch.was_soft_raised
    with pytest.raises(SoftTimeLimitExceeded), marks:
        pytest.fail("was entered")


def test_a_limit_that_is_over_at_the_end_counts(marks):
    soft, hard = Watch(0.001, 60, throw), Watch(60, 0.001, throw)
    for watch, error in ((soft, SoftTimeLimitExceeded), (hard, Abandoned)):
        watch.start(monotonic() - 1)
        marks.begin(watch)
        with pytest.raises(error), marks:
            pass


def test_an_error_of_the_task_itself_counts_for_more_than_its_soft_limit(marks):
    watch = Watch(0.001, 60, throw)
    watch.start(monotonic() - 1)
    marks.begin(watch)
    with pytest.raises(KeyError), marks:
        raise KeyError


def test_what_is_abandoned_comes_to_no_good_end(marks):
    """A task that takes the exception for nothing does not get to store what it returns."""
    watch = Watch(None, None, throw)
    marks.begin(watch)
    with pytest.raises(Abandoned), marks:
        try:
            watch.interrupt(Abandoned)
        except Abandoned:
            pass


def test_an_interrupt_from_another_thread_never_leaves_user_code(marks):
    """However close to its beginning or end it comes."""
    astray: list[BaseException] = []
    struck = []
    present: list[ThreadWatch] = []

    def run() -> None:
        try:
            for number in range(1500):
                watch = ThreadWatch(60, None)
                watch.start(monotonic())
                marks.begin(watch)
                present[:] = [watch]
                try:
                    with marks:
                        sum(range(number % 50 * 20))
                except SoftTimeLimitExceeded:
                    struck.append(number)
                watch.close()
                for _ in range(20):
                    sum(range(20))
        except BaseException as error:
            astray.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        while thread.is_alive():
            for watch in present:
                if not watch.was_soft_raised:
                    watch.interrupt(SoftTimeLimitExceeded)
    finally:
        sys.setswitchinterval(before)
        thread.join()

    assert astray == []
    assert struck


def test_what_was_due_before_user_code_is_raised_there_and_can_be_closed(marks):
    watch = ThreadWatch(60, None)
    watch.start(monotonic())
    marks.begin(watch)
    watch.interrupt(SoftTimeLimitExceeded)
    with pytest.raises(SoftTimeLimitExceeded), marks:
        pytest.fail("was entered")
    watch.close()

    assert not watch.is_open


def test_a_closed_watch_throws_nothing(marks):
    """Also where its user code was left by an error that came on the very way out."""
    watch = ThreadWatch(60, None)
    watch.start(monotonic())
    marks.begin(watch)
    watch.open()
    watch.close()
    watch.interrupt(Abandoned)
    sum(range(100))

    assert not watch.is_open


def test_taking_back_what_was_thrown_leaves_nothing_behind():
    """Python's own way leaves a flag, with which 3.11 never ends a call that is profiled."""
    calls = []
    take_back()
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, argument: calls.append(event))
    try:
        for _ in range(100):
            (lambda: None)()
    finally:
        sys.setprofile(before)

    assert calls.count("call") >= 100  # the collector may call something, too


def test_each_thread_has_marks_of_its_own(marks):
    watch = Watch(None, None, throw)
    marks.begin(watch)
    with marks:
        other = threading.Thread(target=lambda: marks.__enter__())
        other.start()
        other.join()
    assert not watch.is_open
