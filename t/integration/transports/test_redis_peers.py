"""Queues, broadcasts and remote control shared with kombu's own Redis transport, both ways."""

from __future__ import annotations

import threading
import time

import kombu
import pytest
from kombu.common import Broadcast
from kombu.pidbox import Mailbox
from redis_kit import Inbox, drain, send

pytestmark = pytest.mark.redis


@pytest.fixture(params=["ours to theirs", "theirs to ours"])
def pair(request, connect, peer):
    """Return (sender, receiver), one of them over kombu's transport."""
    ours = connect()
    return (ours, peer) if request.param == "ours to theirs" else (peer, ours)


def test_messages_of_every_priority_cross(server, pair):
    sender, receiver = pair
    for number, priority in enumerate([0, 9, 3, 6]):
        send(sender, "q", {"n": number}, priority=priority, headers={"id": str(number)}, correlation_id=str(number))
    inbox = Inbox(receiver, "q", ack=True)
    drain(receiver, lambda: len(inbox.messages) == 4)
    assert [body["n"] for body in inbox.bodies] == [0, 2, 3, 1]
    first = inbox.messages[0]
    assert first.headers == {"id": "0"}
    assert first.properties["correlation_id"] == "0"
    assert first.delivery_info == {"exchange": "", "routing_key": "q"}
    assert first.content_type == "application/json"
    receiver.release()
    assert server.client().keys("unacked*") == []


def test_compressed_and_binary_bodies_cross(server, pair):
    sender, receiver = pair
    producer = sender.Producer()
    producer.publish({"z": "x" * 5000}, exchange="", routing_key="q", compression="gzip")
    producer.publish(
        b"\x00\xff", exchange="", routing_key="q", content_type="application/data", content_encoding="binary"
    )
    inbox = Inbox(receiver, "q", ack=True)
    drain(receiver, lambda: len(inbox.messages) == 2)
    assert inbox.bodies[0] == {"z": "x" * 5000}
    assert inbox.messages[1].body == b"\x00\xff"


def test_bindings_made_by_one_route_messages_of_the_other(server, pair):
    sender, receiver = pair
    exchange = kombu.Exchange("x", type="topic")
    kombu.Queue("q", exchange, routing_key="news.#", channel=receiver.channel()).declare()
    channel = sender.channel()
    exchange(channel).declare()
    sender.Producer(channel).publish("hello", exchange=exchange, routing_key="news.today", serializer="json")
    inbox = Inbox(receiver, "q", ack=True)
    drain(receiver, lambda: inbox.bodies == ["hello"])


def test_broadcasts_cross(server, pair):
    sender, receiver = pair
    got = []
    for name in ("one", "two"):
        channel = receiver.channel()
        queue = Broadcast(name=name, queue=f"bcast.{name}", exchange=kombu.Exchange("bcast", type="fanout"))
        consumer = receiver.Consumer(
            [queue(channel)], channel=channel, callbacks=[lambda body, message, name=name: got.append((name, body))]
        )
        consumer.consume()
    drain(receiver, lambda: True)
    try:
        receiver.drain_events(timeout=0.2)
    except TimeoutError:
        pass
    exchange = kombu.Exchange("bcast", type="fanout")
    sender.Producer().publish("all", exchange=exchange, declare=[exchange], serializer="json")
    drain(receiver, lambda: len(got) == 2)
    assert sorted(got) == [("one", "all"), ("two", "all")]


def test_topics_of_broadcasts_are_kept_apart(server, connect):
    connection = connect()
    exchange = kombu.Exchange("ev", type="fanout")
    got = []
    channel = connection.channel()
    queue = kombu.Queue("ev.workers", exchange, routing_key="worker.#", channel=channel, auto_delete=True)
    connection.Consumer(
        [queue], channel=channel, callbacks=[lambda body, message: got.append(body)], no_ack=True
    ).consume()
    producer = connection.Producer(auto_declare=True)
    exchange(connection.default_channel).declare()
    for key in ("task.sent", "worker.online"):
        producer.publish(key, exchange=exchange, routing_key=key, serializer="json")
    drain(connection, lambda: got)
    assert got == ["worker.online"]


def test_remote_control_crosses(server, pair):
    caller, worker = pair
    mailbox = Mailbox("control", type="fanout")
    handlers = {"ping": lambda state, **arguments: {"ok": "pong"}}
    node = mailbox(worker).Node("w1", channel=worker.channel(), handlers=handlers)
    consumer = node.listen()
    stop = threading.Event()

    def serve():
        while not stop.is_set():
            try:
                worker.drain_events(timeout=0.05)
            except TimeoutError:
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        time.sleep(0.3)
        replies = mailbox(caller)._broadcast("ping", reply=True, timeout=2, limit=1)
    finally:
        stop.set()
        thread.join()
    assert replies == [{"w1": {"ok": "pong"}}]
    consumer.cancel()


def test_both_kinds_of_worker_empty_one_queue_together(server, connect, peer):
    send(peer, "q", *range(200))
    ours = connect(visibility_timeout=3600)
    mine, theirs = Inbox(ours, "q", prefetch=4, ack=True), Inbox(peer, "q", prefetch=4, ack=True)
    deadline = time.monotonic() + 15
    while len(mine.messages) + len(theirs.messages) < 200 and time.monotonic() < deadline:
        for connection in (ours, peer):
            try:
                connection.drain_events(timeout=0.01)
            except TimeoutError:
                pass
    assert sorted(mine.bodies + theirs.bodies) == list(range(200))
    assert mine.bodies
    assert theirs.bodies


def test_our_sweep_leaves_what_a_peer_holds(server, connect, peer):
    send(peer, "q", 1)
    message = peer.SimpleQueue("q").get(timeout=5)
    connection = connect(lease_ttl=0.2)
    inbox = Inbox(connection, "q")
    end = time.monotonic() + 1
    while time.monotonic() < end:
        try:
            connection.drain_events(timeout=0.05)
        except TimeoutError:
            pass
    assert inbox.messages == []
    message.ack()
    assert server.client().keys("unacked*") == []


def test_auto_deleted_broadcast_queues_leave_no_keys(server, connect):
    connection = connect()
    channel = connection.channel()
    queue = Broadcast(queue="bcast.x", exchange=kombu.Exchange("bcast", type="fanout"))
    connection.Consumer([queue(channel)], channel=channel, callbacks=[print]).consume()
    assert server.client().exists("_kombu.binding.bcast")
    connection.release()
    assert server.client().keys("_kombu.binding.*") == []


def test_a_unix_socket_and_tls_are_reached(tmp_path, connect):
    from redis_kit import new_server

    path = tmp_path / "redis.sock"
    server = new_server(tmp_path, "--unixsocket", str(path))
    try:
        connection = connect(url=f"redis+socket://{path}?virtual_host=2")
        assert connection.as_uri().startswith("redis+socket://")
        send(connection, "q", 1)
        inbox = Inbox(connection, "q", ack=True)
        drain(connection, lambda: inbox.bodies == [1])
        assert connection.transport.__class__.__module__ == "celery.transports.redis.transport"
    finally:
        server.stop()
