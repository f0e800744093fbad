"""Messages that wait at the broker for their time, and the record of revoked tasks."""

from __future__ import annotations

import json
import time
import uuid
from datetime import datetime, timedelta, timezone

import pytest
from redis_kit import Inbox, send


def task(connect, queue, seconds, **options):
    """Send a task message that is due in ``seconds``, as a client of Celery does; returns its id."""
    task_id = str(uuid.uuid4())
    eta = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    headers = {"id": task_id, "task": "t", "eta": eta.isoformat()}
    send(connect(), queue, [[], {}, {}], headers=headers, **options)
    return task_id


def parked(inbox, *queues, **options):
    return [message.headers["id"] for _, message in inbox.channel.parked(queues, **options)]


def wait_for_park(loop, inbox, *due):
    """Let ``inbox`` take as many messages and park them, due in so many seconds each."""
    loop.until(lambda: len(inbox.messages) >= len(due))
    now = time.time()
    for message, seconds in zip(inbox.messages, due, strict=True):
        assert message.park(now + seconds)
    inbox.messages.clear()
    loop.until(lambda: not inbox.channel.engine._parks_in_flight and not inbox.channel.lease.parks)


@pytest.fixture
def taker(connect, loop):
    """Makes consumers on connections of their own."""

    def make(queue="jobs", **options):
        connection = connect(**options)
        loop.listen(connection)
        return Inbox(connection, queue, ack=False)

    return make


def test_a_parked_message_is_nobodys_until_it_is_due(server, connect, loop, taker):
    task_id = task(connect, "jobs", 3600)
    inbox = taker()
    wait_for_park(loop, inbox, 3600)
    client = server.client()

    assert client.hlen("unacked") == client.zcard("unacked_index") == client.llen("jobs") == 0
    assert parked(inbox, "jobs") == [task_id]
    assert parked(inbox, "jobs", ids=["other", task_id]) == [task_id]
    assert inbox.channel.parked_count("jobs") == 1
    assert inbox.channel.queue_declare("jobs", passive=False).message_count == 0


def test_it_comes_back_when_it_is_due_to_whoever_is_there(connect, loop, taker):
    task_id = task(connect, "jobs", 3)
    first = taker()
    wait_for_park(loop, first, 1.2)
    second = taker()
    first.consumer.cancel()
    loop.until(lambda: second.messages, 10)

    assert second.messages[0].headers["id"] == task_id
    assert second.messages[0].was_parked
    assert not first.messages


def test_an_idle_worker_asks_no_more_often_because_something_is_parked(server, connect, loop, taker):
    task(connect, "jobs", 3600)
    inbox = taker()
    wait_for_park(loop, inbox, 3600)
    loop.spin(1.5)  # the first round of housekeeping is over
    before = server.client().info("commandstats")["cmdstat_evalsha"]["calls"]
    loop.spin(2)

    assert server.client().info("commandstats")["cmdstat_evalsha"]["calls"] == before


def test_a_worker_learns_that_another_parked_something_earlier(connect, loop, taker):
    waiting = taker()
    task(connect, "jobs", 3600)
    loop.until(lambda: waiting.messages)
    wait_for_park(loop, waiting, 3600)
    parker = taker()
    waiting.consumer.cancel()
    task_id = task(connect, "jobs", 3)
    wait_for_park(loop, parker, 1.5)
    waiting.consumer.consume()
    parker.consumer.cancel()
    loop.until(lambda: waiting.messages, 10)

    assert [message.headers["id"] for message in waiting.messages] == [task_id]


def test_due_messages_come_in_the_order_of_their_times_before_those_that_wait(connect, loop, taker):
    ids = [task(connect, "jobs", 3) for _ in range(3)]
    inbox = taker()
    wait_for_park(loop, inbox, 0.5, 0.4, 0.3)
    inbox.consumer.cancel()
    later = task(connect, "jobs", -1)
    loop.spin(0.8)
    inbox.consumer.consume()
    loop.until(lambda: len(inbox.messages) == 4)

    assert [message.headers["id"] for message in inbox.messages] == [*reversed(ids), later]


def test_a_priority_is_kept(server, connect, loop, taker):
    task(connect, "jobs", 3, priority=6)
    inbox = taker()
    wait_for_park(loop, inbox, 3600)
    record = server.client().hvals("jobs.delayed")[0]

    assert record.partition(b"\n")[0] == b"jobs\x06\x166"


def test_one_id_twice_is_two_messages(server, connect, loop, taker):
    headers = {"id": "same", "task": "t"}
    send(connect(), "jobs", 1, 2, headers=headers)
    inbox = taker()
    wait_for_park(loop, inbox, 0.3, 0.3)
    loop.until(lambda: len(inbox.messages) == 2)

    assert sorted(inbox.bodies) == [1, 2]


def test_a_peer_finds_it_in_the_plain_queue_when_ours_have_no_room(server, connect, loop, peer):
    task_id = task(connect, "jobs", 3)
    connection = connect()
    loop.listen(connection)
    inbox = Inbox(connection, "jobs", prefetch=1)
    wait_for_park(loop, inbox, 1.0)
    task(connect, "jobs", -1)
    loop.until(lambda: inbox.messages)  # full now
    loop.until(lambda: server.client().llen("jobs"), 10)
    found = peer.SimpleQueue("jobs").get(timeout=5)

    assert found.headers["id"] == task_id
    assert found.payload == [[], {}, {}]


def test_a_purge_takes_what_is_parked_too(server, connect, loop, taker):
    task(connect, "jobs", 3600)
    inbox = taker()
    wait_for_park(loop, inbox, 3600)

    assert inbox.channel.queue_purge("jobs") == 1
    assert not server.client().keys("jobs.delayed*")


def test_what_was_being_parked_when_the_connection_was_lost_is_parked_on_the_next(server, connect, loop):
    task_id = task(connect, "jobs", 3600)
    connection = connect()
    loop.listen(connection)
    inbox = Inbox(connection, "jobs")
    loop.until(lambda: inbox.messages)
    server.client().execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert inbox.messages[0].park(time.time() + 3600)
    with pytest.raises(connection.connection_errors):
        loop.spin(5)
    connection.collect()
    other = connect()
    loop.listen(other)
    again = Inbox(other, "jobs")
    loop.until(lambda: again.channel.parked_count("jobs"))

    assert parked(again, "jobs") == [task_id]
    assert not server.client().hlen("unacked")


# -- revoked


def told(connection):
    heard = []
    connection.transport.on_revoked = lambda ids, stamps: heard.append((sorted(ids), stamps))
    return heard


def test_what_was_revoked_is_told_before_anything_is_delivered(connect, loop):
    task(connect, "jobs", -1)
    connect().channel().store_revoked(["a", "b"], {"team": ["x", 1]}, ["jobs"])
    connection = connect()
    loop.listen(connection)
    heard = told(connection)
    inbox = Inbox(connection, "jobs")
    known = []
    inbox.consumer.on_message = lambda message: known.extend(heard)
    loop.until(lambda: known)

    assert known == [(["a", "b"], {"team": ["x", 1]})]


def test_an_idle_worker_is_told_of_a_revoke_at_once_and_of_each_once(connect, loop):
    connection = connect()
    loop.listen(connection)
    heard = told(connection)
    Inbox(connection, "jobs")
    loop.spin(0.2)
    client = connect().channel()
    client.store_revoked(["a"], {}, [])
    loop.until(lambda: len(heard) == 1)
    client.store_revoked(["a"], {}, [])
    client.store_revoked(["b"], {}, [])
    loop.until(lambda: len(heard) == 2)

    assert heard == [(["a"], {}), (["b"], {})]


def test_a_revoked_task_that_is_parked_goes_where_a_worker_meets_it(connect, loop, taker):
    task_id = task(connect, "jobs", 3600)
    inbox = taker()
    wait_for_park(loop, inbox, 3600)
    connect().channel().store_revoked([task_id], {}, ["jobs"])
    loop.until(lambda: inbox.messages)

    assert inbox.messages[0].headers["id"] == task_id


def test_the_record_is_bounded_and_ends(server, connect, monkeypatch):
    monkeypatch.setattr("celery.transports.redis.revoking.MOST_KEPT", 3)
    channel = connect(revoke_ttl=100).channel()
    for number in range(5):
        channel.store_revoked([str(number)], {}, [])
    client = server.client()

    assert client.zrange("celeriac.revoked", 0, -1) == [b"i2", b"i3", b"i4"]
    assert 0 < client.ttl("celeriac.revoked") <= 100
    assert 0 < client.ttl("celeriac.revoked:version") <= 100


def test_a_parked_payload_is_still_kombus(server, connect, loop, taker):
    task(connect, "jobs", 3)
    inbox = taker()
    wait_for_park(loop, inbox, 3600)
    payload = json.loads(server.client().hvals("jobs.delayed")[0].partition(b"\n")[2])

    assert {"body", "headers", "properties", "content-type"} <= payload.keys()
