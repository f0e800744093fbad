"""The app and the worker process of the tests beside: ``python workerapp.py '{"pool": "prefork"}'``.

It is run as a program; ``WORKERAPP_*`` variables say where the broker, the store and the notes are.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import time

from celery import Celery
from celery.worker import state

app = Celery("workerapp", broker=os.environ["WORKERAPP_BROKER"], backend=os.environ.get("WORKERAPP_BACKEND"))
app.conf.update(json.loads(os.environ.get("WORKERAPP_CONF", "{}")))
if app.conf.security_key:
    app.setup_security()

NOTES = os.environ.get("WORKERAPP_NOTES", os.devnull)


def note(*words):
    """Append a line, in one write, to the file of notes."""
    fd = os.open(NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, (" ".join(map(str, words)) + "\n").encode())
    os.close(fd)


@app.task(name="add")
def add(x, y):
    return x + y


@app.task(name="effect")
def effect(tag, seconds=0):
    note("start", tag)
    time.sleep(seconds)
    note("end", tag)
    return tag


@app.task(name="late", acks_late=True)
def late(tag, seconds=0):
    note("start", tag)
    time.sleep(seconds)
    note("end", tag)
    return tag


@app.task(name="stamp")
def stamp():
    note("at", time.monotonic())


@app.task(name="again", bind=True)
def again(self, tag, countdown):
    """Retry once."""
    note("try", tag)
    if not self.request.retries:
        raise self.retry(countdown=countdown)
    return self.request.retries


@app.task(name="where", bind=True)
def where(self):
    """Return the routing key; a quorum queue's delayed message has binary digits in front of it."""
    return re.sub(r"^([01]\.){28}", "", self.request.delivery_info["routing_key"])


def main(options):
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s: %(levelname)s/%(processName)s] %(message)s")

    def stop(signum, frame):
        state.should_stop = 0

    def terminate(signum, frame):
        state.should_terminate = 0

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGQUIT, terminate)
    worker = app.WorkController(**options)
    worker.start()
    sys.exit(worker.exitcode or 0)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
