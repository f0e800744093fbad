"""Publishing: what arrives, what it costs, and what is said when it cannot."""

from __future__ import annotations

import gc
import json
import os
import signal
import threading
import time

import kombu
import pytest
from kombu.exceptions import OperationalError
from redis_kit import Inbox, Server, drain, new_server, send

from celery.transports.redis import BrokerFull, MessageTooLarge, Publisher

pytestmark = pytest.mark.redis

MESSAGE = (b'{"n": 1}', {"id": "1"}, {"delivery_mode": 2, "correlation_id": "1"}, "application/json", "utf-8")


@pytest.fixture
def publisher(connect):
    publisher = Publisher(connect())
    yield publisher
    publisher.close()


def test_a_message_is_what_kombu_would_send(server, publisher, peer):
    publisher.publish(*MESSAGE, "", "q")
    peer.Producer().publish(
        {"n": 1}, exchange="", routing_key="q", headers={"id": "1"}, correlation_id="1", delivery_mode=2
    )
    theirs, ours = (json.loads(payload) for payload in server.client().lrange("q", 0, -1))
    for envelope in (ours, theirs):
        tag = envelope["properties"].pop("delivery_tag")
        assert len(tag) == 36
        assert tag.count("-") == 4
    assert ours == theirs
    assert list(ours) == list(theirs)


def test_publishing_is_one_command_and_declaring_happens_once(server, publisher):
    queue = kombu.Queue("q", kombu.Exchange("x"), routing_key="k")
    for _ in range(3):
        publisher.declare(queue)
    publisher.publish(*MESSAGE, "x", "k")
    redis = server.client()
    redis.config_resetstat()
    for _ in range(50):
        publisher.publish(*MESSAGE, "x", "k")
        publisher.declare(queue)
    calls = {name: stat["calls"] for name, stat in redis.info("commandstats").items() if "config" not in name}
    assert calls.pop("cmdstat_lpush") == 50
    assert sum(calls.values()) <= 2, calls
    assert redis.llen("q") == 51


def test_a_batch_is_one_pipeline_in_its_order(server, publisher):
    publisher.publish_many([(json.dumps(n).encode(), *MESSAGE[1:], "", "q") for n in range(1500)])
    bodies = [json.loads(payload)["body"] for payload in server.client().lrange("q", 0, -1)]
    assert len(set(bodies)) == 1500
    channel = publisher.connection.channel()
    assert [channel.basic_get("q", no_ack=True).payload for _ in range(3)] == [0, 1, 2]


def test_named_exchanges_of_every_type_are_routed(server, publisher, connect):
    bindings = {
        "direct": [("d1", "red"), ("d2", "red"), ("d3", "blue")],
        "topic": [("t1", "a.*"), ("t2", "a.#"), ("t3", "b.*")],
    }
    for kind, queues in bindings.items():
        for name, key in queues:
            publisher.declare(kombu.Queue(name, kombu.Exchange(f"x.{kind}", type=kind), routing_key=key))
    publisher.publish(*MESSAGE, "x.direct", "red")
    publisher.publish(*MESSAGE, "x.topic", "a.b")
    redis = server.client()
    assert {name: redis.llen(name) for name in ("d1", "d2", "d3", "t1", "t2", "t3")} == {
        "d1": 1, "d2": 1, "d3": 0, "t1": 1, "t2": 1, "t3": 0,
    }  # fmt: skip


def test_a_message_that_no_queue_takes_is_dropped_at_once(server, publisher):
    publisher.declare(kombu.Queue("q", kombu.Exchange("x"), routing_key="k"))
    began = time.monotonic()
    publisher.publish(*MESSAGE, "x", "other")
    publisher.publish_many([(*MESSAGE, "x", "other")])
    assert time.monotonic() - began < 1
    assert server.client().llen("q") == 0


def test_a_new_binding_is_seen(server, publisher, peer):
    publisher.declare(kombu.Queue("q1", kombu.Exchange("x"), routing_key="k"))
    publisher.publish(*MESSAGE, "x", "k")
    publisher.declare(kombu.Queue("q2", kombu.Exchange("x"), routing_key="k"))
    publisher.publish(*MESSAGE, "x", "k")
    assert server.client().llen("q2") == 1


def test_queues_that_expire_are_given_their_time(server, publisher):
    publisher.declare(kombu.Queue("q", kombu.Exchange("q"), routing_key="q", expires=30))
    publisher.publish(*MESSAGE, "", "q")
    assert 0 < server.client().pttl("q") <= 30_000


def test_the_key_prefix_is_on_everything(server, connect):
    connection = connect(global_keyprefix="app1:")
    publisher = Publisher(connection)
    publisher.declare(kombu.Queue("q", kombu.Exchange("q"), routing_key="q"))
    publisher.publish(*MESSAGE, "q", "q")
    assert server.client().llen("app1:q") == 1
    inbox = Inbox(connection, "q")
    drain(connection, lambda: inbox.messages)
    assert all(key.startswith(b"app1:") for key in server.client().scan_iter())
    assert server.client().hlen("app1:unacked") == 1
    with kombu.Connection(server.url(), transport_options={"global_keyprefix": "app1:"}) as peer:
        send(peer, "q", "from a peer")
        drain(connection, lambda: len(inbox.messages) == 2)


def test_many_threads_publish_at_once(server, publisher):
    def publish(start):
        for number in range(start, start + 100):
            publisher.publish(str(number).encode(), *MESSAGE[1:], "", "q")

    threads = [threading.Thread(target=publish, args=(n * 100,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tags = {json.loads(payload)["properties"]["delivery_tag"] for payload in server.client().lrange("q", 0, -1)}
    assert len(tags) == 800


def test_a_thread_takes_its_socket_with_it(server, publisher):
    """A program with a thread a request must not run out of descriptors."""

    def publish():
        publisher.publish(b"1", *MESSAGE[1:], "", "q")

    publish()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        thread = threading.Thread(target=publish)
        thread.start()
        thread.join()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 1


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_publishes_on_its_own_socket(server, publisher):
    publisher.publish(*MESSAGE, "", "q")
    pid = os.fork()
    if pid == 0:
        try:
            for _ in range(50):
                publisher.publish(*MESSAGE, "", "q")
        finally:
            os._exit(0)
    for _ in range(50):
        publisher.publish(*MESSAGE, "", "q")
    os.waitpid(pid, 0)
    payloads = server.client().lrange("q", 0, -1)
    assert len(payloads) == 101
    assert len({json.loads(payload)["properties"]["delivery_tag"] for payload in payloads}) == 101


def test_an_idle_socket_that_was_closed_is_replaced_without_an_error(server, publisher):
    publisher.publish(*MESSAGE, "", "q")
    server.client().execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    time.sleep(0.15)
    publisher.publish(*MESSAGE, "", "q")
    assert server.client().llen("q") == 2


def test_a_stopped_server_is_an_error_at_the_deadline_and_no_hang(own_server, connect):
    publisher = Publisher(connect(url=own_server.url(), socket_timeout=0.5))
    publisher.publish(*MESSAGE, "", "q")
    own_server.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(publisher.connection.connection_errors):
        publisher.publish(*MESSAGE, "", "q")
    assert 0.4 < time.monotonic() - began < 2
    own_server.send_signal(signal.SIGCONT)
    publisher.publish(*MESSAGE, "", "q")


def test_a_full_server_says_so_and_can_be_emptied(tmp_path, connect, loop):
    server: Server = new_server(tmp_path, "--maxmemory", "8mb", "--maxmemory-policy", "noeviction")
    try:
        connection = connect(url=server.url(), lease_ttl=1)
        publisher = Publisher(connection)
        body = b"x" * 64_000
        sent = 0
        with pytest.raises(BrokerFull, match="The broker is full: Redis at 127"):
            for _ in range(1000):
                publisher.publish(body, *MESSAGE[1:], "", "q")
                sent += 1
        assert sent > 20
        assert issubclass(BrokerFull, OperationalError)
        with pytest.raises(BrokerFull):
            for _ in range(20):
                send(connection, "q", "x" * 64_000)
                sent += 1
        loop.listen(connection)
        inbox = Inbox(connection, "q", prefetch=10)
        loop.until(lambda: len(inbox.messages) == 10)
        loop.spin(0.5)  # renewals pass
        for message in inbox.messages:
            message.ack()
        inbox.ack = True
        loop.until(lambda: len(inbox.messages) == sent)
        inbox.channel.flush()
        assert server.client().keys("unacked*") == []
        publisher.publish(body, *MESSAGE[1:], "", "q")
        publisher.close()
    finally:
        server.stop()


def test_a_message_over_the_limit_is_refused_with_both_numbers(server, connect):
    connection = connect(max_message_bytes=10_000)
    publisher = Publisher(connection)
    with pytest.raises(MessageTooLarge, match=r"has 1\d,\d\d\d bytes; at most 10,000 are allowed") as caught:
        publisher.publish(b"x" * 10_000, *MESSAGE[1:], "", "q")
    assert caught.value.limit == 10_000
    with pytest.raises(MessageTooLarge):
        send(connection, "q", "x" * 10_000)
    assert not server.client().exists("q")


def test_nobody_listening_is_an_error_that_names_the_cause(connect):
    publisher = Publisher(connect(url="redis://127.0.0.1:1/0", max_retries=0))
    with pytest.raises(OperationalError, match=r"(?i)refused"):
        publisher.publish(*MESSAGE, "", "q")
