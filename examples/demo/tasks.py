"""The tasks of the demo, and the app that they belong to.

Broker and results are files in one directory: no server is needed, and nothing is lost when a process is killed.
"""

import os
import time

from celery import Celery

HOME = os.environ.get("DEMO_HOME", ".")

app = Celery("tasks", broker=f"sqlite:///{HOME}/broker.sqlite", backend=f"db+sqlite:///{HOME}/results.sqlite")
app.conf.update(broker_connection_retry_on_startup=True, result_extended=True)


@app.task
def add(x, y):
    """Return the sum."""
    return x + y


@app.task
def square(x):
    """Return the square of ``x``, slowly."""
    time.sleep(0.05)
    return x * x


@app.task(bind=True, max_retries=5, retry_backoff=False, default_retry_delay=0.2)
def unsteady(self, fails):
    """Fail ``fails`` times, then succeed; each failure asks for another try."""
    if self.request.retries < fails:
        raise self.retry(countdown=0.2, exc=ConnectionError("the line is busy"))
    return f"succeeded at try {self.request.retries + 1}"


@app.task
def divide(x, y):
    """Return the quotient; dividing by zero shows how a failure travels back."""
    return x / y
