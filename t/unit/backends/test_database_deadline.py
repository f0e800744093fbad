"""A database that does not answer is not waited for without end."""

from __future__ import annotations

import socket
import time

import pytest

pytest.importorskip("sqlalchemy")

from sqlalchemy.exc import TimeoutError

from celery.backends.database.deadline import Deadlines


@pytest.fixture
def connection():
    """A connection to a server that never answers."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours


def wait_for_answer(connection):
    if not connection.recv(1):
        raise ConnectionError("the server closed the connection")


def test_who_waits_for_too_long_is_told_so(connection):
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"did not answer within 0\.05 s"), Deadlines().bound(connection, 0.05):
        wait_for_answer(connection)
    assert time.monotonic() - began < 10


def test_a_later_wait_may_be_shorter(connection):
    deadlines = Deadlines()
    first, second = socket.socketpair()
    with first, second, deadlines.bound(first, 60), pytest.raises(TimeoutError):
        with deadlines.bound(connection, 0.05):
            wait_for_answer(connection)


def test_other_errors_stay_what_they_are(connection):
    with pytest.raises(ZeroDivisionError), Deadlines().bound(connection, 60):
        1 / 0


def test_who_is_done_in_time_keeps_the_connection(connection):
    deadlines = Deadlines()
    with deadlines.bound(connection, 0.02):
        pass
    with deadlines.bound(connection, 0.1):
        time.sleep(0.05)
    connection.send(b"still there")


def test_a_driver_without_a_socket_is_left_alone():
    with Deadlines().bound(object(), 0.0):
        pass
