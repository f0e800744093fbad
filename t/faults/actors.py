"""The processes of a scenario: workers and publishers, each in a session of its own so that it dies alone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from servers import wait_until

HERE = Path(__file__).resolve().parent
#: The clone that we are part of: what is tested is what lies beside us.
ROOT = HERE.parent.parent


#: For workers that need not know their neighbours.
QUICK_START = ("--without-mingle", "--without-gossip")

#: The Celery release we are compared with and mixed with, where there is one.
PEER_PYTHON = os.environ.get("PEER_PYTHON", "")


def environment(directory: Path, broker: str, backend: str = "", conf: dict[str, Any] | None = None) -> dict[str, str]:
    """Return the environment in which the fault app finds its broker and its files."""
    return {
        **os.environ,
        "FAULT_DIR": str(directory),
        "FAULT_BROKER": broker,
        "FAULT_BACKEND": backend,
        "FAULT_CONF": json.dumps(conf or {}),
        "PYTHONPATH": f"{HERE}{os.pathsep}{ROOT}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def memory_of(pid: int, field: str = "VmRSS") -> int:
    """Return a figure of ``/proc/PID/status`` in bytes; 0 for a process that has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


class Memory:
    """What the processes of a worker took at most since this was made, beyond what they took then."""

    def __init__(self, worker: Worker) -> None:
        self.worker, self.base = worker, {pid: memory_of(pid) for pid in (worker.pid, *worker.children())}

    def peak(self) -> int:
        """Return the bytes of the one that took most; all must still be there."""
        return max(memory_of(pid, "VmHWM") - base for pid, base in self.base.items())


class Actor:
    """A process with a log file, in its own process group."""

    def __init__(self, name: str, command: list[str], env: dict[str, str], directory: Path) -> None:
        if command[0] == PEER_PYTHON:
            env = {**env, "PYTHONPATH": str(HERE)}  # its own package, not ours
        self.name, self.command, self.env, self.directory = name, command, env, directory
        self.log = directory / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        #: Where the log of its present life begins.
        self.mark = 0
        self.cwd = HERE
        self.start()

    def start(self) -> None:
        self.mark = len(self.text())
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.env, cwd=HERE, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def is_running(self) -> bool:
        assert self.process is not None
        return self.process.poll() is None

    def signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def kill_group(self) -> None:
        """SIGKILL to the process and all that it started."""
        assert self.process is not None
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def wait(self, seconds: float) -> int:
        """Return the exit status; raises `subprocess.TimeoutExpired`."""
        assert self.process is not None
        return self.process.wait(timeout=seconds)

    def _children(self) -> Iterator[tuple[int, str]]:
        """Yield id and state of each direct child."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    state, parent, *_ = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                except OSError:
                    continue
                if int(parent) == self.pid:
                    yield int(entry.name), state

    def children(self) -> list[int]:
        """Return the ids of the living direct children."""
        return [pid for pid, state in self._children() if state != "Z"]

    def zombies(self) -> list[int]:
        """Return the ids of children that have ended for good and are not waited for."""
        suspects = {pid for pid, state in self._children() if state == "Z"}
        if suspects:
            time.sleep(0.5)
        return [pid for pid, state in self._children() if state == "Z" and pid in suspects]

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def open_files(self) -> Counter[str]:
        """Return how often each file is open; a TCP socket is told by its peer's port and its state."""
        sockets = {}
        for line in Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]:
            _, _, peer, state, *rest = line.split()
            sockets[f"socket:[{rest[5]}]"] = f"tcp to {int(peer.partition(':')[2], 16)} in state {state}"
        found: Counter[str] = Counter()
        for fd in os.listdir(f"/proc/{self.pid}/fd"):
            with contextlib.suppress(OSError):  # closed meanwhile
                name = os.readlink(f"/proc/{self.pid}/fd/{fd}")
                found[sockets.get(name, name.partition("[")[0])] += 1
        return found

    def memory(self, field: str = "VmRSS") -> int:
        """Return a figure of ``/proc/PID/status`` in bytes."""
        return memory_of(self.pid, field)


class Worker(Actor):
    """A worker of ours, or of the peer's with ``python=PEER_PYTHON``."""

    def __init__(
        self, env: dict[str, str], directory: Path, *options: str, name: str = "w1", python: str = sys.executable
    ) -> None:
        command = [python, "-m", "celery", "-A", "faultapp", "worker", "-n", f"{name}@t", "-l", "INFO", *options]
        if not any(option.startswith(("-c", "--concurrency")) for option in options):
            command += ["-c", "2"]
        super().__init__(name, command, env, directory)

    def wait_ready(self, seconds: float = 30) -> None:
        """Wait for the line that says that the worker consumes."""
        wait_until(
            lambda: " ready." in self.text()[self.mark :] or not self.is_running(), seconds, f"{self.name} to be ready"
        )
        if not self.is_running():
            raise RuntimeError(f"{self.name} ended at its start:\n{self.text()[-3000:]}")

    def pings(self) -> int:
        """Return how many workers answer a ping on its broker."""
        command = [self.command[0], "-m", "celery", "-A", "faultapp", "inspect", "ping", "-t", "3"]
        result = subprocess.run(
            command, env=self.env, cwd=self.cwd, capture_output=True, text=True, timeout=30, check=False
        )
        return result.stdout.count("pong")

    def restart(self) -> None:
        """Kill it with all its children and start it again."""
        self.kill_group()
        self.start()


class Publisher(Actor):
    """Sends ``count`` tasks, one by one."""

    def __init__(
        self,
        env: dict[str, str],
        directory: Path,
        task: str,
        count: int,
        *arguments: Any,
        name: str = "publisher",
        python: str = sys.executable,
    ) -> None:
        command = [python, "publisher.py", task, str(count), *map(str, arguments)]
        super().__init__(name, command, env, directory)


def wait_for_progress(path: Path, seconds: float, size: int | None = None) -> bool:
    """Return true as soon as ``path`` grows (beyond ``size``), false after ``seconds``."""
    if size is None:
        size = path.stat().st_size if path.exists() else 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.exists() and path.stat().st_size > size:
            return True
        time.sleep(0.02)
    return False
