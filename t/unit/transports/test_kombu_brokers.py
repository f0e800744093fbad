"""Brokers that kombu brings and that need no server: our connection, dead letters and prefetch on each of them."""

from __future__ import annotations

import os
from uuid import uuid4

import kombu
import pytest

from celery.transports import Connection
from celery.transports.dead_letters import dead_letter


def in_memory(tmp_path):
    return "memory://", {}


def in_files(tmp_path):
    folders = {name: str(tmp_path / name) for name in ("queue", "processed", "control")}
    for folder in folders.values():
        os.mkdir(folder)
    return "filesystem://", {
        "data_folder_in": folders["queue"],
        "data_folder_out": folders["queue"],
        "processed_folder": folders["processed"],
        "control_folder": folders["control"],
    }


def in_sqlite_by_sqlalchemy(tmp_path):
    pytest.importorskip("sqlalchemy")
    return f"sqla+sqlite:///{tmp_path}/kombu.sqlite", {}


@pytest.fixture(params=[in_memory, in_files, in_sqlite_by_sqlalchemy], ids=lambda make: make.__name__)
def connection(request, tmp_path):
    url, options = request.param(tmp_path)
    connection = Connection(url, transport_options=options)
    connection.transport.polling_interval = 0.01
    yield connection
    connection.release()


def new_queue():
    name = uuid4().hex  # kombu's file transport remembers bindings for the process
    return kombu.Queue(name, kombu.Exchange(name), routing_key=name)


def test_messages_go_through_and_are_counted(connection):
    queue = new_queue()
    producer = connection.Producer()
    for number in range(3):
        producer.publish(
            {"n": number}, exchange=queue.exchange, routing_key=queue.name, declare=[queue], serializer="json"
        )
    got = []

    def take(body, message):
        got.append(body["n"])
        message.ack()

    with connection.Consumer([queue], callbacks=[take], accept=["json"]):
        while len(got) < 3:
            connection.drain_events(timeout=5)
    assert sorted(got) == [0, 1, 2]
    assert queue(connection.default_channel).queue_declare(passive=True).message_count == 0


def test_what_cannot_be_read_is_kept_with_a_reason(connection):
    queue = new_queue()
    producer = connection.Producer()
    producer.publish(
        b"\x80", exchange=queue.exchange, routing_key=queue.name, declare=[queue],
        content_type="application/json", content_encoding="utf-8", headers={"id": "1"},
    )  # fmt: skip
    message = None
    while message is None:
        message = queue(connection.default_channel).get()
    assert dead_letter(message, "no JSON")
    kept = None
    while kept is None:
        kept = kombu.Queue("celeriac.dead", channel=connection.default_channel).get()
    assert kept.body == b"\x80"
    assert kept.headers["x-celeriac-reason"] == "no JSON"
    assert queue(connection.default_channel).get() is None
