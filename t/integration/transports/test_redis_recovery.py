"""What dies, and what must come back: leases, sweeps, lost connections, restarts.  Nothing may be lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from redis_kit import Inbox, drain, send

pytestmark = pytest.mark.redis

ACTOR = Path(__file__).parent / "redis_actor.py"


@pytest.fixture
def start():
    """Starts the actor and returns when it is at work."""
    processes = []

    def start_actor(server, job, failpoints="", **options):
        env = dict(os.environ, CELERIAC_FAILPOINTS=failpoints)
        command = [sys.executable, str(ACTOR), server.url(), job, json.dumps(options)]
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE)
        processes.append(process)
        process.stdout.readline()
        return process

    yield start_actor
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def in_another_process(server):
    """Return a URL of the same server under another name: leases are per process and broker address."""
    return server.url().replace("127.0.0.1", "localhost")


def noted(path):
    return Counter(int(line) for line in path.read_text().split()) if path.exists() else Counter()


# -- the lease


def test_a_long_holder_keeps_its_messages_and_a_dead_one_loses_them(server, connect, loop):
    connection = connect(lease_ttl=0.6)
    send(connection, "q", "long")
    loop.listen(connection)
    inbox = Inbox(connection, "q")
    loop.until(lambda: inbox.messages)

    other = connect(url=in_another_process(server), lease_ttl=0.6)
    other_inbox = Inbox(other, "q")
    drain(other, lambda: True)
    end = time.monotonic() + 2
    while time.monotonic() < end:  # more than three times the lease
        loop.spin(0.05)
        try:
            other.drain_events(timeout=0.01)
        except TimeoutError:
            pass
    assert other_inbox.messages == []
    # From here the first one is as good as dead: its loop turns no more.
    began = time.monotonic()
    drain(other, lambda: other_inbox.messages, seconds=5)
    assert time.monotonic() - began < 0.6 + 2
    assert other_inbox.messages[0].headers["redelivered"] is True

    lost = []
    connection.transport.on_lost_lease = lost.extend
    tag = inbox.messages[0].delivery_tag
    inbox.messages[0].ack()
    loop.until(lambda: lost)
    assert lost == [tag]
    assert server.client().hlen("unacked") == 1  # the new holder's, untouched


def test_without_an_event_loop_a_thread_renews(server, connect):
    connection = connect(lease_ttl=0.6)
    send(connection, "q", "held")
    queue = connection.SimpleQueue("q")
    message = queue.get(timeout=5)
    other = connect(url=in_another_process(server), lease_ttl=0.6)
    other_inbox = Inbox(other, "q")
    end = time.monotonic() + 2
    while time.monotonic() < end:
        try:
            other.drain_events(timeout=0.1)
        except TimeoutError:
            pass
    assert other_inbox.messages == []
    message.ack()
    queue.close()


def test_renewals_tell_who_lost_a_message(server, connect, loop):
    connection = connect(lease_ttl=0.3)
    send(connection, "q", 1)
    loop.listen(connection)
    inbox = Inbox(connection, "q")
    loop.until(lambda: inbox.messages)
    lost = []
    inbox.channel.on_lost_lease = lost.extend
    server.client().delete("unacked")
    loop.until(lambda: lost, seconds=3)
    assert lost == [inbox.messages[0].delivery_tag]
    assert inbox.messages[0].is_lost
    assert inbox.channel.qos.can_consume_max_estimate() == 8  # it takes no room any more


def test_peers_do_not_restore_what_we_hold(server, connect, peer, loop):
    connection = connect(lease_ttl=0.6)
    send(connection, "q", 1)
    loop.listen(connection)
    inbox = Inbox(connection, "q")
    loop.until(lambda: inbox.messages)
    loop.spin(0.4)
    peer_channel = peer.channel()
    peer_channel.visibility_timeout = 0
    peer_channel.qos.restore_visible(num=10, interval=1)
    assert server.client().hlen("unacked") == 1
    assert server.client().llen("q") == 0


def test_a_clean_close_puts_messages_back_at_once_in_their_order(server, connect, loop):
    connection = connect()
    send(connection, "q", *range(5))
    loop.listen(connection)
    inbox = Inbox(connection, "q", prefetch=3)
    loop.until(lambda: len(inbox.messages) == 3)
    inbox.messages[0].ack()
    connection.release()
    redis = server.client()
    assert redis.keys("unacked*") == []
    other = connect()
    after = Inbox(other, "q", prefetch=0)
    drain(other, lambda: len(after.messages) == 4)
    assert after.bodies == [1, 2, 3, 4]
    assert [bool(message.headers.get("redelivered")) for message in after.messages] == [True, True, False, False]


def unsettled(redis):
    """How many jobs wait or are held; in one step, for between two a message may go from the one to the other."""
    waiting, held = redis.pipeline(transaction=True).llen("jobs").hlen("unacked").execute()
    return waiting + held


def is_known_as_started(redis):
    """Whether the record says of a delivery that it has started: by half a millisecond in its score (`renew.lua`)."""
    return any(round(score * 10_000) % 10 == 5 for _, score in redis.zrange("unacked_index", 0, -1, withscores=True))


# -- the process dies


@pytest.mark.parametrize(
    "failpoint",
    ["fetch.before_send", "fetch.after_lease", "deliver.before_callback", "ack.before_send", "ack.after_send"],
)
def test_killed_at_any_step_a_consumer_loses_nothing(server, connect, tmp_path, failpoint, start):
    done = tmp_path / "done"
    send(connect(), "jobs", *({"n": n} for n in range(40)))
    options = {"transport_options": {"lease_ttl": 0.5}}
    for skip in (0, 3):
        victim = start(server, "consume", f"{failpoint}=kill,skip={skip}", log=str(done), count=1000, **options)
        assert victim.wait(20) == -signal.SIGKILL
    heir = start(server, "consume", log=str(done), count=1000, **options)
    redis = server.client()
    deadline = time.monotonic() + 8
    while (len(noted(done)) < 40 or unsettled(redis)) and time.monotonic() < deadline:
        time.sleep(0.05)
    heir.kill()
    heir.wait()
    assert set(noted(done)) == set(range(40))
    assert max(noted(done).values()) <= 3  # once for each death at most, and once for good
    assert redis.llen("jobs") == 0
    assert redis.keys("unacked*") == []


@pytest.mark.parametrize("failpoint", ["sweep.before_send", "sweep.after_read", "sweep.after_move"])
def test_killed_in_the_sweep_a_worker_leaves_nothing_behind_that_blocks_the_next(
    server, connect, tmp_path, failpoint, start
):
    done = tmp_path / "done"
    send(connect(), "jobs", *({"n": n} for n in range(8)))
    options = {"transport_options": {"lease_ttl": 0.4}}
    first = start(server, "consume", "ack.before_send=kill", log=str(done), count=1000, **options)
    assert first.wait(20) == -signal.SIGKILL
    time.sleep(0.4)
    second = start(server, "consume", f"{failpoint}=kill", log=str(done), count=1000, hold=60, **options)
    assert second.wait(20) == -signal.SIGKILL
    began = time.monotonic()
    heir = start(server, "consume", log=str(done), count=1000, **options)
    redis = server.client()
    while unsettled(redis) and time.monotonic() < began + 8:
        time.sleep(0.02)
    recovered = time.monotonic() - began
    heir.kill()
    heir.wait()
    assert set(noted(done)) == set(range(8))
    assert redis.keys("unacked*") == []
    assert recovered < 0.4 + 2


def test_a_message_that_kills_its_worker_is_set_aside_and_its_neighbours_are_not(server, connect, tmp_path, start):
    done = tmp_path / "done"
    send(connect(), "jobs", {"n": 0})
    options = {"transport_options": {"lease_ttl": 0.4}}
    redis = server.client()
    for _ in range(3):  # three tries
        seen = sum(noted(done).values())
        victim = start(server, "consume", log=str(done), count=1000, hold=60, started=True, **options)
        deadline = time.monotonic() + 8
        while sum(noted(done).values()) == seen and not redis.llen("jobs.dead") and time.monotonic() < deadline:
            time.sleep(0.02)
        while not is_known_as_started(redis) and time.monotonic() < deadline:
            time.sleep(0.02)
        victim.kill()
        victim.wait()
    send(connect(), "jobs", {"n": 1})
    heir = start(server, "consume", log=str(done), count=1000, **options)
    deadline = time.monotonic() + 8
    while not (redis.llen("jobs.dead") and noted(done)[1]) and time.monotonic() < deadline:
        time.sleep(0.02)
    heir.kill()
    heir.wait()
    assert noted(done) == {0: 3, 1: 1}
    kept = connect().channel().basic_get("jobs.dead")
    assert kept.payload == {"n": 0}
    assert kept.redelivery_count == 3
    assert "lost 3 times" in kept.headers["x-celeriac-reason"]


def test_waiting_beside_a_killer_is_no_crime(server, connect, tmp_path, start):
    done = tmp_path / "done"
    send(connect(), "jobs", {"n": 0})
    options = {"transport_options": {"lease_ttl": 0.4}}
    for _ in range(4):  # delivered, never started
        seen = sum(noted(done).values())
        victim = start(server, "consume", log=str(done), count=1000, hold=60, **options)
        deadline = time.monotonic() + 8
        while sum(noted(done).values()) == seen and time.monotonic() < deadline:
            time.sleep(0.02)
        victim.kill()
        victim.wait()
    connection = connect(lease_ttl=0.4)
    inbox = Inbox(connection, "jobs")
    drain(connection, lambda: inbox.messages)
    assert inbox.messages[0].redelivery_count == 0
    assert inbox.messages[0].headers["x-celeriac-redelivered"] == 4
    assert server.client().llen("jobs.dead") == 0


# -- the connection dies


def test_what_runs_survives_a_lost_connection_and_is_acknowledged_on_the_next(server, connect, loop):
    connection = connect()
    send(connection, "q", "running", "waiting")
    loop.listen(connection)
    inbox = Inbox(connection, "q")
    loop.until(lambda: len(inbox.messages) == 2)
    running, waiting = inbox.messages
    running.started()
    redis = server.client()
    redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with pytest.raises(connection.connection_errors):
        loop.spin(1)
    connection.collect()
    loop.hub.reset()
    loop.hub.on_tick.clear()

    again = connect()
    loop.listen(again)
    second = Inbox(again, "q")
    loop.until(lambda: second.messages)
    loop.spin(0.1)
    assert second.bodies == ["waiting"]  # not the one that runs
    assert second.messages[0].headers["redelivered"] is True
    running.ack()
    second.messages[0].ack()
    loop.until(lambda: not redis.exists("unacked"))
    assert waiting.channel.closed


@pytest.mark.parametrize("kind", ["normal", "pubsub"])
def test_a_killed_connection_is_noticed_at_once(server, connect, loop, kind):
    connection = connect()
    loop.listen(connection)
    Inbox(connection, "q")
    fanout = kombu_fanout(connection)
    fanout.consume()
    loop.spin(0.1)
    server.client().execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    began = time.monotonic()
    with pytest.raises(connection.connection_errors):
        loop.spin(3)
    assert time.monotonic() - began < 1


def kombu_fanout(connection):
    import kombu

    channel = connection.channel()
    queue = kombu.Queue("events", kombu.Exchange("news", type="fanout"), auto_delete=True, channel=channel)
    return connection.Consumer([queue], channel=channel, callbacks=[lambda body, message: None], no_ack=True)


def test_a_stopped_server_is_noticed_within_the_patience(own_server, connect, loop):
    connection = connect(url=own_server.url(), socket_timeout=0.5, health_check_interval=0.5, lease_ttl=1.5)
    loop.listen(connection)
    Inbox(connection, "q")
    loop.spin(0.2)
    own_server.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(connection.connection_errors):
        loop.spin(10)
    assert time.monotonic() - began < 3
    own_server.send_signal(signal.SIGCONT)


def test_a_server_killed_and_started_again_loses_nothing(own_server, connect, tmp_path, start):
    done = tmp_path / "done"
    connection = connect(url=own_server.url())
    send(connection, "jobs", *({"n": n} for n in range(50)))
    consumer = start(own_server, "consume", log=str(done), count=1000, hold=0.05)
    time.sleep(0.1)
    own_server.send_signal(signal.SIGKILL)
    assert consumer.wait(20) != 0  # it has no one to reconnect it here, so it ends with the error
    own_server.start()
    heir = start(own_server, "consume", log=str(done), count=50, transport_options={"lease_ttl": 0.5})
    redis = own_server.client()
    # The dead consumer's lease was the default; let it end now.
    for tag in redis.hkeys("unacked"):
        redis.zadd("unacked_index", {tag: 1})
    deadline = time.monotonic() + 10
    while set(noted(done)) != set(range(50)) and time.monotonic() < deadline:
        time.sleep(0.05)
    heir.kill()
    heir.wait()
    assert set(noted(done)) == set(range(50))


# -- the keys die


def test_scripts_that_the_server_forgot_are_sent_again(server, connect, loop):
    connection = connect()
    loop.listen(connection)
    inbox = Inbox(connection, "q", ack=True)
    loop.spin(0.05)
    for number in range(3):
        server.client().script_flush()
        send(connect(), "q", number)
        loop.until(lambda number=number: len(inbox.messages) == number + 1)
    inbox.channel.flush()
    assert server.client().keys("unacked*") == []


def test_after_flushall_new_messages_arrive_and_the_loss_is_logged_once(server, connect, loop, caplog):
    import kombu

    connection = connect()
    loop.listen(connection)
    send(connection, "q", "before")
    inbox = Inbox(connection, "q")
    loop.until(lambda: inbox.messages)
    queue = kombu.Queue("named", kombu.Exchange("x"), routing_key="k", channel=inbox.channel)
    queue.declare()
    server.client().flushall()
    loop.until(lambda: "flushed" in caplog.text)
    inbox.messages[0].ack()
    assert server.client().smembers("_kombu.binding.x") == {b"k\x06\x16\x06\x16named"}
    send(connect(), "q", "after")
    loop.until(lambda: inbox.bodies == ["before", "after"])
    assert caplog.text.count("Redis was flushed") == 1


def test_deleting_every_key_but_the_queue_only_costs_the_record(server, connect, loop):
    connection = connect()
    loop.listen(connection)
    send(connection, "q", 1)
    inbox = Inbox(connection, "q", prefetch=1)
    loop.until(lambda: inbox.messages)
    send(connection, "q", 2)
    redis = server.client()
    redis.delete(*[key for key in redis.scan_iter() if key != b"q"])
    lost = []
    inbox.channel.on_lost_lease = lost.extend
    inbox.messages[0].ack()
    loop.until(lambda: len(inbox.messages) == 2)
    assert lost == [inbox.messages[0].delivery_tag]


def test_a_replica_is_a_lost_connection(own_server, connect, loop):
    connection = connect(url=own_server.url())
    loop.listen(connection)
    send(connection, "q", 1)
    inbox = Inbox(connection, "q", prefetch=1)
    loop.until(lambda: inbox.messages)
    own_server.client().execute_command("REPLICAOF", "127.0.0.1", "1")
    inbox.messages[0].ack()
    with pytest.raises(connection.connection_errors) as caught:
        loop.spin(3)
    assert "READONLY" in str(caught.value)
    with pytest.raises(connection.connection_errors):
        send(connect(url=own_server.url()), "q", 2)
    own_server.client().execute_command("REPLICAOF", "NO", "ONE")


# -- peers


def test_what_a_dead_peer_held_comes_back_after_its_visibility_timeout(server, connect, peer):
    send(peer, "q", {"of": "peer"}, headers={"id": "1"}, priority=6)
    peer.SimpleQueue("q", no_ack=False).get(timeout=5)
    [tag] = server.client().hkeys("unacked")
    connection = connect(visibility_timeout=1, lease_ttl=0.4)
    inbox = Inbox(connection, "q")
    drain(connection, lambda: True)
    began = time.monotonic()
    drain(connection, lambda: inbox.messages, seconds=6)
    assert time.monotonic() - began > 0.5
    message = inbox.messages[0]
    assert message.payload == {"of": "peer"}
    assert message.delivery_info["redelivered"] is True
    assert message.redelivery_count == 0
    assert server.client().hkeys("unacked") != [tag]


def test_a_peer_restores_what_we_left_behind(server, connect, peer, tmp_path, start):
    send(peer, "jobs", {"n": 1})
    victim = start(
        server, "consume", "deliver.before_callback=kill", log=str(tmp_path / "x"), count=1,
        transport_options={"lease_ttl": 0.2},
    )  # fmt: skip
    assert victim.wait(20) == -signal.SIGKILL
    time.sleep(0.3)
    channel = peer.channel()
    channel.visibility_timeout = 0
    channel.qos.restore_visible(num=10, interval=1)
    message = peer.SimpleQueue("jobs").get(timeout=5)
    assert message.payload == {"n": 1}
    assert message.headers["redelivered"] is True
    message.ack()
    assert server.client().keys("unacked*") == []


def test_a_loop_that_a_task_keeps_busy_may_have_a_thread_renew(server, connect, loop):
    connection = connect(lease_ttl=0.6)
    send(connection, "q", "long")
    loop.listen(connection)
    connection.transport.renew_in_thread()
    inbox = Inbox(connection, "q")
    loop.until(lambda: inbox.messages)
    other = connect(url=in_another_process(server), lease_ttl=0.6)
    others = Inbox(other, "q")
    end = time.monotonic() + 2
    while time.monotonic() < end:  # the first loop does not turn meanwhile
        try:
            other.drain_events(timeout=0.1)
        except TimeoutError:
            pass
    assert others.messages == []


def test_flush_waits_also_for_what_had_to_be_sent_twice(server, connect):
    connection = connect()
    send(connection, "q", 1)
    inbox = Inbox(connection, "q")
    drain(connection, lambda: inbox.messages)
    server.client().script_flush()
    inbox.messages[0].ack()
    inbox.channel.flush()
    assert server.client().hlen("unacked") == 0


def test_a_task_that_kills_its_process_comes_back_twice_and_is_then_set_aside(server, connect, loop):
    """The worker lives and only its child died: the losses count all the same."""
    connection = connect()
    send(connection, "q", "poison")
    loop.listen(connection)
    inbox = Inbox(connection, "q")
    reasons = []
    for _ in range(3):
        loop.until(lambda: len(inbox.messages) > len(reasons))
        inbox.messages[-1].started()
        reasons.append(inbox.messages[-1].requeue_lost("killed by signal 9"))
    assert reasons[:2] == [None, None]
    assert "3 times" in reasons[2]
    assert "signal 9" in reasons[2]
    loop.until(lambda: server.client().llen("q.dead") == 1)
    assert server.client().llen("q") == server.client().hlen("unacked") == 0


def test_what_a_sweep_puts_back_is_taken_at_once(server, connect, tmp_path, start):
    """The server tells nobody of his own writes, so the one who sweeps has to know by himself."""
    connection = connect(lease_ttl=30)
    inbox = Inbox(connection, "q")
    drain(connection, lambda: True)
    # What a worker that is gone held: its lease ended long ago.
    send(connection, "elsewhere", "orphan")
    payload = server.client().rpop("elsewhere")
    server.client().hset("unacked", "~dead:1", b"[" + payload + b',"","q"]')
    server.client().zadd("unacked_index", {"~dead:1": 1})
    inbox.channel.engine.sweep(inbox.channel)
    began = time.monotonic()
    drain(connection, lambda: inbox.messages, seconds=5)
    assert time.monotonic() - began < 1
    assert inbox.bodies == ["orphan"]
