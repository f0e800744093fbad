"""A broker that does not answer holds up no stop."""

from __future__ import annotations

import socket
import threading
from types import SimpleNamespace

import pytest

from celery.worker import impatience
from celery.worker.impatience import Impatience


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(impatience, "PATIENCE", 0.1)
    monkeypatch.setattr(impatience, "PACE", 0.01)


@pytest.fixture
def broker():
    """A server that takes connections and says nothing; gives a way to connect to it."""
    server = socket.create_server(("127.0.0.1", 0))
    opened = []

    def connect():
        client = socket.create_connection(server.getsockname())
        client.settimeout(30)
        opened.append(client)
        return client

    yield connect
    for client in (*opened, server):
        client.close()


def watched(sock, **options):
    found = Impatience(**options)
    found.note_peers(SimpleNamespace(_connection=SimpleNamespace(sock=sock)))
    return found


def test_a_wait_for_the_broker_ends_and_so_does_one_on_a_later_connection(broker, caplog):
    with watched(broker()).watching():
        assert broker().recv(1) == b""
        assert broker().recv(1) == b""
    assert [record.message for record in caplog.records] == ["The broker does not answer: stopping without it."]


def test_a_broker_that_had_its_chance_is_not_waited_for_as_long_again(broker, monkeypatch):
    found = watched(broker())
    with found.watching():
        assert broker().recv(1) == b""
    monkeypatch.setattr(impatience, "PATIENCE", 60)
    with found.watching():
        assert broker().recv(1) == b""


def test_sockets_to_others_stay(broker):
    ours, theirs = socket.socketpair()
    with ours, theirs, watched(broker()).watching():
        assert broker().recv(1) == b""
        theirs.send(b"x")
        assert ours.recv(1) == b"x"


def is_open(sock):
    sock.setblocking(False)
    try:
        return sock.recv(1) != b""
    except BlockingIOError:
        return True


def test_nothing_is_cut_while_there_is_progress_or_an_excuse(broker, monkeypatch):
    monkeypatch.setattr(impatience, "PATIENCE", 1.0)
    client, looked, clock = broker(), threading.Event(), [0.0]

    def excuse():
        looked.set()
        return True

    found = watched(client, is_excused=excuse, monotonic=lambda: clock[0])
    with found.watching():
        clock[0] = 0.9
        found.progress()
        clock[0] = 1.8
        assert not looked.wait(0.1)
        clock[0] = 2.0
        assert looked.wait(20)
    assert is_open(client)


def test_after_the_watch_everything_may_take_its_time(broker):
    client, looked, clock = broker(), threading.Event(), [0.0]
    found = watched(client, is_excused=lambda: bool(looked.set()), monotonic=lambda: clock[0])
    with found.watching():
        pass
    clock[0] = 100.0
    found.progress()
    assert not looked.wait(0.1)
    assert is_open(client)
