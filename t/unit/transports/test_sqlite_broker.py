"""The broker in one file: what a consumer dies with comes back, and what a living one holds does not."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter

import kombu
import pytest
from kombu.asynchronous import Hub
from kombu.common import Broadcast
from kombu.pidbox import Mailbox

from celery.exceptions import ImproperlyConfigured
from celery.transports import Connection


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/broker.sqlite"


@pytest.fixture
def connect(url):
    opened = []

    def make(**options):
        connection = Connection(url, transport_options=options)
        opened.append(connection)
        return connection

    yield make
    for connection in opened:
        connection.release()


def send(connection, queue, *bodies, **options):
    producer = connection.Producer()
    for body in bodies:
        producer.publish(body, exchange="", routing_key=queue, serializer="json", **options)


class Inbox:
    def __init__(self, connection, *queues, prefetch=8, ack=False, **options):
        self.messages = []
        self.ack = ack
        self.channel = connection.channel()
        self.channel.basic_qos(0, prefetch, False)
        self.consumer = connection.Consumer(
            [kombu.Queue(name, channel=self.channel) for name in queues],
            channel=self.channel,
            on_message=self.take,
            accept=["json"],
            **options,
        )
        self.consumer.consume()

    def take(self, message):
        self.messages.append(message)
        if self.ack:
            message.ack()

    @property
    def bodies(self):
        return [message.payload for message in self.messages]


def drain(connection, wanted=lambda: False, seconds=5.0):
    """Drain until ``wanted()`` or until nothing comes any more."""
    deadline = time.monotonic() + seconds
    while not wanted() and time.monotonic() < deadline:
        try:
            connection.drain_events(timeout=0.05)
        except TimeoutError:
            if not wanted():
                continue
            return


def stored(url, what="COUNT(*)"):
    with sqlite3.connect(url.removeprefix("sqlite:///")) as db:
        rows = db.execute(f"SELECT {what} FROM messages").fetchall()
    db.close()
    return rows


def test_the_url_is_kept_and_the_transport_found(url, connect):
    connection = connect()
    assert connection.as_uri() == url
    assert connection.clone().as_uri() == url
    assert connection.transport.driver_type == "sqlite"


def test_a_message_stays_in_the_file_until_it_is_acknowledged(url, connect):
    connection = connect()
    send(connection, "q", {"n": 1}, {"n": 2})
    inbox = Inbox(connection, "q")
    drain(connection, lambda: len(inbox.messages) == 2)
    assert inbox.bodies == [{"n": 1}, {"n": 2}]
    assert stored(url) == [(2,)]
    inbox.messages[0].ack()
    inbox.messages[1].reject()
    assert stored(url) == [(0,)]


def test_the_prefetch_count_is_kept(url, connect):
    connection = connect()
    send(connection, "q", *range(10))
    inbox = Inbox(connection, "q", prefetch=3)
    drain(connection, lambda: len(inbox.messages) > 3, seconds=0.3)
    assert len(inbox.messages) == 3
    inbox.messages[0].ack()
    drain(connection, lambda: len(inbox.messages) == 4)
    assert inbox.bodies == [0, 1, 2, 3]


def test_higher_priority_first(connect):
    connection = connect()
    for number, priority in enumerate([0, 9, 5, 9]):
        send(connection, "q", number, priority=priority)
    inbox = Inbox(connection, "q", prefetch=0, ack=True)
    drain(connection, lambda: len(inbox.messages) == 4)
    assert inbox.bodies == [1, 3, 2, 0]


def test_the_event_loop_delivers_what_another_connection_sends(connect):
    connection, sender = connect(), connect()
    hub = Hub()
    connection.connect()
    connection.transport.register_with_event_loop(connection.connection, hub)
    inbox = Inbox(connection, "q", prefetch=2, ack=True)
    send(sender, "q", *range(20))
    deadline = time.monotonic() + 5
    while len(inbox.messages) < 20 and time.monotonic() < deadline:
        hub.run_once()
    assert inbox.bodies == list(range(20))
    connection.release()
    assert hub.on_tick == set()
    hub.close()


def test_a_clean_close_puts_messages_back_in_their_order(url, connect):
    connection = connect()
    send(connection, "q", 1, 2, 3)
    inbox = Inbox(connection, "q", prefetch=2)
    drain(connection, lambda: len(inbox.messages) == 2)
    connection.release()
    other = connect()
    after = Inbox(other, "q", prefetch=0, ack=True)
    drain(other, lambda: len(after.messages) == 3)
    assert after.bodies == [1, 2, 3]
    assert [message.headers.get("redelivered") for message in after.messages] == [True, True, None]


def test_requeued_messages_come_last_and_say_so(connect):
    connection = connect()
    send(connection, "q", "a", "b")
    inbox = Inbox(connection, "q", prefetch=1)
    drain(connection, lambda: inbox.messages)
    inbox.messages[0].requeue()
    inbox.ack = True
    drain(connection, lambda: len(inbox.messages) == 3)
    assert inbox.bodies == ["a", "b", "a"]
    assert inbox.messages[2].delivery_info["redelivered"] is True


def test_no_ack_and_basic_get(url, connect):
    connection = connect()
    send(connection, "q", 1, 2, 3)
    inbox = Inbox(connection, "q", no_ack=True)
    drain(connection, lambda: inbox.messages)
    inbox.consumer.cancel()
    channel = connection.channel()
    rest = []
    while message := channel.basic_get("q"):
        rest.append(message.payload)
        message.ack()
    assert sorted(inbox.bodies + rest) == [1, 2, 3]
    assert stored(url) == [(0,)]


def test_what_is_no_message_is_set_aside(url, connect):
    connection = connect()
    connection.connect()
    connection.transport.store.put(["q"], b"{broken", 0)
    send(connection, "q", "good")
    inbox = Inbox(connection, "q", ack=True)
    drain(connection, lambda: inbox.messages)
    assert inbox.bodies == ["good"]
    kept = connection.channel().basic_get("q.dead")
    assert kept.body == b"{broken"
    assert kept.headers["x-celeriac-reason"].startswith("malformed: ")


def test_broadcasts_reach_every_queue_and_control_works(connect):
    worker, caller = connect(), connect()
    got = []
    for name in ("one", "two"):
        channel = worker.channel()
        queue = Broadcast(queue=f"bcast.{name}", exchange=kombu.Exchange("bcast", type="fanout"))
        worker.Consumer(
            [queue(channel)],
            channel=channel,
            callbacks=[lambda body, message, name=name: (got.append(name), message.ack())],
        ).consume()
    exchange = kombu.Exchange("bcast", type="fanout")
    caller.Producer().publish("all", exchange=exchange, declare=[exchange], serializer="json")
    drain(worker, lambda: len(got) == 2)
    assert sorted(got) == ["one", "two"]

    mailbox = Mailbox("control", type="fanout")
    handlers = {"ping": lambda state, **arguments: {"ok": "pong"}}
    mailbox(worker).Node("w1", channel=worker.channel(), handlers=handlers).listen()
    stop = threading.Event()
    thread = threading.Thread(target=lambda: [drain(worker, seconds=0.1) for _ in iter(stop.is_set, True)])
    thread.start()
    try:
        assert mailbox(caller)._broadcast("ping", reply=True, timeout=3, limit=1) == [{"w1": {"ok": "pong"}}]
    finally:
        stop.set()
        thread.join()


def test_unused_queues_that_expire_are_deleted(url, connect):
    connection = connect()
    channel = connection.channel()
    exchange = kombu.Exchange("x", type="fanout")
    kombu.Queue("short", exchange, expires=0.1, channel=channel).declare()
    kombu.Queue("kept", exchange, channel=channel).declare()
    connection.Producer(channel).publish(1, exchange=exchange)
    assert len(stored(url)) == 1
    time.sleep(0.15)
    connection.transport.store.keep_in_use([])
    assert [queue for _, _, queue in connection.transport.store.bindings("x")] == ["kept"]


ACTOR = """
    import os, sys, kombu
    from celery.transports import Connection
    connection = Connection(sys.argv[1])
    channel = connection.channel()
    channel.basic_qos(0, 4, False)
    log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    def take(message):
        if "started" in sys.argv:
            message.started()
        os.write(log, b"%d\\n" % message.payload["n"])
        if "hold" not in sys.argv:
            message.ack()
    connection.Consumer([kombu.Queue("jobs", channel=channel)], channel=channel, on_message=take).consume()
    print("ready", flush=True)
    while True:
        try:
            connection.drain_events(timeout=1)
        except TimeoutError:
            pass
"""


@pytest.fixture
def start(url, tmp_path):
    processes = []

    def start_actor(*flags, failpoints=""):
        env = dict(os.environ, CELERIAC_FAILPOINTS=failpoints)
        command = [sys.executable, "-c", textwrap.dedent(ACTOR), url, str(tmp_path / "log"), *flags]
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE)
        processes.append(process)
        process.stdout.readline()
        return process

    yield start_actor
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def noted(tmp_path):
    log = tmp_path / "log"
    return Counter(int(line) for line in log.read_text().split()) if log.exists() else Counter()


def wait_for(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


@pytest.mark.parametrize("failpoint", ["fetch.after_lease", "ack.before_send", "ack.after_send"])
def test_a_killed_consumer_loses_nothing(url, connect, start, tmp_path, failpoint):
    send(connect(), "jobs", *({"n": n} for n in range(12)))
    for skip in (0, 2):
        assert start(failpoints=f"{failpoint}=kill,skip={skip}").wait(10) == -signal.SIGKILL
    start()
    wait_for(lambda: stored(url) == [(0,)])
    assert set(noted(tmp_path)) == set(range(12))
    assert max(noted(tmp_path).values()) <= 3


def test_killed_while_it_recovers_a_worker_blocks_nobody(url, connect, start, tmp_path):
    send(connect(), "jobs", {"n": 0})
    assert start(failpoints="ack.before_send=kill").wait(10) == -signal.SIGKILL
    assert start(failpoints="sweep.after_read=kill").wait(10) == -signal.SIGKILL
    start()
    wait_for(lambda: stored(url) == [(0,)])
    assert noted(tmp_path) == {0: 2}


def test_what_a_living_process_holds_is_never_given_away(url, connect, start, tmp_path):
    send(connect(), "jobs", {"n": 0})
    holder = start("hold")
    wait_for(lambda: noted(tmp_path))
    connection = connect()
    assert connection.channel().connection.store.recover() == 0
    holder.kill()
    holder.wait()
    assert connection.transport.store.recover() == 1
    inbox = Inbox(connection, "jobs")
    drain(connection, lambda: inbox.messages)
    assert inbox.messages[0].headers["redelivered"] is True
    assert inbox.messages[0].redelivery_count == 0


def test_a_message_that_kills_its_worker_three_times_is_set_aside(url, connect, start, tmp_path):
    connection = connect()
    send(connection, "jobs", {"n": 0})
    for tries in (1, 2, 3):
        victim = start("hold", "started")
        wait_for(lambda tries=tries: noted(tmp_path)[0] == tries)
        victim.kill()
        victim.wait()
    send(connection, "jobs", {"n": 1})
    start()
    wait_for(lambda: noted(tmp_path)[1])
    assert noted(tmp_path)[0] == 3
    kept = connection.channel().basic_get("jobs.dead")
    assert kept.payload == {"n": 0}
    assert "lost 3 times" in kept.headers["x-celeriac-reason"]


def test_the_worker_says_that_a_task_was_lost(url, connect):
    connection = connect()
    send(connection, "q", 1)
    inbox = Inbox(connection, "q")
    for count in range(3):
        drain(connection, lambda count=count: len(inbox.messages) == count + 1)
        assert inbox.messages[-1].redelivery_count == count
        inbox.messages[-1].requeue_lost()
    drain(connection, lambda: connection.channel().queue_declare("q.dead", passive=False).message_count)
    assert len(inbox.messages) == 3


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_publishes_and_leaves_the_parents_messages_alone(url, connect):
    connection = connect()
    send(connection, "q", "parent")
    inbox = Inbox(connection, "q")
    drain(connection, lambda: inbox.messages)
    pid = os.fork()
    if pid == 0:
        try:
            send(connection, "other", "child")
            connection.release()
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert connection.channel().basic_get("other").payload == "child"
    inbox.messages[0].ack()
    assert connection.transport.store.size("q") == 0


def test_a_busy_file_is_waited_for(url, connect):
    connection = connect(busy_timeout=5)
    send(connection, "q", 1)
    blocker = sqlite3.connect(url.removeprefix("sqlite:///"), check_same_thread=False)
    blocker.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.3, blocker.rollback)
    release.start()
    send(connection, "q", 2)
    release.join()
    blocker.close()
    assert stored(url) == [(2,)]


def test_a_file_locked_for_too_long_is_an_error_and_no_hang(url, connect):
    connection = connect(busy_timeout=0.1)
    send(connection, "q", 1)
    blocker = sqlite3.connect(url.removeprefix("sqlite:///"))
    blocker.execute("BEGIN EXCLUSIVE")
    with pytest.raises(connection.connection_errors, match="locked"):
        send(connection, "q", 2)
    blocker.close()


@pytest.mark.parametrize("bad", ["sqlite://", "sqlite:///", "sqlite:////", "sqlite:////no/such/directory/x.db"])
def test_a_url_that_names_no_file_is_refused(bad):
    with pytest.raises(ImproperlyConfigured, match=r"names no file|no directory"):
        Connection(bad).connect()


def test_payloads_are_readable_by_anyone(url, connect):
    send(connect(), "q", {"a": 1}, headers={"id": "x"})
    [(payload,)] = stored(url, "payload")
    assert json.loads(payload)["headers"] == {"id": "x"}
