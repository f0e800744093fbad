"""Who waits for a store that is away gives up soon in a process that stops."""

from __future__ import annotations

from time import monotonic

from celery.utils.stopping import PATIENCE_SECONDS, Stopping


def test_a_process_that_goes_on_does_not_give_up():
    stopping = Stopping()

    assert not stopping
    assert not stopping.gives_up(monotonic() - 3600)


def test_what_is_tried_gets_a_little_time_after_the_stop_began_and_then_none():
    stopping = Stopping()
    stopping.begin()
    long_ago = monotonic() - 3600

    assert not stopping.gives_up(long_ago)
    stopping._since -= PATIENCE_SECONDS
    assert stopping.gives_up(long_ago)
    assert stopping.gives_up(monotonic())  # once is enough for all


def test_a_sign_says_that_it_stops():
    stopping = Stopping()
    signs = [False, True]
    stopping.sign = lambda: signs[0]

    assert not stopping
    signs.pop(0)
    assert stopping
    stopping.forget()
    stopping.sign = lambda: False
    assert not stopping
