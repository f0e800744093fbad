"""A whole worker on a broker in memory, in a thread of this process."""

from __future__ import annotations

import threading
import time
import uuid
from contextlib import contextmanager

import pytest

from celery import Celery
from celery.worker import state

#: Seconds for which anything is waited for.
PATIENCE = 10


def wait_until(claim, seconds=PATIENCE):
    """Wait until ``claim()`` is true, and return what it returned."""
    deadline = time.monotonic() + seconds
    while not (value := claim()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.005)
    return value


@pytest.fixture
def app():
    app = Celery(f"unit{uuid.uuid4().hex[:6]}", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.update(
        task_default_queue=f"q-{uuid.uuid4().hex[:8]}", broker_transport_options={"polling_interval": 0.005}
    )
    yield app
    app.close()


@pytest.fixture
def fresh_state():
    """No test sees what another left in the worker's state."""
    state.reset_state()
    yield
    state.reset_state()


@contextmanager
def running(app, **options):
    """Have a worker run; yields the controller."""
    state.reset_state()
    is_ready = threading.Event()
    options = {"pool": "threads", "concurrency": 2, "hostname": "w1@test", "without_mingle": True, **options}
    worker = app.WorkController(ready_callback=lambda consumer: is_ready.set(), **options)
    thread = threading.Thread(target=worker.start, name="worker", daemon=True)
    thread.start()
    try:
        assert is_ready.wait(PATIENCE), "the worker did not get ready"
        yield worker
    finally:
        if thread.is_alive() and state.should_stop is None:
            state.should_stop = 0
            worker.hub.call_soon(lambda: None)  # what the loop waits for may be far away
        thread.join(PATIENCE)
        stopped = not thread.is_alive()
        state.reset_state()
        assert stopped, "the worker did not stop"


@pytest.fixture
def worker(app):
    with running(app) as worker:
        yield worker


@pytest.fixture
def make(app):
    """Make a worker that is not started."""
    made = []

    def make(**options):
        made.append(app.WorkController(**{"pool": "solo", **options}))
        return made[-1]

    yield make
    for worker in made:
        worker.pool.stop()
        worker.hub.close()


@pytest.fixture(name="running")
def running_fixture(app):
    """``with running(**options) as worker``."""
    return lambda **options: running(app, **options)


@pytest.fixture(name="wait_until")
def wait_until_fixture():
    return wait_until
