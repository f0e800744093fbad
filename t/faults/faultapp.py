"""The app of the fault scenarios: tasks whose every execution leaves a line behind.

``FAULT_DIR`` holds the oracle's files, ``FAULT_BROKER`` and ``FAULT_BACKEND`` the URLs, ``FAULT_CONF`` settings as JSON.
"""

import json
import os
import signal
import time

from celery import Celery

DIRECTORY = os.environ.get("FAULT_DIR", "/tmp")
app = Celery("faultapp", broker=os.environ.get("FAULT_BROKER"), backend=os.environ.get("FAULT_BACKEND") or None)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=not os.environ.get("FAULT_BACKEND"),
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
)
app.conf.update(json.loads(os.environ.get("FAULT_CONF", "{}")))

_effects: dict[int, int] = {}


def record(*words: object) -> None:
    """Append one line to the effects with one write, so that concurrent processes never mix theirs."""
    pid = os.getpid()
    if pid not in _effects:
        _effects.clear()
        _effects[pid] = os.open(os.path.join(DIRECTORY, "effects"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(_effects[pid], (" ".join(map(str, words)) + "\n").encode())


@app.task(bind=True)
def effect(self, seconds=0.001):
    """Take ``seconds``, and leave a line: id, pid, start and end in ns of the monotonic clock, attempt."""
    start = time.monotonic_ns()
    record("begin", self.request.id, os.getpid(), start)
    if seconds:
        time.sleep(seconds)
    record("end", self.request.id, os.getpid(), start, time.monotonic_ns(), self.request.retries)


@app.task(bind=True)
def poison(self, signum=int(signal.SIGKILL)):
    """Kill the process that runs it."""
    record("begin", self.request.id, os.getpid(), time.monotonic_ns())
    os.kill(os.getpid(), signum)
    time.sleep(10)


@app.task(bind=True)
def blob(self, payload):
    """Take a payload of any size and return its length."""
    record("end", self.request.id, os.getpid(), time.monotonic_ns(), time.monotonic_ns(), 0)
    return len(payload)
