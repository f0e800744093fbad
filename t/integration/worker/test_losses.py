"""How often a message has lost its worker is counted on RabbitMQ, too."""

from __future__ import annotations

import os
import uuid
from types import SimpleNamespace

import pytest

from celery import Celery
from celery.worker.consumer.suspects import Ledger

pytestmark = pytest.mark.rabbitmq

AMQP = os.environ.get("TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672") + "//"


@pytest.fixture
def ledger():
    app = Celery("losses", broker=AMQP, set_as_current=False)
    ledger = Ledger(app)
    yield ledger
    ledger.close()
    app.close()


def request(retries: int = 0, task_id: str | None = None) -> SimpleNamespace:
    task_id = task_id or uuid.uuid4().hex
    return SimpleNamespace(id=task_id, request_dict={"id": task_id, "retries": retries})


def test_losses_add_up_until_they_are_forgotten(ledger):
    lost, other = request(), request()
    assert ledger.count(lost) == 0
    assert ledger.add(lost, 2) == 2
    assert ledger.add(lost, 1) == 1
    assert (ledger.count(lost), ledger.count(other)) == (3, 0)
    ledger.forget(lost)
    ledger.forget(other)
    assert ledger.count(lost) == 0
    ledger.forget(lost)


def test_a_retry_is_another_run(ledger):
    first = request()
    retry = request(retries=1, task_id=first.id)
    ledger.add(first, 1)
    assert ledger.count(retry) == 0
    for each in (first, retry):
        ledger.forget(each)


def test_any_task_id_gives_a_name(ledger):
    strange = request(task_id="ü/ " * 100)
    assert ledger.add(strange, 1) == 1
    assert len(ledger.queue_of(strange)) < 128
    ledger.forget(strange)


def test_a_connection_that_died_is_opened_again(ledger):
    lost = request()
    ledger.add(lost, 1)
    ledger._connection.collect()
    assert ledger.count(lost) == 1
    ledger.forget(lost)


def test_without_a_broker_nothing_is_counted_for_a_while(caplog):
    app = Celery("nowhere", broker="amqp://127.0.0.1:1//", set_as_current=False)
    ledger = Ledger(app)
    assert ledger.count(request()) == 0
    assert ledger.add(request(), 1) == 0
    app.close()

    assert len(caplog.records) == 1
    assert "cannot be counted for 30 s" in caplog.text
