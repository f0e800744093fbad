"""The program ``celery``, run as users run it: in a project directory, in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

#: Seconds for which anything is waited for.
PATIENCE = 60

#: Stands where a secret would; it must not be in any output.
SECRET = "c4n4ry"

PROJECT = """
from celery import Celery

app = Celery("proj", broker="sqlite:///broker.db", backend="file://{results}")
app.conf.broker_transport_options = {{"polling_interval": 0.02}}


@app.task
def add(x, y=1):
    return x + y


@app.task
def sleepy(seconds, mark=None):
    import pathlib, time

    if mark:
        pathlib.Path(mark).touch()
    time.sleep(seconds)
    return seconds


@app.task
def boom():
    raise KeyError("lost")
"""


@dataclass
class Ran:
    """What a program left."""

    status: int
    stdout: str
    stderr: str

    @property
    def first_line(self) -> str:
        """The first line on stderr that is about this call: usage is always the same."""
        lines = [line for line in self.stderr.splitlines() if line and not line.startswith(("Usage:", "Try '"))]
        return lines[0] if lines else ""


class Project:
    """A directory with the module ``proj``, and the program in it."""

    def __init__(self, path: Path, forking: Forking) -> None:
        self.path = path
        self.forking = forking
        self.running: list[subprocess.Popen[str]] = []
        (path / "results").mkdir()
        self.write("proj.py", PROJECT.format(results=path / "results"))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY", "PYTEST"))}
        self.environ = {**kept, "C_FORCE_ROOT": "1", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    def write(self, name: str, text: str) -> Path:
        file = self.path / name
        file.write_text(text)
        return file

    def celery(self, *words: str, env: dict[str, str] | None = None) -> Ran:
        """Run the program to its end."""
        return self.forking.run(words, self.path, {**self.environ, **(env or {})})

    def python(self, code: str) -> Ran:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.path,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str, until: str = r" ready\.", env: dict[str, str] | None = None) -> Program:
        """Start a worker (or another program of that kind) and wait until its output has ``until``."""
        log = self.path / f"out-{len(self.running)}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", *words],
                cwd=self.path,
                env={**self.environ, **(env or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self.running.append(process)
        program = Program(process, log)
        program.wait_for(until)
        return program

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.wait()


class Forking:
    """Runs commands in forks of one process; see ``forking.py``."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forking.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, words: tuple[str, ...], path: Path, environ: dict[str, str]) -> Ran:
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps([words, str(path), environ]), file=self.process.stdin, flush=True)
        return Ran(*json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        self.process.communicate()


class Program:
    """A program that runs."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait_for(self, pattern: str) -> None:
        wait_until(
            lambda: re.search(pattern, self.output) or self.process.poll() is not None, f"{pattern} in {self.log}"
        )
        assert re.search(pattern, self.output), self.output

    def send(self, *names: str) -> None:
        for name in names:
            os.kill(self.process.pid, getattr(signal, name))

    def end(self) -> int:
        """Wait for the end, and return the status."""
        return self.process.wait(PATIENCE)


def wait_until(claim, what="it"):
    deadline = time.monotonic() + PATIENCE
    while not (value := claim()):
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s"
        time.sleep(0.02)
    return value


@pytest.fixture(scope="session")
def forking():
    forking = Forking()
    yield forking
    forking.close()


@pytest.fixture
def project(tmp_path, forking):
    project = Project(tmp_path, forking)
    yield project
    project.close()


@pytest.fixture(scope="module")
def shared_project(tmp_path_factory, forking):
    """A project for tests that leave nothing behind."""
    project = Project(tmp_path_factory.mktemp("project"), forking)
    yield project
    project.close()


@pytest.fixture(name="wait_until")
def wait_until_fixture():
    return wait_until


@pytest.fixture
def secret():
    return SECRET


@pytest.fixture
def matches():
    """``matches(pattern, line)`` from the line's start."""
    return re.match
