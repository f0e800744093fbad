"""Tasks of the chord scenarios; a worker imports them by the setting ``imports``.

A body that runs leaves a line ``label id redelivered`` in ``bodies``, an errback ``label id error`` in ``errbacks``.
"""

import os
import signal
import time

from faultapp import DIRECTORY, app

from celery.exceptions import Ignore, Reject


def note(name, *words):
    """Append one line with one write."""
    file = os.open(os.path.join(DIRECTORY, name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, (" ".join(map(str, words)) + "\n").encode())
    os.close(file)


@app.task
def member(value, seconds=0.0):
    if seconds:
        time.sleep(seconds)
    return value


@app.task
def add(*values):
    return sum(values)


@app.task(bind=True)
def trouble(self, how):
    """Come to no good end."""
    if how == "fails":
        raise ValueError(how)
    if how == "refuses":
        raise Reject(how, requeue=False)
    if how == "ignores":
        self.update_state(state="FAILURE", meta=ValueError(how))
        raise Ignore
    if how == "kills the worker":
        time.sleep(0.2)  # as a task that is killed by somebody else
        os.killpg(os.getpgid(0), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(acks_late=False, reject_on_worker_lost=False)
def hasty_trouble(how):
    """Come to no good end, acknowledged early."""
    trouble.run(how)


@app.task(bind=True)
def joined(self, values, label):
    """The body of a chord."""
    note("bodies", label, self.request.id, bool(self.request.delivery_info.get("redelivered")))
    return sum(values) if values and isinstance(values[0], int) else len(values)


@app.task
def told(request, exc, traceback, label):
    """The errback of a chord's body."""
    note("errbacks", label, request.id, type(exc).__name__)
