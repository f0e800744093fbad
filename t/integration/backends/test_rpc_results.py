"""Results as messages: lost connections, and greenlets."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from celery import Celery
from celery.exceptions import TimeoutError

AMQP = os.environ.get("TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379")


def request_of(task_id, reply_to):
    known = dict.fromkeys(("group", "parent_id", "chord", "chain", "errbacks", "stamps", "stamped_headers", "task"))
    known.update(
        id=task_id, children=[], delivery_info={}, ignore_result=False, reply_to=reply_to, correlation_id=task_id
    )
    return SimpleNamespace(**known)


@pytest.fixture
def app():
    app = Celery("rpc", broker=AMQP, backend="rpc://", set_as_current=False)

    @app.task(name="add", shared=False)
    def add(x, y):
        return x + y

    app.conf.task_default_queue = f"rpc-test-{os.getpid()}"
    yield app
    with app.connection() as connection:
        connection.default_channel.queue_delete(app.conf.task_default_queue)
    app.backend.result_consumer.stop()
    app.close()


@pytest.mark.rabbitmq
def test_the_reply_queue_is_there_before_the_task_is_sent(app):
    result = app.tasks["add"].delay(1, 2)
    app.backend.store_result(result.id, 3, "SUCCESS", request=request_of(result.id, app.thread_oid))

    assert result.get(timeout=5) == 3


@pytest.mark.rabbitmq
def test_a_burst_of_calls_declares_the_queue_once(app):
    declared = []
    create = app.backend._create_binding
    app.backend._create_binding = lambda name: declared.append(name) or create(name)
    for _ in range(50):
        app.tasks["add"].delay(1, 2)

    assert len(declared) <= 2


@pytest.mark.rabbitmq
def test_waiting_goes_on_over_a_new_connection(app):
    result = app.tasks["add"].delay(1, 2)
    consumer = app.backend.result_consumer
    found = []
    waiter = threading.Thread(target=lambda: found.append(result.get(timeout=20)))
    waiter.start()
    deadline = time.monotonic() + 5
    while consumer._connection is None and time.monotonic() < deadline:
        time.sleep(0.01)
    consumer._connection.default_channel.connection.transport.sock.shutdown(2)
    time.sleep(1)
    app.backend.store_result(result.id, 3, "SUCCESS", request=request_of(result.id, app.thread_oid))
    waiter.join()

    assert found == [3]


@pytest.mark.rabbitmq
def test_queues_of_threads_that_ended_do_not_pile_up(app):
    from celery.backends.rpc import ENDED_THREADS_MAX

    for _ in range(ENDED_THREADS_MAX + 20):
        thread = threading.Thread(target=app.tasks["add"].delay, args=(1, 2))
        thread.start()
        thread.join()
        thread = None
    result = app.tasks["add"].delay(1, 2)
    app.backend.store_result(result.id, 3, "SUCCESS", request=request_of(result.id, app.thread_oid))

    assert result.get(timeout=10) == 3
    assert len(app.backend.result_consumer._wanted) <= ENDED_THREADS_MAX + 2


def test_get_ends_in_time_without_a_broker():
    app = Celery("rpc", broker="amqp://guest:guest@127.0.0.1:1//", backend="rpc://", set_as_current=False)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        app.AsyncResult("t").get(timeout=0.5)
    app.close()

    assert time.monotonic() - began < 4


GREENLETS = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent
from types import SimpleNamespace
from celery import Celery

app = Celery("green", broker=sys.argv[1], backend=sys.argv[2], set_as_current=True)
app.conf.task_default_queue = "green-test"

@app.task(name="add")
def add(x, y):
    return x + y

backend, reply_to = app.backend, app.thread_oid
results = [add.delay(1, number) for number in range(40)]

def finish():
    gevent.sleep(0.1)
    for number, result in enumerate(results):
        request = dict.fromkeys(("group", "parent_id", "stamps", "stamped_headers", "task"))
        request.update(id=result.id, children=[], delivery_info={}, reply_to=reply_to, correlation_id=result.id)
        backend.store_result(result.id, number, "SUCCESS", request=SimpleNamespace(**request))

gevent.spawn(finish)
jobs = [gevent.spawn(result.get, timeout=20) for result in results]
gevent.joinall(jobs)
assert [job.value for job in jobs] == list(range(40)), [job.value for job in jobs]
assert type(backend.result_consumer.drainer).__name__ == "geventDrainer"
with app.connection() as connection:
    connection.default_channel.queue_delete("green-test")
"""


@pytest.mark.parametrize(
    ("broker", "backend"),
    [
        pytest.param("memory://", "rpc://", id="rpc-memory"),
        pytest.param(AMQP, "rpc://", marks=pytest.mark.rabbitmq, id="rpc"),
        pytest.param("memory://", f"{REDIS}/11", marks=pytest.mark.redis, id="redis"),
    ],
)
def test_greenlets_each_get_their_own(broker, backend):
    pytest.importorskip("gevent")
    program = subprocess.run(
        [sys.executable, "-c", GREENLETS, broker, backend], capture_output=True, text=True, timeout=60, check=False
    )

    assert program.returncode == 0, program.stderr[-2000:]
