"""Run the examples of one page of the documentation: ``python t/docs/page.py PAGE`` in an empty directory.

A page is read from top to bottom:

- a ``python`` block whose first line is ``# name.py`` is written to that file, after what an earlier block wrote there;
- a ``python`` block with prompts (``>>>``) is a session: what it prints must be what the page shows;
- any other ``python`` block is run; sessions and such blocks of a page share their names;
- in a ``console`` block a line ``$ command`` is run, and must print the lines below it; a command that ends with ``&`` goes on until
  the page ends, and the page goes on as soon as the lines below it were printed;
- blocks of other kinds (``sh``, ``text``, ``ini``) are not run.

``...`` stands for anything, in a line and for lines.  ``redis://localhost`` stands for a database of the Redis of the tests, emptied
before.
"""

from __future__ import annotations

import doctest
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

#: Seconds for which a command may run, or what it prints is waited for.
PATIENCE = 60

BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (?P<path>[\w/.-]+\.(?:py|ini|toml|cfg))\n")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Page:
    """A page that runs in the current directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: dict[str, Any] = {"__name__": "__page__"}
        self.programs: list[tuple[subprocess.Popen[bytes], Path]] = []
        sys.path.insert(0, os.getcwd())

    def run(self) -> int:
        """Run every block; returns how many there were."""
        text = self.path.read_text()
        if "redis://localhost" in text:
            text = text.replace("redis://localhost", empty_redis())
        count = 0
        try:
            for block in BLOCK.finditer(text):
                line = text.count("\n", 0, block.start()) + 1
                count += self._run_block(block["kind"], block["text"], f"{self.path.name}:{line}")
        finally:
            self._end_programs()
        return count

    def _run_block(self, kind: str, text: str, where: str) -> bool:
        if kind == "console":
            self._run_console(text, where)
        elif kind != "python":
            return False
        elif named := FILE.match(text):
            path = Path(named["path"])
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(text[named.end() :])
        elif text.startswith(">>>"):
            self._run_session(text, where)
        else:
            exec(compile(text, where, "exec"), self.names)
        return True

    def _run_session(self, text: str, where: str) -> None:
        test = doctest.DocTestParser().get_doctest(text, self.names, where, str(self.path), 0)
        runner = doctest.DocTestRunner(optionflags=FLAGS)
        if runner.run(test, clear_globs=False).failed:
            sys.exit(f"{where}: the session does not print what the page shows")
        self.names = test.globs

    def _run_console(self, text: str, where: str) -> None:
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            if command.endswith("&"):
                self._start(command.removesuffix("&"), expected, where)
                continue
            done = subprocess.run(
                command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE
            )
            if not matches(expected, done.stdout):
                sys.exit(f"{where}: `{command}` printed (status {done.returncode})\n{done.stdout}\nwanted\n{expected}")

    def _start(self, command: str, expected: str, where: str) -> None:
        log = Path(f".program-{len(self.programs)}.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                f"exec {command}", shell=True, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.programs.append((process, log))
        deadline = time.monotonic() + PATIENCE
        while not matches(f"...{expected.strip()}...", log.read_text()):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{where}: `{command}` printed\n{log.read_text()}\nwanted\n{expected}")
            time.sleep(0.05)

    def _end_programs(self) -> None:
        for process, _ in reversed(self.programs):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                sys.exit(f"{process.args} does not stop")


def empty_redis() -> str:
    """Empty the database for pages and return its URL."""
    import redis

    url = os.environ.get("TEST_REDIS_URL", "redis://localhost:6379") + "/13"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


def matches(expected: str, printed: str) -> bool:
    """Whether ``printed`` is what the page shows; no lines below a command mean that they do not matter."""
    expected = re.sub(r"\s*\n\s*\.\.\.\s*$", "...", expected)  # "anything" at the end may be nothing
    return not expected.strip() or doctest.OutputChecker().check_output(expected, printed, FLAGS)


if __name__ == "__main__":
    print(Page(Path(sys.argv[1]).resolve()).run(), "blocks")
