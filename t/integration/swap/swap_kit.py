"""Runs a program of ``programs/`` with a worker of its own and returns what it printed.

``python swap_kit.py PYTHON`` records what another interpreter's Celery prints into ``expected/``.
"""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"
NAMES = sorted(path.stem for path in PROGRAMS.glob("*.py") if "def main(" in path.read_text())

MAIN = "import sys, {0}; {0}.main(lambda *values: print(*values, flush=True))"


def run(name: str, python: str, broker: str, scratch: Path) -> str:
    """Return what the program prints; the worker's log is in ``scratch``.  The Redis database must be empty."""
    env = {
        **os.environ,
        "SWAP_BROKER": broker,
        "PYTHONPATH": str(PROGRAMS),
        "PYTHONWARNINGS": "ignore",
        "C_FORCE_ROOT": "1",
    }
    env.update(PYTHONHASHSEED="0", PYTHONDONTWRITEBYTECODE="1")
    command = [python, "-m", "celery", "-A", name, "worker", "-l", "INFO", "-c", "2", *_worker_options(name)]
    log = scratch / f"{name}.log"
    with log.open("wb") as out:
        worker = subprocess.Popen(command, env=env, cwd=scratch, stdout=out, stderr=subprocess.STDOUT)
    try:
        _wait_until_ready(log, worker)
        client = subprocess.run(
            [python, "-c", MAIN.format(name)], env=env, cwd=scratch, capture_output=True, text=True, timeout=60
        )
        assert client.returncode == 0, client.stdout + client.stderr[-3000:]
        return client.stdout
    finally:
        worker.send_signal(signal.SIGQUIT)
        worker.wait(10)


def _worker_options(name: str) -> list[str]:
    for node in ast.parse((PROGRAMS / f"{name}.py").read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "WORKER":
            return ast.literal_eval(node.value)
    return []


def _wait_until_ready(log: Path, worker: subprocess.Popen) -> None:
    until = time.monotonic() + 20
    while b" ready." not in log.read_bytes():
        assert worker.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.05)


def record(python: str) -> None:
    import redis

    url = os.environ.get("SWAP_BROKER", "redis://127.0.0.1:6379/14")
    for name in sys.argv[2:] or NAMES:
        redis.Redis.from_url(url).flushdb()
        scratch = Path("/tmp") / f"swap-record-{os.getpid()}"
        scratch.mkdir(exist_ok=True)
        (HERE / "expected" / f"{name}.txt").write_text(run(name, python, url, scratch))
        print("recorded", name)


if __name__ == "__main__":
    record(sys.argv[1])
