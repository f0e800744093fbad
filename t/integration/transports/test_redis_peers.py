"""Queues, broadcasts and remote control shared with kombu's own Redis transport, both ways."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time

import kombu
import pytest
from kombu.common import Broadcast
from kombu.pidbox import Mailbox
from redis_kit import Inbox, drain, free_port, new_server, send

from celery.transports import Connection
from celery.transports.redis import Publisher

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


def test_a_unix_socket_is_reached(tmp_path, connect):
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


def test_tls_and_a_login_are_used(tmp_path, loop):
    names = [str(tmp_path / name) for name in ("key.pem", "cert.pem")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    try:
        subprocess.run([*command, "-keyout", names[0], "-out", names[1]], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    port = free_port()
    options = ["--tls-port", str(port), "--tls-key-file", names[0], "--tls-cert-file", names[1]]
    server = new_server(tmp_path, *options, "--tls-auth-clients", "no")
    server.client().acl_setuser(
        "app", enabled=True, passwords=["+geheim"], keys="*", channels="*", categories=["+@all"]
    )
    try:
        ssl = {"ssl_cert_reqs": "required", "ssl_ca_certs": names[1], "ssl_check_hostname": False}
        connection = Connection(f"rediss://app:geheim@localhost:{port}/0", ssl=ssl)
        assert "geheim" not in connection.as_uri()
        Publisher(connection).publish(b"0", {}, {}, "application/json", "utf-8", "", "q")
        loop.listen(connection)
        inbox = Inbox(connection, "q", ack=True, prefetch=50)
        for number in range(1, 200):
            send(connection, "q", number)
        send(connection, "q", "x" * 500_000)
        loop.until(lambda: len(inbox.messages) == 201)
        assert inbox.bodies[:200] == list(range(200))
        assert connection.transport.cycle.is_tracking
        time.sleep(0.15)
        send(connection, "q", "after a pause")  # session tickets are no sign of a dead line
        loop.until(lambda: inbox.bodies[-1] == "after a pause")
        connection.release()
        wrong = Connection(f"rediss://app:falsch@localhost:{port}/0", ssl=ssl)
        with pytest.raises(wrong.connection_errors, match=r"WRONGPASS|invalid username"):
            wrong.connect()
    finally:
        server.stop()


def test_sentinels_name_the_master(tmp_path, loop):
    server = new_server(tmp_path)
    port = free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"port {port}\nsentinel monitor mymaster 127.0.0.1 {server.port} 1\n")
    command = ["redis-server", str(config), "--sentinel"]
    sentinel = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=tmp_path)
    try:
        connection = Connection(f"sentinel://127.0.0.1:{port}/0", transport_options={"master_name": "mymaster"})
        deadline = time.monotonic() + 10
        while True:
            try:
                connection.connect()
                break
            except connection.connection_errors:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        loop.listen(connection)
        send(connection, "q", *range(20))
        inbox = Inbox(connection, "q", ack=True)
        loop.until(lambda: inbox.bodies == list(range(20)))
        assert server.client().llen("q") == 0
        connection.release()
    finally:
        sentinel.kill()
        sentinel.wait()
        server.stop()


def test_green_threads_take_and_settle(server):
    pytest.importorskip("gevent")
    program = f"""
        from gevent import monkey; monkey.patch_all()
        import gevent, kombu
        from celery.transports import Connection
        from celery.transports.redis import Publisher
        publisher = Publisher(Connection({server.url()!r}))
        def publish(start):
            for n in range(start, start + 20):
                publisher.publish(b"%d" % n, {{}}, {{}}, "application/json", "utf-8", "", "q")
        gevent.joinall([gevent.spawn(publish, n * 20) for n in range(5)], raise_error=True)
        connection = Connection({server.url()!r})
        channel = connection.channel()
        channel.basic_qos(0, 10, False)
        got = []
        def take(message):
            def work():
                gevent.sleep(0.001)
                message.ack()
                got.append(message.payload)
            gevent.spawn(work)
        connection.Consumer([kombu.Queue("q", channel=channel)], channel=channel, on_message=take).consume()
        with gevent.Timeout(10):
            while len(got) < 100:
                try:
                    connection.drain_events(timeout=0.1)
                except TimeoutError:
                    pass
        connection.release()
        assert sorted(got) == list(range(100))
        print("done")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "done\n", done.stderr
    assert server.client().keys("unacked*") == []
