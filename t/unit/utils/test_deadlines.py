"""Until when a thread may wait."""

from __future__ import annotations

import threading

from celery.utils.deadlines import SHORTEST_WAIT, current, deadline, seconds_left


def test_without_a_deadline_a_wait_is_as_long_as_usual():
    assert seconds_left(7.0) == 7.0


def test_a_deadline_bounds_what_is_done_before_it_and_ends_with_its_context():
    with deadline(60):
        assert seconds_left(7.0) == 7.0
        assert 50 < seconds_left(600.0) <= 60
        with deadline(0):
            assert seconds_left(7.0) == SHORTEST_WAIT
        assert seconds_left(7.0) == 7.0
    assert current.ends_at is None


def test_other_threads_have_their_own():
    found = []
    with deadline(0):
        thread = threading.Thread(target=lambda: found.append(seconds_left(7.0)))
        thread.start()
        thread.join()
    assert found == [7.0]
