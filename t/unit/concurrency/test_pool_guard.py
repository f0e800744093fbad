"""Where a soft limit may strike."""

from __future__ import annotations

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from celery.concurrency.guard import UserCode


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
