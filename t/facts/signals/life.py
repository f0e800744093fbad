"""A whole life, from the client's first message to the worker's end, with every signal written down.

``python life.py`` (with ``LIFE_DIRECTORY``, ``LIFE_BROKER``, ``LIFE_NAME`` and ``LIFE_ROLE=client`` set) starts a worker of whatever `celery` there is, gives it tasks of all fates one after
the other, ends it, and prints as JSON, for each kind of process, the signals in their order: name, kind of the sender and
names of the arguments.  ``recorded.json`` is what Celery 5.7.0 prints.
"""

from __future__ import annotations

import json
import os
import signal as system_signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from celery import Celery, signals
from celery.exceptions import Ignore, Reject

DIRECTORY = Path(os.environ.get("LIFE_DIRECTORY", "."))
LOG = DIRECTORY / "signals.jsonl"
PATIENCE = 60

app = Celery("life", broker=os.environ.get("LIFE_BROKER"), backend=f"file://{DIRECTORY}")
app.conf.update(
    task_default_queue=os.environ.get("LIFE_NAME", "life"),
    control_exchange=os.environ.get("LIFE_NAME", "life"),
    event_exchange=os.environ.get("LIFE_NAME", "life") + "ev",
    worker_send_task_events=True,
    broker_connection_retry_on_startup=True,
)


# -- what is written down


def kind(sender: Any) -> str:
    if sender is None:
        return "none"
    if isinstance(sender, str):
        return "name"
    if "concurrency" in type(sender).__module__ or "pool" in type(sender).__module__:
        return "pool"
    if hasattr(sender, "request_stack"):
        return "task"
    cls = sender if isinstance(sender, type) else type(sender)
    return cls.__name__


def role() -> str:
    if os.environ.get("LIFE_ROLE") == "client":
        return "client"
    return "worker" if os.getpid() == int(os.environ.get("LIFE_PID", os.getpid())) else "child"


def write_down(name: str, sender: Any, arguments: dict[str, Any]) -> None:
    line = json.dumps([role(), name, kind(sender), sorted(arguments)])
    with LOG.open("a") as log:
        log.write(line + "\n")


NAMES = sorted(name for name in [*signals.__all__, "import_modules"] if name != "setup_logging")


def connect(name: str) -> None:
    def receiver(sender: Any = None, **arguments: Any) -> None:
        arguments.pop("signal", None)
        write_down(name, sender, arguments)

    getattr(signals, name).connect(receiver, weak=False)


# the worker knows its process from the moment it reads this file
if os.environ.get("LIFE_ROLE") == "worker":
    os.environ.setdefault("LIFE_PID", str(os.getpid()))
if os.environ.get("LIFE_ROLE"):
    for _name in NAMES:
        connect(_name)


# -- tasks of all fates


@app.task(name="succeeds")
def succeeds() -> int:
    return 1


@app.task(name="fails")
def fails() -> None:
    raise KeyError("lost")


@app.task(name="retries", bind=True, max_retries=1)
def retries(self: Any) -> None:
    if not self.request.retries:
        raise self.retry(countdown=0)


@app.task(name="ignores")
def ignores() -> None:
    raise Ignore


@app.task(name="rejects", acks_late=True)
def rejects() -> None:
    raise Reject(requeue=False)


# -- the life


def lines() -> list[list[Any]]:
    return [json.loads(line) for line in LOG.read_text().splitlines()] if LOG.exists() else []


def wait_for(name: str, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while sum(line[1] == name for line in lines()) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} was not sent {count} times: {lines()}")
        time.sleep(0.02)


def live() -> dict[str, list[Any]]:
    words = [sys.executable, "-m", "celery", "-A", "life", "worker", "-c", "1", "-l", "ERROR", "-n", "w1@here"]
    environ = {**os.environ, "LIFE_ROLE": "worker", "C_FORCE_ROOT": "1"}
    with (DIRECTORY / "worker.log").open("wb") as output:
        worker = subprocess.Popen(
            [*words, "--without-mingle"], cwd=Path(__file__).parent, env=environ, stdout=output, stderr=output
        )
    try:
        wait_for("worker_ready", 1)
        succeeds.delay()
        wait_for("task_postrun", 1)
        fails.delay()
        wait_for("task_postrun", 2)
        retries.delay()
        wait_for("task_postrun", 4)
        ignores.delay()
        wait_for("task_postrun", 5)
        rejects.delay()
        wait_for("task_postrun", 6)
        succeeds.apply_async(expires=-10)
        wait_for("task_revoked", 1)
        app.send_task("nobody.knows.it")
        wait_for("task_unknown", 1)
    finally:
        worker.send_signal(system_signal.SIGTERM)
        worker.wait(PATIENCE)
    told: dict[str, list[Any]] = {}
    for process, *rest in lines():
        # heartbeats come by the clock: only the first one has its place
        if rest[0] != "heartbeat_sent" or rest not in told.get(process, []):
            told.setdefault(process, []).append(rest)
    return told


if __name__ == "__main__":
    print(json.dumps(live(), indent=1))
