"""Publishing to real brokers: what arrives, what is left behind, and what happens when nobody answers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest
from kombu import Connection, Queue
from kombu.exceptions import OperationalError

from celery import Celery, group
from celery.app import publishing

sys.path.insert(0, str(Path(__file__).parents[2] / "faults"))

from servers import OwnRedis

REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379") + "/14"
AMQP = os.environ.get("TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672") + "//"


@pytest.fixture
def queue():
    return f"publishing-{uuid.uuid4().hex}"


@pytest.fixture
def redis():
    client = pytest.importorskip("redis").Redis.from_url(REDIS)
    yield client
    client.close()


@pytest.fixture
def make_app(queue):
    apps = []

    def make(url, **conf):
        app = Celery("publishing", broker=url, set_as_current=False)
        app.conf.update(task_default_queue=queue, task_ignore_result=True, **conf)
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.close()


@pytest.mark.redis
class TestRedis:
    @pytest.fixture
    def app(self, make_app, redis, queue):
        yield make_app(REDIS)
        keys = list(redis.scan_iter(f"*{queue}*"))
        if keys:
            redis.delete(*keys)

    def test_a_message_has_the_form_that_peers_read(self, app, redis, queue):
        result = app.send_task("t", (1,), priority=0)

        message = json.loads(redis.rpop(queue))
        assert message["content-type"] == "application/json"
        assert message["headers"]["id"] == message["properties"]["correlation_id"] == result.id
        assert message["properties"]["delivery_info"] == {"exchange": "", "routing_key": queue}
        assert (message["properties"]["delivery_mode"], message["properties"]["priority"]) == (2, 0)
        assert redis.smembers(f"_kombu.binding.{queue}") == {f"{queue}\x06\x16\x06\x16{queue}".encode()}

    def test_kombu_reads_what_was_sent(self, app, queue):
        app.send_task("t", (1,), {"a": 2}, priority=6)

        with Connection(REDIS) as connection:
            message = Queue(queue)(connection.default_channel).get(no_ack=True)
        assert message.payload[:2] == [[1], {"a": 2}]
        assert message.headers["task"] == "t"

    def test_messages_keep_their_order(self, app, redis, queue):
        with publishing.batch(app):
            for number in range(50):
                app.send_task("t", (number,))
        for number in range(50, 60):
            app.send_task("t", (number,))

        sent = [json.loads(redis.rpop(queue))["headers"]["argsrepr"] for _ in range(60)]
        assert sent == [f"({number},)" for number in range(60)]

    def test_a_group_takes_one_round_trip(self, app, redis, queue):
        task = app.task(name="t", shared=False)(lambda x: x)
        task.delay(0)
        before = redis.info("commandstats")["cmdstat_lpush"]["calls"]
        group(task.s(number) for number in range(20)).apply_async()

        assert redis.info("commandstats")["cmdstat_lpush"]["calls"] >= before + 20
        assert redis.llen(queue) == 21

    def test_many_threads_send_at_once(self, app, redis, queue):
        def send():
            for _ in range(50):
                app.send_task("t")

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert redis.llen(queue) == 400

    def test_a_child_and_its_parent_send_at_once(self, app, redis, queue):
        app.send_task("t")
        pid = os.fork()
        if pid == 0:
            try:
                for _ in range(50):
                    app.send_task("t")
            finally:
                os._exit(0)
        for _ in range(50):
            app.send_task("t")
        os.waitpid(pid, 0)

        assert redis.llen(queue) == 101

    def test_a_connection_that_the_server_closed_is_opened_again(self, app, redis, queue):
        app.send_task("t")
        redis.client_kill_filter(_type="normal", skipme=True)
        app.send_task("t")

        assert redis.llen(queue) == 2

    def test_results_cost_no_round_trip(self, make_app, redis, queue):
        app = make_app(REDIS, result_backend=REDIS)
        app.conf.task_ignore_result = False
        app.send_task("t")
        before = {name: stat["calls"] for name, stat in redis.info("commandstats").items()}
        for _ in range(10):
            app.send_task("t")
        after = {name: stat["calls"] for name, stat in redis.info("commandstats").items()}

        assert after.get("cmdstat_subscribe", 0) == before.get("cmdstat_subscribe", 0)


@pytest.mark.rabbitmq
class TestRabbitMQ:
    @pytest.fixture
    def app(self, make_app, queue):
        app = make_app(AMQP)
        yield app
        with app.connection_for_write() as connection:
            connection.default_channel.queue_delete(queue)

    def test_a_message_arrives(self, app, queue):
        result = app.send_task("t", (1,))

        with app.connection_for_read() as connection:
            message = Queue(queue)(connection.default_channel).get(no_ack=True)
        assert message.headers["id"] == message.properties["correlation_id"] == result.id
        assert message.properties["priority"] == 0

    def test_a_batch_arrives(self, app, queue):
        with publishing.batch(app):
            for number in range(20):
                app.send_task("t", (number,))

        with app.connection_for_read() as connection:
            bound = Queue(queue)(connection.default_channel)
            assert [bound.get(no_ack=True).headers["argsrepr"] for _ in range(20)] == [f"({n},)" for n in range(20)]

    def test_confirms_are_waited_for_where_they_are_asked_for(self, make_app, app, queue):
        confirming = make_app(AMQP, broker_transport_options={"confirm_publish": True})
        confirming.send_task("t")

        with app.connection_for_read() as connection:
            assert Queue(queue)(connection.default_channel).get(no_ack=True) is not None


class Freezer:
    """A proxy that stops passing data on, as a network or a blocked broker does."""

    def __init__(self, port):
        self.target = ("127.0.0.1", port)
        self.is_frozen = threading.Event()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            broker = socket.create_connection(self.target)
            for source, sink in ((client, broker), (broker, client)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source, sink):
        try:
            while data := source.recv(65536):
                if self.is_frozen.is_set():
                    return  # both ends stay open
                sink.sendall(data)
        except OSError:
            pass


@pytest.fixture
def own_redis(tmp_path):
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server")
    server = OwnRedis(tmp_path)
    yield server
    server.signal(signal.SIGCONT)
    server.close()


@pytest.mark.redis
@pytest.mark.parametrize("lane", ["an open line", "a new connection", "kombu's producer", "the answer's queue"])
def test_a_redis_that_is_stopped_fails_the_call_at_its_own_deadline(make_app, own_redis, lane):
    app = make_app(own_redis.url, result_backend="rpc://" if lane == "the answer's queue" else None)
    options = {}
    if lane == "an open line":
        app.send_task("t")
    elif lane == "kombu's producer":
        options["producer"] = app.amqp.Producer(app.connection_for_write())
    if lane == "the answer's queue":
        app.conf.task_ignore_result = False
    own_redis.signal(signal.SIGSTOP)
    started_at = time.monotonic()

    with pytest.raises(OperationalError, match=rf"(1 seconds|socket).*broker: redis://.*:{own_redis.port}"):
        app.send_task("t", timeout=1, **options)
    assert time.monotonic() - started_at < 8  # the default is 10
    own_redis.signal(signal.SIGCONT)
    app.send_task("t")


@pytest.mark.rabbitmq
@pytest.mark.parametrize(
    ("options", "argument"),
    [({"confirm_publish": True}, "small"), ({}, "x" * 30_000_000)],
    ids=["a confirm that never comes", "a message that is not taken"],
)
def test_a_broker_that_stops_reading_ends_in_an_error(make_app, queue, options, argument):
    freezer = Freezer(5672)
    app = make_app(f"amqp://guest:guest@127.0.0.1:{freezer.port}//", broker_transport_options=options)
    app.send_task("t", ("before",))
    freezer.is_frozen.set()
    started_at = time.monotonic()

    with pytest.raises(OperationalError):
        app.send_task("t", (argument,), timeout=1)
    assert time.monotonic() - started_at < 8
    freezer.server.close()
    with Connection(AMQP) as connection:
        connection.default_channel.queue_delete(queue)


@pytest.fixture
def silent_port():
    """A server that takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield server.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("url", ["redis://127.0.0.1:{}/0", "amqp://guest:guest@127.0.0.1:{}//"])
def test_a_broker_that_never_answers_ends_in_an_error(make_app, silent_port, url):
    app = make_app(url.format(silent_port))
    started_at = time.monotonic()

    with pytest.raises(OperationalError, match=rf"broker: .*127\.0\.0\.1:{silent_port}"):
        app.send_task("t")
    assert time.monotonic() - started_at < publishing.PUBLISH_SECONDS + 6


@pytest.mark.parametrize("url", ["redis://:secret@127.0.0.1:{}/0", "amqp://guest:secret@127.0.0.1:{}//"])
def test_a_broker_that_is_not_there_is_named_without_its_password(make_app, url):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        app = make_app(url.format(port))
        with pytest.raises(OperationalError) as caught:
            app.send_task("t")

    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "refused" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.redis
def test_a_process_that_only_sends_ends_at_once(queue):
    program = f"""
from celery import Celery
app = Celery(broker={REDIS!r})
app.conf.task_default_queue = {queue!r}
app.send_task("t")
"""
    started_at = time.monotonic()
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)
    assert time.monotonic() - started_at < 10
