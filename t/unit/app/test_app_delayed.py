"""Native delayed delivery: which messages wait in RabbitMQ itself, and under which key."""

from __future__ import annotations

import datetime as dt
import logging

import pytest
from kombu import Exchange, Queue
from kombu.transport import memory

from celery import Celery
from celery.app import delayed


class RabbitTransport(memory.Transport):
    driver_type = "amqp"


@pytest.fixture
def make_app():
    def make(transport=RabbitTransport, **conf):
        app = Celery("delayed", broker="memory://", set_as_current=False)
        app.conf.update(broker_transport=transport, **conf)
        return app

    return make


@pytest.fixture
def topic():
    return {"queue": Queue("q", Exchange("q", "topic"), "q.key"), "priority": 3}


def test_only_rabbitmq_with_a_quorum_queue_keeps_messages(make_app):
    assert delayed.is_possible(make_app(task_default_queue_type="quorum"))
    assert not delayed.is_possible(make_app())
    assert not delayed.is_possible(make_app(memory.Transport, task_default_queue_type="quorum"))


def test_the_delay_goes_in_front_of_the_routing_key(make_app, topic):
    options = delayed.rerouted(make_app(), topic, 70, None)

    assert options["exchange"].name == "celery_delayed_27"
    assert options["routing_key"] == ".".join(f"{70:028b}") + ".q.key"
    assert options["priority"] == 3
    assert "queue" not in options


@pytest.mark.parametrize("as_text", [False, True])
def test_an_eta_is_a_delay_from_now(make_app, topic, as_text):
    eta = dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=600.5)
    options = delayed.rerouted(make_app(), topic, None, eta.isoformat() if as_text else eta)

    assert int(options["routing_key"].replace(".", "")[:28], 2) == 600


@pytest.mark.parametrize("seconds", [0.5, -3, 2**28])
def test_a_delay_that_the_queues_cannot_hold_is_left_to_the_worker(make_app, topic, seconds):
    assert delayed.rerouted(make_app(), topic, seconds, None) is topic


def test_a_direct_exchange_cannot_take_messages_back(make_app, caplog):
    options = {"queue": Queue("q", Exchange("q"), "q")}
    with caplog.at_level(logging.WARNING):
        assert delayed.rerouted(make_app(), options, 70, None) is options

    assert "Give it a topic exchange" in caplog.text


def test_it_can_be_switched_off(make_app):
    from celery.app import publishing

    app = make_app(
        task_default_queue_type="quorum", task_default_exchange_type="topic", worker_detect_quorum_queues=False
    )
    sent = []
    app.amqp.send_task_message = lambda producer, name, message, **options: sent.append(options)
    app.send_task("t", countdown=70)
    app.conf.worker_detect_quorum_queues = True
    app.send_task("t", countdown=70)

    assert "exchange" not in sent[0]
    assert sent[1]["exchange"].name == "celery_delayed_27"
    assert publishing.outbox(app).detects_quorum
