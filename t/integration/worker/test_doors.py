"""Doors for extensions: steps, consumers, requests, strategies, pools and others of the user's own, in a real worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from kombu import Connection, Exchange, Queue

from celery import Celery

HERE = Path(__file__).parent
REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379")
BROKER = f"{REDIS}/14"
PATIENCE = 60


class Doors:
    """Workers of `doorsapp`, and what they noted."""

    def __init__(self, directory):
        self.name = f"doors{uuid.uuid4().hex[:8]}"
        self.log = directory / "doors"
        self.output = directory / "output"
        self.client = Celery(broker=BROKER, set_as_current=False)
        self.client.conf.task_default_queue = self.name

    def start(self, *options):
        environ = {
            **os.environ,
            "DOORS_NAME": self.name,
            "DOORS_LOG": str(self.log),
            "DOORS_BROKER": BROKER,
            "C_FORCE_ROOT": "1",
        }
        words = [os.environ.get("DOORS_PYTHON", sys.executable), "-m", "celery", "-A", "doorsapp", "worker"]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*words, "-l", "INFO", "--without-mingle", "--without-gossip", "-n", "doors@here", *options],
                cwd=HERE, env=environ, stdout=output, stderr=output,
            )  # fmt: skip
        self.wait_for("consumer ready")

    @property
    def notes(self):
        return self.log.read_text().splitlines() if self.log.exists() else []

    def wait_for(self, beginning):
        deadline = time.monotonic() + PATIENCE
        while not any(note.startswith(beginning) for note in self.notes):
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, f"{beginning}: {self.notes}\n{self.output.read_text()}"
            time.sleep(0.02)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0, self.output.read_text()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.client.close()


@pytest.fixture
def doors(tmp_path):
    doors = Doors(tmp_path)
    yield doors
    doors.close()


@pytest.mark.redis
def test_every_door_leads_into_a_prefork_worker(doors):
    doors.start("--autoscale", "2,1", "--sauce", "hot")
    with Connection(BROKER) as connection:
        queue = Queue(f"{doors.name}.raw", Exchange(f"{doors.name}.raw"), f"{doors.name}.raw")
        connection.Producer().publish({"no": "task"}, exchange=queue.exchange, routing_key=queue.routing_key)
    doors.wait_for("raw message")
    doors.client.send_task("works")
    doors.wait_for("request success works")
    doors.client.send_task("breaks")
    doors.wait_for("request failure breaks")
    control = Celery(broker=BROKER, set_as_current=False)
    control.conf.control_exchange = doors.name
    ((_, stats),) = control.control.inspect(timeout=10, limit=1).stats().items()
    control.close()
    doors.stop()

    notes = doors.notes
    assert stats["sauce"] == "hot"
    assert "worker step made hot" in notes
    assert "autoscaler 2 1" in notes
    assert "consumer ready TaskPool" in notes
    assert "raw message {'no': 'task'}" in notes
    order = [
        "worker step create True",
        "worker step start",
        "consumer step start True",
        "strategy works",
        "task works",
        "request success works",
        "request failure breaks",
        "consumer step stop",
        "worker step stop",
        "consumer step shutdown",
    ]
    assert [note for note in notes if note in order] == order
    assert notes.index("agent started") < notes.index("agent stopped")


@pytest.mark.redis
def test_a_pool_of_the_users_is_named_by_its_path(doors):
    doors.start("-P", "doorsapp:NotingPool", "-c", "2")
    doors.client.send_task("works")
    doors.wait_for("request success works")
    doors.stop()

    assert "pool started 2" in doors.notes
    assert "consumer ready NotingPool" in doors.notes


@pytest.mark.redis
def test_a_pool_without_event_loop_gets_the_timer_of_the_users(doors):
    doors.start("-P", "doorsapp:InlinePool", "-c", "1")
    doors.client.send_task("works", countdown=1)
    doors.wait_for("task works")
    doors.stop()

    assert doors.notes.index("timer made") < doors.notes.index("consumer ready InlinePool")
    assert "inline" in doors.notes
