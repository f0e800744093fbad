"""Taking, settling and waiting, with a real server."""

from __future__ import annotations

import threading
import time

import kombu
import pytest
from redis_kit import Inbox, drain, send

from celery.transports.redis.engine import Engine

pytestmark = pytest.mark.redis


def test_a_taken_message_is_recorded_in_the_same_step_and_forgotten_when_acknowledged(server, connect, loop):
    connection = connect()
    send(connection, "q", {"n": 1})
    loop.listen(connection)
    inbox = Inbox(connection, "q")
    loop.until(lambda: inbox.messages)
    redis = server.client()

    [tag] = redis.hkeys("unacked")
    assert tag.decode() == inbox.messages[0].delivery_tag
    assert redis.hget("unacked", tag).endswith(b',"","q"]')
    assert redis.zscore("unacked_index", tag) > redis.time()[0] + 50
    inbox.messages[0].ack()
    inbox.channel.flush()
    assert redis.keys("unacked*") == []


def test_no_more_are_delivered_than_the_prefetch_count_allows(server, connect, loop):
    connection = connect()
    send(connection, "q", *range(20))
    loop.listen(connection)
    inbox = Inbox(connection, "q", prefetch=3)
    loop.until(lambda: len(inbox.messages) == 3)
    loop.spin(0.2)
    assert inbox.bodies == [0, 1, 2]
    assert server.client().llen("q") == 17
    inbox.messages[0].ack()
    loop.until(lambda: len(inbox.messages) == 4)
    assert not inbox.channel.qos.can_consume()
    assert inbox.channel.qos.can_consume_max_estimate() == 0


def test_acknowledgements_travel_in_batches(server, connect, loop):
    connection = connect()
    send(connection, "q", *range(2000))
    loop.listen(connection)
    server.client().config_resetstat()
    inbox = Inbox(connection, "q", prefetch=8, ack=True)
    loop.until(lambda: len(inbox.messages) == 2000)
    inbox.channel.flush()
    calls = server.client().info("commandstats")["cmdstat_evalsha"]["calls"]
    assert calls < 2000 * 0.1, f"{calls} round trips for 2000 messages"
    assert inbox.bodies == list(range(2000))
    assert server.client().keys("unacked*") == []


def test_what_was_taken_ahead_goes_back_when_the_worker_turns_slow(server, connect, loop):
    connection = connect()
    send(connection, "q", *range(3000))
    loop.listen(connection)
    inbox = Inbox(connection, "q", prefetch=4, ack=True)
    loop.until(lambda: len(inbox.messages) >= 1000)
    inbox.ack = False
    loop.until(lambda: server.client().hlen("unacked") == 4)
    taken = len(inbox.messages)
    loop.spin(0.3)
    assert len(inbox.messages) == taken
    assert server.client().llen("q") == 3000 - taken
    for message in inbox.messages[-4:]:
        message.ack()
    inbox.ack = True
    loop.until(lambda: len(inbox.messages) == 3000)
    assert inbox.bodies == list(range(3000))  # and in their old order


def test_priorities_come_first_and_within_one_the_order_of_sending(server, connect, loop):
    connection = connect()
    for number, priority in enumerate([9, 0, 6, 3, 0, 9]):
        send(connection, "q", number, priority=priority)
    loop.listen(connection)
    inbox = Inbox(connection, "q", prefetch=0)
    loop.until(lambda: len(inbox.messages) == 6)
    assert inbox.bodies == [1, 4, 3, 2, 0, 5]


def test_custom_priority_steps_and_separator_are_kept(server, connect, loop):
    connection = connect(priority_steps=[0, 5], sep=":")
    send(connection, "q", "low", priority=7)
    assert server.client().keys("q*") == [b"q:5"]
    loop.listen(connection)
    inbox = Inbox(connection, "q")
    loop.until(lambda: inbox.bodies == ["low"])


def test_queues_get_their_turn_one_after_the_other(server, connect, loop):
    connection = connect()
    for queue in ("a", "b", "c"):
        send(connection, queue, *[queue] * 30)
    loop.listen(connection)
    inbox = Inbox(connection, "a", "b", "c", prefetch=6)
    loop.until(lambda: len(inbox.messages) == 6)
    assert sorted(inbox.bodies) == ["a", "a", "b", "b", "c", "c"]


def test_with_one_message_at_a_time_the_queues_rotate(server, connect):
    connection = connect()
    for queue in ("a", "b"):
        send(connection, queue, *[queue] * 3)
    inbox = Inbox(connection, "a", "b", prefetch=1, ack=True)
    drain(connection, lambda: len(inbox.messages) == 6)
    assert inbox.bodies in (["a", "b"] * 3, ["b", "a"] * 3)


@pytest.mark.parametrize(("strategy", "expected"), [("sorted", ["a"] * 4), ("priority", ["b"] * 4)])
def test_other_orders_of_queues_take_all_of_the_first(server, connect, loop, strategy, expected):
    connection = connect(queue_order_strategy=strategy)
    for queue in ("a", "b"):
        send(connection, queue, *[queue] * 5)
    loop.listen(connection)
    inbox = Inbox(connection, "b", "a", prefetch=4)
    loop.until(lambda: len(inbox.messages) == 4)
    assert inbox.bodies == expected


def test_an_idle_worker_sends_nothing_and_wakes_up_at_once(server, connect, peer, loop):
    connection = connect()
    loop.listen(connection)
    inbox = Inbox(connection, "q", ack=True)
    loop.spin(0.2)
    redis = server.client()
    redis.config_resetstat()
    loop.spin(0.5)
    assert "cmdstat_evalsha" not in redis.info("commandstats")

    delays = []

    def publish_now_and_then():
        producer = peer.Producer()
        for _ in range(30):
            time.sleep(0.005)
            producer.publish(time.perf_counter(), exchange="", routing_key="q")

    def note(message):
        delays.append(time.perf_counter() - message.payload)
        message.ack()

    inbox.consumer.on_message = note
    inbox.consumer.cancel()
    inbox.consumer.consume()
    thread = threading.Thread(target=publish_now_and_then)
    thread.start()
    loop.until(lambda: len(delays) == 30)
    thread.join()
    assert sorted(delays)[15] < 0.010, f"median {sorted(delays)[15] * 1000:.2f} ms"


def test_two_idle_workers_share_what_comes(server, connect, loop):
    inboxes = []
    for _ in range(2):
        connection = connect()
        loop.listen(connection)
        inboxes.append(Inbox(connection, "q", prefetch=2))
    loop.spin(0.1)
    sender = connect()
    for number in range(4):
        send(sender, "q", number)
        loop.spin(0.03)
    loop.until(lambda: sum(len(inbox.messages) for inbox in inboxes) == 4)
    assert [len(inbox.messages) for inbox in inboxes] == [2, 2]


def test_without_tracking_it_asks_and_says_so_once(server, connect, loop, caplog, monkeypatch):
    monkeypatch.setattr(Engine, "_told", False)
    redis = server.client()
    redis.acl_setuser("plain", enabled=True, nopass=True, keys="*", channels="*", categories=["+@all"])
    redis.execute_command("ACL", "SETUSER", "plain", "-client|tracking")
    try:
        url = server.url().replace("redis://", "redis://plain:x@")
        inboxes = []
        for _ in range(2):
            connection = connect(url=url)
            loop.listen(connection)
            inboxes.append(Inbox(connection, "q", prefetch=1))
        assert not connection.transport.cycle.is_tracking
        loop.spin(0.3)
        send(connect(), "q", "found")
        loop.until(lambda: any(inbox.bodies == ["found"] for inbox in inboxes), seconds=1)
        told = [record for record in caplog.records if "does not announce new messages" in record.message]
        assert len(told) == 1
    finally:
        redis.acl_deluser("plain")


def test_no_ack_consumers_leave_no_record(server, connect, loop):
    connection = connect()
    send(connection, "q", 1, 2)
    loop.listen(connection)
    inbox = Inbox(connection, "q", no_ack=True)
    loop.until(lambda: inbox.bodies == [1, 2])
    assert server.client().keys("unacked*") == []


def test_basic_get_takes_one_and_says_when_there_is_none(server, connect):
    channel = connect().channel()
    assert channel.basic_get("q") is None
    send(connect(), "q", 1, 2)
    message = channel.basic_get("q")
    assert message.payload == 1
    assert server.client().hlen("unacked") == 1
    message.ack()
    assert channel.basic_get("q", no_ack=True).payload == 2
    channel.flush()
    assert server.client().hlen("unacked") == 0


def test_simple_queues_work(server, connect):
    queue = connect().SimpleQueue("simple")
    queue.put({"a": 1})
    assert queue.qsize() == 1
    message = queue.get(timeout=5)
    assert message.payload == {"a": 1}
    message.ack()
    with pytest.raises(queue.Empty):
        queue.get(timeout=0.05)
    queue.close()
    assert server.client().keys("unacked*") == []


def test_declare_size_purge_and_delete(server, connect):
    connection = connect()
    queue = kombu.Queue("q", kombu.Exchange("x"), routing_key="k", channel=connection.channel())
    queue.declare()
    assert server.client().smembers("_kombu.binding.x") == {b"k\x06\x16\x06\x16q"}
    producer = connection.Producer()
    for priority in (0, 3, 9):
        producer.publish("m", exchange=queue.exchange, routing_key="k", priority=priority)
    assert queue.queue_declare(passive=True).message_count == 3
    assert queue.purge() == 3
    queue.delete()
    assert server.client().keys("_kombu.binding.x") == []
    with pytest.raises(connection.channel_errors):
        queue.queue_declare(passive=True)


def test_cancelling_stops_delivery_and_returns_what_waited(server, connect, loop):
    connection = connect()
    send(connection, "q", *range(5))
    loop.listen(connection)
    inbox = Inbox(connection, "q", prefetch=1)
    loop.until(lambda: inbox.messages)
    inbox.consumer.cancel()
    inbox.messages[0].ack()
    loop.spin(0.2)
    assert len(inbox.messages) == 1
    assert server.client().llen("q") == 4
    assert server.client().hlen("unacked") == 0


def test_rejecting_drops_or_puts_back(server, connect, loop):
    connection = connect()
    send(connection, "q", "drop", "again")
    loop.listen(connection)
    inbox = Inbox(connection, "q")
    loop.until(lambda: len(inbox.messages) == 2)
    inbox.messages[0].reject()
    inbox.messages[1].requeue()
    loop.until(lambda: len(inbox.messages) == 3)
    again = inbox.messages[2]
    assert again.payload == "again"
    assert again.headers["redelivered"] is True
    assert again.delivery_info["redelivered"] is True
    assert again.redelivery_count == 0
    again.ack()
    inbox.channel.flush()
    assert server.client().keys("[^_]*") == []


def test_acknowledging_multiple_settles_all_before(server, connect, loop):
    connection = connect()
    send(connection, "q", 1, 2, 3)
    loop.listen(connection)
    inbox = Inbox(connection, "q")
    loop.until(lambda: len(inbox.messages) == 3)
    inbox.messages[1].ack(multiple=True)
    inbox.channel.flush()
    assert server.client().hkeys("unacked") == [inbox.messages[2].delivery_tag.encode()]


def test_what_is_no_message_is_set_aside_and_the_next_one_arrives(server, connect, loop):
    connection = connect()
    redis = server.client()
    bad = [b"{not json", b"[]", b"null", b'{"body": 1}', b'{"properties": [], "headers": {}}', b"\xff\xfe", b"[" * 5000]
    for payload in bad:
        redis.lpush("q", payload)
    send(connection, "q", "good")
    told = []
    loop.listen(connection)
    inbox = Inbox(connection, "q", prefetch=0)
    inbox.channel.on_set_aside = lambda queue, message, reason: told.append((queue, reason))
    loop.until(lambda: inbox.bodies == ["good"])
    loop.until(lambda: redis.llen("q.dead") == len(bad))
    assert {queue for queue, _ in told} == {"q"}
    assert all(reason.startswith("malformed: ") for _, reason in told)
    assert redis.hlen("unacked") == 1
    kept = [connection.channel().basic_get("q.dead") for _ in bad]
    assert [message.body for message in kept] == bad
    assert all(message.headers["x-celeriac-reason"].startswith("malformed") for message in kept)


def test_a_message_can_be_set_aside_with_a_reason(server, connect, loop):
    connection = connect()
    send(connection, "q", {"x": 1}, headers={"id": "7"})
    loop.listen(connection)
    inbox = Inbox(connection, "q")
    loop.until(lambda: inbox.messages)
    inbox.channel.dead_letter(inbox.messages[0], "unknown task")
    inbox.channel.flush()
    assert inbox.messages[0].acknowledged
    assert server.client().hlen("unacked") == 0
    kept = inbox.channel.basic_get("q.dead")
    assert kept.payload == {"x": 1}
    assert kept.headers == {"id": "7", "x-celeriac-reason": "unknown task"}


def test_acknowledging_from_another_thread_does_not_wait_for_the_next_message(server, connect):
    connection = connect()
    send(connection, "q", 1)
    inbox = Inbox(connection, "q")
    drain(connection, lambda: inbox.messages)
    redis = server.client()
    seen = []

    def acknowledge():
        time.sleep(0.1)
        inbox.messages[0].ack()
        deadline = time.monotonic() + 1
        while redis.hlen("unacked") and time.monotonic() < deadline:
            time.sleep(0.005)
        seen.append(redis.hlen("unacked"))

    thread = threading.Thread(target=acknowledge)
    thread.start()
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=1.5)
    thread.join()
    assert seen == [0]


def test_fetching_only_when_free_is_honoured(server, connect, loop):
    """A worker may replace ``can_consume``, as ``worker_disable_prefetch`` does."""
    connection = connect()
    send(connection, "q", *range(5))
    loop.listen(connection)
    inbox = Inbox(connection, "q", prefetch=4)
    inbox.channel.qos.can_consume = lambda: len(inbox.messages) < 2
    loop.until(lambda: len(inbox.messages) == 2)
    loop.spin(0.2)
    assert len(inbox.messages) == 2
    assert server.client().llen("q") == 3
