from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest

from celery.exceptions import ImproperlyConfigured, OperationalError
from celery.worker import state
from celery.worker.consumer import recovery as recovery_room
from celery.worker.consumer.recovery import Recovery, is_login_refused

pytestmark = pytest.mark.usefixtures("fresh_state")


@pytest.fixture
def consumer(app):
    return SimpleNamespace(
        app=app,
        hub=None,
        pool=SimpleNamespace(num_processes=2),
        first_connection_attempt=True,
        broker_connection_retry_attempt=0,
        connection=None,
        connection_errors=(OSError,),
        channel_errors=(LookupError,),
        initial_prefetch_count=8,
        prefetch_multiplier=4,
        max_prefetch_count=8,
        qos_global=True,
        qos=SimpleNamespace(value=8),
        conninfo=SimpleNamespace(transport=SimpleNamespace(driver_type="memory"), as_uri=lambda: "memory://"),
    )


@pytest.fixture
def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Refused(Exception):
    reply_code = 403


class AuthenticationError(Exception):
    pass


def test_refusals_are_told_from_broken_networks():
    assert is_login_refused(Refused())
    assert is_login_refused(AuthenticationError())
    assert not is_login_refused(ConnectionRefusedError())


def test_a_refused_login_is_not_tried_again_at_start(consumer):
    def connect(errback, max_retries, callback):
        errback(Refused("no"), 2)
        raise AssertionError("tried again")

    connection = SimpleNamespace(ensure_connection=connect, userid="me", as_uri=lambda: "amqp://me:**@there//")
    with pytest.raises(ImproperlyConfigured, match="amqp://me:\\*\\*@there// refused the login"):
        Recovery(consumer).ensure_connected(connection)


def test_without_retry_the_first_failure_is_raised(consumer, closed_port):
    consumer.app.conf.broker_connection_retry_on_startup = False
    connection = consumer.app.connection_for_read(f"amqp://127.0.0.1:{closed_port}//")

    with pytest.raises(OperationalError, match=f"Cannot reach amqp at 127.0.0.1:{closed_port}"):
        Recovery(consumer).ensure_connected(connection)


def test_each_attempt_is_logged_with_the_time_of_the_next(consumer, caplog):
    def connect(errback, max_retries, callback):
        errback(ConnectionRefusedError(111, "Connection refused"), 2)
        errback(ConnectionRefusedError(111, "Connection refused"), 4)
        return connection

    connection = SimpleNamespace(ensure_connection=connect, as_uri=lambda: "amqp://there//")
    Recovery(consumer).ensure_connected(connection)

    assert [record.getMessage() for record in caplog.records] == [
        "consumer: Cannot connect to amqp://there//: [Errno 111] Connection refused.\n"
        f"Trying again in {seconds}.00 seconds... ({number}/100){hint}\n"
        for number, seconds, hint in ((1, 2, recovery_room.WAY_OUT), (2, 4, ""))
    ]


def test_the_first_loss_costs_no_pause_and_more_of_them_do(consumer, monkeypatch):
    pauses = []
    monkeypatch.setattr(recovery_room.time, "sleep", pauses.append)
    recovery = Recovery(consumer)
    for losses in range(10):
        recovery._losses = losses
        recovery.pace()

    assert pauses[0] == recovery_room.SHORTEST_PAUSE
    assert len(pauses) == 8
    assert pauses == sorted(pauses)
    assert pauses[-1] == recovery_room.LONGEST_PAUSE


def test_errors_of_a_channel_are_fatal_unless_it_is_a_late_acknowledgement(consumer):
    recovery = Recovery(consumer)

    recovery._refuse_the_hopeless(LookupError("PRECONDITION_FAILED - delivery acknowledgement on channel 2 timed out"))
    with pytest.raises(ImproperlyConfigured, match="other arguments"):
        recovery._refuse_the_hopeless(LookupError("PRECONDITION_FAILED - inequivalent arg"))

    consumer.app.conf.broker_channel_error_retry = True
    recovery._refuse_the_hopeless(LookupError("PRECONDITION_FAILED - inequivalent arg"))


def test_with_retries_off_a_lost_connection_is_the_end(consumer):
    consumer.app.conf.broker_connection_retry = False
    consumer.connection = object()

    with pytest.raises(OSError):
        Recovery(consumer)._refuse_the_hopeless(ConnectionResetError())


def test_running_tasks_reduce_the_credit_of_the_next_connection(consumer):
    running = SimpleNamespaceRequest()
    state.active_requests.add(running)
    recovery = Recovery(consumer)
    recovery._reduce_credit()

    assert consumer.initial_prefetch_count == 4

    gained = []
    consumer.qos = SimpleNamespace(value=4, increment_eventually=gained.append)
    recovery._return_credit()
    assert gained == []
    state.active_requests.discard(running)
    recovery._return_credit()
    assert gained == [4]


def test_the_reduction_can_be_switched_off(consumer):
    consumer.app.conf.worker_enable_prefetch_count_reduction = False
    state.active_requests.add(running := SimpleNamespaceRequest())
    Recovery(consumer)._reduce_credit()

    assert consumer.initial_prefetch_count == 8
    assert running in state.active_requests


def test_no_limit_stays_no_limit(consumer):
    changes = []
    consumer.qos = SimpleNamespace(value=0, increment_eventually=changes.append, decrement_eventually=changes.append)

    assert Recovery(consumer).update_prefetch_count(2) == 0
    assert changes == []


class SimpleNamespaceRequest:
    acknowledged = True
