"""``celery events`` on a terminal: a real one, whose screen is read."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

pyte = pytest.importorskip("pyte")

PATIENCE = 60


class Terminal:
    """A terminal with a program in it."""

    def __init__(self, words, columns=120, lines=24, **options):
        self.screen = pyte.Screen(columns, lines)
        self.stream = pyte.ByteStream(self.screen)
        self.fd, slave = pty.openpty()
        self._set_size(columns, lines)
        self.process = subprocess.Popen(
            words, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), **options,
        )  # fmt: skip
        os.close(slave)

    def _set_size(self, columns, lines):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns, lines):
        self.screen.resize(lines, columns)
        self._set_size(columns, lines)
        os.kill(self.process.pid, signal.SIGWINCH)

    def press(self, keys):
        os.write(self.fd, keys.encode())

    def read(self, seconds=0.05):
        """Take in what the program writes."""
        while select.select([self.fd], [], [], seconds)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:  # the program has ended
                return
            if not data:
                return
            self.stream.feed(data)

    @property
    def text(self):
        return "\n".join(line.rstrip() for line in self.screen.display)

    def wait_for(self, pattern, *, gone=False):
        deadline = time.monotonic() + PATIENCE
        while bool(re.search(pattern, self.text)) == gone:
            assert time.monotonic() < deadline, f"{pattern}\n{self.text}"
            self.read()

    def color_of(self, text):
        """The colour in which ``text`` is drawn, where it is first."""
        for number, line in enumerate(self.screen.display):
            if text in line:
                return self.screen.buffer[number][line.index(text)].fg
        raise AssertionError(f"{text} is not shown:\n{self.text}")

    def end(self):
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.text
            self.read()
        self.read()
        return self.process.returncode

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.fd)


@pytest.fixture
def terminal(project):
    made = []

    def make(*words, **size):
        env = {**project.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8"}
        terminal = Terminal([sys.executable, "-m", "celery", *words], cwd=project.path, env=env, **size)
        made.append(terminal)
        return terminal

    yield make
    for terminal in made:
        terminal.close()


def test_tasks_and_workers_are_watched_and_steered(project, terminal):
    worker = project.start("-A", "proj", "worker", "-E", "-P", "solo", "-n", "w1@here", "-l", "INFO")
    screen = terminal("-A", "proj", "events")
    screen.wait_for(r"Workers online: w1@here")

    def call(name, *args):
        return project.celery("-A", "proj", "call", name, "-a", json.dumps(args)).stdout.strip()

    failed, done = call("proj.boom"), call("proj.add", 20, 22)
    screen.wait_for(rf"{done[:8]}.* proj\.add .*w1@here .*SUCCESS")
    screen.wait_for(rf"{failed[:8]}.* proj\.boom .*FAILURE")
    screen.wait_for(r"1 succeeded  1 failed")
    assert (screen.color_of("SUCCESS"), screen.color_of("FAILURE")) == ("green", "red")

    screen.press("/")
    screen.wait_for("Show only tasks with:")
    screen.press("boom\r")
    screen.wait_for(rf"{done[:8]}", gone=True)
    screen.press("j")
    screen.wait_for(r"Selected: proj\.boom")
    screen.press("t")
    screen.wait_for(rf"Traceback of {failed}(?s:.*)KeyError: 'lost'")
    screen.press("q")
    screen.press("i")
    screen.wait_for(r"exception KeyError\('lost'\)")
    screen.press("q")
    screen.press("r")
    screen.wait_for(r"(?s)Result of .*state FAILURE.*result KeyError\('lost'\)")
    screen.press("q")

    screen.press("l")
    screen.wait_for(r"Rate limit of proj\.boom")
    screen.press("5/m\r")
    screen.wait_for(r"w1@here: new rate limit set successfully")
    screen.press("q")
    screen.press("c")
    screen.wait_for(r"Revoke proj\.boom")
    screen.press("y\r")
    screen.wait_for(rf"w1@here: tasks .*{failed[:8]}.* flagged as revoked")
    screen.press("q")

    screen.press("w")
    screen.wait_for(r"WORKER +STATUS(?s:.*)w1@here +ONLINE")
    worker.send("SIGTERM")
    worker.end()
    screen.wait_for(r"Workers online: none")
    screen.press("q")
    assert screen.end() == 0


def test_it_fits_into_small_terminals_and_takes_new_sizes(project, terminal):
    worker = project.start("-A", "proj", "worker", "-E", "-P", "solo", "-n", "w1@here", "-l", "INFO")
    screen = terminal("-A", "proj", "events", columns=60, lines=12)
    screen.wait_for(r"celery events .*tasks/s")
    screen.wait_for(r"workers 1/1")
    project.celery("-A", "proj", "call", "proj.add", "-a", "[1]")
    screen.wait_for(r"proj\.add .*SUCCESS")
    for columns, lines in ((20, 4), (3, 1), (200, 50), (40, 8)):
        screen.resize(columns, lines)
        screen.read(0.5)
        assert screen.process.poll() is None, screen.text
    screen.wait_for(r"proj\.add .*SUCCESS")
    worker.send("SIGTERM")
    worker.end()
    screen.press("\x03")
    assert screen.end() == 0


def test_escape_leaves_a_page_at_once(project, terminal):
    screen = terminal("-A", "proj", "events")
    screen.wait_for(r"celery events .*tasks/s")
    waits = []
    for _ in range(3):  # of a busy machine's times the best counts
        screen.press("h")
        screen.wait_for(r"any key: back")
        begun = time.monotonic()
        screen.press("\x1b")
        screen.wait_for(r"any key: back", gone=True)
        waits.append(time.monotonic() - begun)
    screen.press("q")

    assert min(waits) < 0.7, waits


def test_without_a_terminal_or_a_broker_there_is_a_line(project):
    ran = project.celery("-A", "proj", "events")
    assert (ran.status, "The monitor needs a terminal" in ran.stderr) == (2, True)


def test_a_broker_that_does_not_answer_is_told_before_the_screen_is_taken(project, terminal):
    screen = terminal("-A", "proj", "-b", "redis://127.0.0.1:1", "events")
    assert screen.end() == 69
    assert "Cannot reach redis at 127.0.0.1:1" in screen.text
