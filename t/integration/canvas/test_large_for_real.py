"""Large canvases on a worker, few round trips to the broker, and a client that keeps nothing of what it has read.

``CANVAS_SCALE=10`` makes all ten times larger: a chain of 3,000, a header of 10,000, 25,000 results.
"""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from canvas_kit import AMQP, REDIS, outcomes

from celery import Celery, chain, chord, group

SCALE = int(os.environ.get("CANVAS_SCALE", "1"))
LONG = 120 * SCALE
pytestmark = pytest.mark.timeout(300 * SCALE)


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """The app of a worker that runs."""
    run = outcomes.Run("redis/redis", tmp_path_factory.mktemp("large"), f"{REDIS}/11", "")
    with run.worker():
        yield run.app
    run.app.close()


@pytest.mark.redis
def test_a_long_chain_runs(app):
    add, size = app.tasks["add"], 300 * SCALE

    assert chain(add.s(0, 1), *[add.s(1) for _ in range(size - 1)]).apply_async().get(timeout=LONG) == size


@pytest.mark.redis
def test_the_body_of_a_large_chord_gets_every_value(app):
    size = 1000 * SCALE
    header = [app.tasks["ident"].s(number) for number in range(size)]

    assert chord(header, app.tasks["tsum"].s()).apply_async().get(timeout=LONG) == sum(range(size))


@pytest.mark.redis
def test_many_threads_read_many_results_and_nothing_is_left(app):
    ident, count = app.tasks["ident"], 2000 * SCALE
    backend, redis = app.backend, app.backend.client

    def ask(number):
        if number % 4 == 0:
            return group(ident.s(number), ident.s(-number)).delay().get(timeout=LONG)[0]
        return ident.delay(number).get(timeout=LONG)

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(64))) == list(range(64))  # now all is open that will be
        gc.collect()
        connections, objects = len(redis.client_list()), len(gc.get_objects())
        assert list(pool.map(ask, range(count))) == list(range(count))
        gc.collect()
        grown = len(gc.get_objects()) - objects
        assert len(redis.client_list()) <= connections + 16
    prefix = app.conf.result_backend_transport_options["global_keyprefix"]
    assert redis.pubsub_channels(f"{prefix}*") == []
    assert grown < count, "something is kept of every result"
    assert backend is app.backend


class Proxy:
    """Passes bytes on to ``address``, and counts how often the client waited for an answer."""

    def __init__(self, address):
        self.address = address
        self.turns = self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.create_connection(self.address)
            last = [client]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(source, sink, client, last), daemon=True).start()

    def _pass(self, source, sink, client, last):
        while data := self._read(source):
            if last[0] is not source:
                last[0] = source
                self.turns += source is client
            sink.sendall(data)
        sink.close()

    @staticmethod
    def _read(source):
        try:
            return source.recv(65536)
        except OSError:
            return b""

    def close(self):
        self.listener.close()


BROKERS = [pytest.param(REDIS, marks=pytest.mark.redis), pytest.param(AMQP, marks=pytest.mark.rabbitmq)]


@pytest.mark.parametrize("url", BROKERS, ids=["redis", "rabbitmq"])
def test_a_group_of_a_thousand_goes_out_in_a_few_round_trips(url):
    parts = urlsplit(url)
    proxy = Proxy((parts.hostname, parts.port or (6379 if "redis" in parts.scheme else 5672)))
    user = f"{parts.username}:{parts.password}@" if parts.username else ""
    queue = f"large-{os.getpid()}"
    app = Celery("large", broker=f"{parts.scheme}://{user}127.0.0.1:{proxy.port}/", set_as_current=False)
    app.conf.update(task_default_queue=queue, task_ignore_result=True)
    task = app.task(lambda number: None, name="large.task", shared=False)
    task.delay(0)
    turns, connections = proxy.turns, proxy.connections

    group(task.s(number) for number in range(1000)).apply_async()

    made = proxy.turns - turns, proxy.connections - connections
    with app.connection_or_acquire() as connection:
        channel, deadline = connection.default_channel, time.monotonic() + 60
        while (size := _size_of(channel, queue)) < 1001 and time.monotonic() < deadline:
            time.sleep(0.05)
        channel.queue_delete(queue)
    app.close()
    proxy.close()
    assert size == 1001
    assert made[0] <= 12
    assert made[1] <= 1


def _size_of(channel, queue):
    if hasattr(channel, "client"):
        return channel.client.llen(queue)
    return channel.queue_declare(queue, passive=True).message_count
