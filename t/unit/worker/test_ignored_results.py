"""A failure that the worker itself stores: whether it does, by what the call says of its result, else the task."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from types import SimpleNamespace

import pytest

from celery import Celery, states
from celery.exceptions import WorkerLostError
from celery.transports.message import STARTED_LOSSES
from celery.worker.consumer.receiving import Receiver
from celery.worker.request import Request

pytestmark = [
    pytest.mark.usefixtures("fresh_state"),
    pytest.mark.filterwarnings("ignore::celery.exceptions.DuplicateTaskNameWarning"),
]

#: ``(ignore_result of the task, that of the call, whether the failure is stored)``
SAID = [
    (False, None, True),
    (False, False, True),
    (False, True, False),
    (True, None, False),
    (True, False, True),
    (True, True, False),
]

says = pytest.mark.parametrize(("of_task", "of_call", "is_stored"), SAID)


@pytest.fixture
def app():
    app = Celery("ignored", broker="memory://", backend="cache+memory://", set_as_current=False)
    yield app
    app.close()


@pytest.fixture
def send(app):
    """Call a task that is made with the given options; returns its message as a worker receives it."""

    def send(call, **options):
        task = app.task(name="add", **options)(lambda: None)
        app.finalize()
        task.apply_async(task_id="id-1", **call)
        with app.connection_for_read() as connection:
            message = connection.SimpleQueue("celery").get(timeout=1)
            message.ack()
        return message

    return send


@pytest.fixture
def receive(app, send):
    """The same message, accepted."""

    def receive(of_task, of_call, expires=None, **options):
        call = {} if of_call is None else {"ignore_result": of_call}
        message = send({**call, "expires": expires}, ignore_result=of_task, **options)
        return Request(message, app=app, task=app.tasks["add"], hostname="w1@test")

    return receive


@says
def test_the_hard_limit(app, receive, of_task, of_call, is_stored):
    receive(of_task, of_call).on_hard_limit(5)
    assert app.AsyncResult("id-1").state == (states.FAILURE if is_stored else states.PENDING)


@says
def test_a_lost_process(app, receive, of_task, of_call, is_stored):
    receive(of_task, of_call).on_lost(WorkerLostError("signal 9"))
    assert app.AsyncResult("id-1").state == (states.FAILURE if is_stored else states.PENDING)


@says
def test_an_expired_task(app, receive, of_task, of_call, is_stored):
    assert receive(of_task, of_call, expires=datetime(2020, 1, 1, tzinfo=timezone.utc)).revoked()
    assert app.AsyncResult("id-1").state == (states.REVOKED if is_stored else states.PENDING)


@says
def test_a_task_that_is_cancelled_because_its_connection_is_lost(app, receive, of_task, of_call, is_stored):
    request = receive(of_task, of_call)
    request.on_started(42, time.monotonic())
    request.cancel(SimpleNamespace(terminate_job=lambda pid, signum: True))
    assert app.AsyncResult("id-1").state == (states.RETRY if is_stored else states.PENDING)


@pytest.mark.parametrize("of_call", [None, True])
def test_a_task_may_want_its_failures_though_nobody_wants_its_results(app, receive, of_call):
    receive(True, of_call, store_errors_even_if_ignored=True).on_hard_limit(5)
    assert app.AsyncResult("id-1").state == states.FAILURE


@pytest.fixture
def receiver(app):
    """The receiver of another worker, which stores at once and trusts every message."""
    bookkeeper = SimpleNamespace(submit=lambda store, *arguments: store(*arguments))
    receiver = Receiver.__new__(Receiver)
    receiver.consumer = SimpleNamespace(app=app, bookkeeper=bookkeeper, admission=None)
    return receiver


def envelope(message, **headers):
    return {
        "headers": {**message.headers, **headers},
        "properties": message.properties,
        "body": message.body,
        "content-type": message.content_type,
        "content-encoding": message.content_encoding,
    }


@says
def test_a_task_that_was_lost_with_its_worker(app, send, receiver, of_task, of_call, is_stored):
    message = send({} if of_call is None else {"ignore_result": of_call}, ignore_result=of_task)
    told = []
    receiver.on_left(envelope(message), lambda: told.append("forgotten"))
    assert told == ["forgotten"]
    assert app.AsyncResult("id-1").state == (states.FAILURE if is_stored else states.PENDING)


@says
def test_a_task_that_is_set_aside_for_the_workers_that_it_lost(app, send, receiver, of_task, of_call, is_stored):
    message = send({} if of_call is None else {"ignore_result": of_call}, ignore_result=of_task)
    receiver.on_set_aside(envelope(message, **{STARTED_LOSSES: 3}), "It was lost too often.")
    assert app.AsyncResult("id-1").state == (states.FAILURE if is_stored else states.PENDING)
