"""Projects of users, with third-party programs from the index: copied, started as their README says, asked over HTTP."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

#: Seconds for which anything is waited for.
PATIENCE = 60


class Site:
    """A copy of an example in a directory of its own, and the programs that run in it."""

    def __init__(self, example: str, home: Path) -> None:
        self.home = home
        self.directory = Path(shutil.copytree(EXAMPLES / example, home / example))
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("CELERY", "PYTEST", "DJANGO"))
        }
        self.environ = {**kept, "SHOP_HOME": str(home), "C_FORCE_ROOT": "1", "PYTHONUNBUFFERED": "1"}
        self.running: list[tuple[subprocess.Popen[bytes], Path]] = []
        self.address = ""

    def run(self, *words: str) -> str:
        """Run ``python`` with these words to its end and return what it printed; it must succeed."""
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.directory,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, *words: str, until: str) -> Path:
        """Start ``python`` with these words, wait until its output has ``until``, and return the file of its output."""
        log = self.home / f"out-{len(self.running)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *words],
                cwd=self.directory,
                env=self.environ,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running.append((process, log))
        self.eventually(lambda: self._has_said(process, log, until))
        return log

    @staticmethod
    def _has_said(process: subprocess.Popen[bytes], log: Path, text: str) -> bool:
        said = log.read_text()
        assert process.poll() is None, f"{process.args} ended with status {process.returncode}:\n{said}"
        return text in said

    def serve(self, *words: str, until: str) -> None:
        """Start the web server, on a free port that stands for ``{port}`` in the words."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        self.address = f"http://127.0.0.1:{port}"
        self.start(*(word.replace("{port}", port) for word in words), until=until)

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        """Get ``path``, or post ``body`` to it; returns the status and the answer's JSON."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def eventually(self, claim: Callable[[], Any]) -> Any:
        """Return what ``claim`` returns as soon as that is true; fails if it never is."""
        deadline = time.monotonic() + PATIENCE
        while not (truth := claim()):
            if time.monotonic() > deadline:
                logs = "\n".join(f"{process.args}:\n{log.read_text()[-3000:]}" for process, log in self.running)
                pytest.fail(f"never came true\n{logs}")
            time.sleep(0.05)
        return truth

    def close(self) -> None:
        """End every program: first kindly, so that workers stop clean."""
        for process, _ in self.running:
            process.terminate()
        for process, _ in self.running:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def open_site(tmp_path: Path) -> Iterator[Callable[[str], Site]]:
    sites: list[Site] = []

    def open_it(example: str) -> Site:
        sites.append(Site(example, tmp_path))
        return sites[-1]

    yield open_it
    for site in sites:
        site.close()
