"""The remote debugger, with a client at the other end of a socket."""

from __future__ import annotations

import io
import socket
import sys
import threading

import pytest

from celery.contrib import rdb

PROMPT = b"(Pdb) "


class Session(threading.Thread):
    """Connects, and sends one command for each prompt; ``answers`` is what came before each."""

    def __init__(self, port, *commands):
        super().__init__(daemon=True)
        self.port, self.commands, self.answers = port, commands, []

    def run(self):
        connection = self.connect()
        with connection:
            for command in self.commands:
                self.answers.append(self.read(connection))
                connection.sendall(command.encode() + b"\n")
            self.answers.append(self.read(connection))

    def connect(self):
        for _ in range(1000):
            try:
                return socket.create_connection(("127.0.0.1", self.port), timeout=20)
            except ConnectionRefusedError:
                threading.Event().wait(0.01)
        raise AssertionError("nobody listens")

    @staticmethod
    def read(connection):
        found = b""
        while not found.endswith(PROMPT):
            try:
                data = connection.recv(4096)
            except ConnectionResetError:
                break
            if not data:
                break
            found += data
        return found.decode()


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def talk(port, monkeypatch):
    """``talk(commands)``: debug a small function; returns the session, what was said, and the function's value."""
    # The tests are traced themselves where coverage is measured.
    before = sys.gettrace()
    yield lambda *commands: _talk(port, monkeypatch, commands)
    sys.settrace(before)


def _talk(port, monkeypatch, commands):
    out = io.StringIO()
    session = Session(port, *commands)
    session.start()
    monkeypatch.setattr(rdb, "_current", rdb.Rdb(port=port, port_search_limit=1, out=out))
    value = debugged()
    sys.settrace(None)
    session.join(20)
    assert not session.is_alive()
    return session, out.getvalue(), value


def debugged():
    number = 41
    rdb.set_trace()
    number += 1
    return number


def test_it_tells_where_to_connect_and_who_did(talk, port):
    _, said, _ = talk("c")

    assert f"Remote Debugger:{port}: Ready to connect: telnet 127.0.0.1 {port}\n" in said
    assert f"Remote Debugger:{port}: Now in session with 127.0.0.1:" in said
    assert said.endswith(" ended.\n")


def test_one_looks_around_and_steps(talk):
    to_the_next_line = ["next"] if sys.version_info >= (3, 13) else []  # where older ones stop at once
    session, _, value = talk(*to_the_next_line, "p number * 2", "!number = 1", "next", "p number", "continue")
    answers = session.answers[len(to_the_next_line) :]

    assert "number += 1" in answers[0]
    assert answers[1].startswith("82")
    assert "return number" in answers[3]
    assert answers[4].startswith("2")
    assert value == 2


@pytest.mark.parametrize("command", ["c", "cont", "continue", "q", "quit", "exit", "EOF"])
def test_however_the_session_ends_the_program_goes_on(talk, command):
    stdin, stdout = sys.stdin, sys.stdout
    _, _, value = talk(command)

    assert value == 42
    assert (sys.stdin, sys.stdout) == (stdin, stdout)


def test_a_client_that_hangs_up_ends_the_session(talk):
    _, said, value = talk()

    assert value == 42
    assert said.endswith(" ended.\n")


def test_a_port_that_is_taken_is_passed_over(port):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        session = Session(port + 1, "c")
        session.start()
        with rdb.Rdb(port=port, out=io.StringIO()) as debugger:
            assert debugger.port > port
            if debugger.port != port + 1:
                pytest.skip("somebody else has that port")
        session.join(20)
        with pytest.raises(OSError, match="CELERY_RDB_PORT"):
            rdb.Rdb(port=port, port_search_limit=1, out=io.StringIO())


def test_worker_processes_have_ports_of_their_own(port, monkeypatch):
    class Process:
        name = "ForkPoolWorker-3"

    monkeypatch.setattr(rdb, "current_process", Process)
    listener, found = rdb.Rdb.get_avail_port(rdb.Rdb.__new__(rdb.Rdb), "127.0.0.1", port, skew=10)
    listener.close()

    assert found >= port + 13


def test_host_and_port_come_from_the_environment():
    import os
    import subprocess

    code = "from celery.contrib import rdb; print(rdb.CELERY_RDB_HOST, rdb.CELERY_RDB_PORT, rdb.DEFAULT_PORT)"
    env = {**os.environ, "CELERY_RDB_HOST": "10.0.0.1", "CELERY_RDB_PORT": "7000"}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)

    assert found.stdout.split() == ["10.0.0.1", "7000", "6899"]
