"""Every event that workers and clients send, field by field as Celery 5.7.0 was recorded sending it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from kombu import Exchange, Queue

from celery import Celery

FACTS = Path(__file__).resolve().parents[2] / "facts"
RECORDED = json.loads((FACTS / "events.json").read_text())
REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379")
AMQP = os.environ.get("TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
PATIENCE = 60

KINDS = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None), "object": dict,
    "array": list,
}  # fmt: skip

#: Events that nobody has to wait for: another one that is waited for comes after them.
COUNTS = {"task-succeeded": 2, "task-failed": 1, "task-retried": 1, "task-rejected": 1, "task-revoked": 1,
          "worker-heartbeat": 2, "worker-elect": 1, "worker-elect-ack": 2}  # fmt: skip


class Listener:
    """Takes in events as they come over the wire: routing key, sender, and the events of a message."""

    def __init__(self, app, connection):
        self.connection = connection
        self.messages = []
        kind = "fanout" if connection.transport.driver_type == "redis" else "topic"
        exchange = Exchange(app.conf.event_exchange, kind)
        queue = Queue(f"listen.{uuid.uuid4().hex}", exchange, "#", auto_delete=True, durable=False)
        self.consumer = connection.Consumer([queue], callbacks=[self.take], accept=["json"], no_ack=True)
        self.consumer.consume()

    def take(self, body, message):
        key = message.delivery_info.get("routing_key")
        for event in body if isinstance(body, list) else [body]:
            self.messages.append((key, message.headers, isinstance(body, list), event))

    def events(self, kind):
        return [event for *_, event in self.messages if event["type"] == kind]

    def wait_for(self, kind, count=1, hostname=None):
        deadline = time.monotonic() + PATIENCE
        while sum(hostname in (None, event["hostname"]) for event in self.events(kind)) < count:
            assert time.monotonic() < deadline, f"{kind}: {sorted({event['type'] for *_, event in self.messages})}"
            try:
                self.connection.drain_events(timeout=0.2)
            except socket.timeout:  # noqa: UP041 - kombu's own until Python 3.10
                pass


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(f"{REDIS}/15", id="redis", marks=pytest.mark.redis),
        pytest.param(f"{AMQP}//", id="rabbitmq", marks=pytest.mark.rabbitmq),
    ],
)
def heard(request, tmp_path_factory):
    """All that is heard in the life of two workers with tasks of all fates."""
    directory, name = tmp_path_factory.mktemp("events"), f"ev{uuid.uuid4().hex[:8]}"
    app = Celery("life", broker=request.param, backend=f"file://{directory}", set_as_current=False)
    app.conf.update(
        task_default_queue=name, control_exchange=name, event_exchange=f"{name}ev", task_send_sent_event=True
    )
    environ = {**os.environ, "LIFE_DIRECTORY": str(directory), "LIFE_BROKER": request.param, "LIFE_NAME": name,
               "C_FORCE_ROOT": "1"}  # fmt: skip
    workers = []
    with app.connection() as connection:
        listener = Listener(app, connection)
        try:
            for node in ("w1@here", "w2@here"):
                with (directory / f"{node}.log").open("wb") as log:
                    words = [sys.executable, "-m", "celery", "-A", "life", "worker", "-n", node, "-P", "solo"]
                    workers.append(
                        subprocess.Popen(
                            [*words, "--heartbeat-interval", "1"],
                            cwd=FACTS / "signals", env=environ, stdout=log, stderr=log,
                        )
                    )  # fmt: skip
            for node in ("w1@here", "w2@here"):
                listener.wait_for("worker-online", hostname=node)
            for task in ("succeeds", "fails", "retries", "rejects"):
                app.send_task(task)
            app.send_task("succeeds", expires=-10)
            app.control.election("election-1", "topic-1", action={"task": "succeeds"})
            for kind, count in COUNTS.items():
                listener.wait_for(kind, count)
            for worker in workers:
                worker.send_signal(signal.SIGTERM)
            listener.wait_for("worker-offline", count=2)
        finally:
            for worker in workers:
                worker.send_signal(signal.SIGTERM)
                worker.wait(PATIENCE)
    app.close()
    return listener


def differences(event, fields):
    """Yield what is missing, too much, or of another type."""
    known = {name: {"types": types} for name, types in RECORDED["common_fields"].items()} | fields
    for name in event.keys() - known.keys():
        yield f"{name} is not recorded"
    for name, field in known.items():
        if name not in event:
            if not field.get("optional"):
                yield f"{name} is missing"
            continue
        kinds = tuple(KINDS[kind] for kind in field["types"])
        flat = tuple(kind for kind in kinds for kind in (kind if isinstance(kind, tuple) else (kind,)))
        if not isinstance(event[name], flat) or (type(event[name]) is bool and bool not in flat):
            yield f"{name} is {event[name]!r}, and not {field['types']}"


@pytest.mark.parametrize("kind", sorted(RECORDED["events"]))
def test_an_event_has_the_recorded_fields(heard, kind):
    events = heard.events(kind)

    assert events
    for event in events:
        assert not list(differences(event, RECORDED["events"][kind]["fields"])), event


def test_events_travel_under_the_recorded_keys_with_their_sender(heard):
    for key, headers, is_group, event in heard.messages:
        recorded = RECORDED["events"].get(event["type"], {}).get("routing_key", [])
        if heard.connection.transport.driver_type != "redis":  # a fanout has no keys
            assert key in (*recorded, event["type"].replace("-", ".")), event
        assert headers["hostname"] == event["hostname"]
        assert not is_group or event["type"].startswith("task-")


def test_the_logical_clock_of_a_node_goes_forward(heard):
    for node in ("w1@here", "w2@here"):
        clocks = [event["clock"] for *_, event in heard.messages if event["hostname"] == node]
        assert len(set(clocks)) == len(clocks)
