"""What began and must not run again: it stands on record until it ends, and is told of if its worker dies."""

from __future__ import annotations

import time

import pytest
from redis_kit import Inbox, drain, send

pytestmark = pytest.mark.redis


def in_another_process(server):
    """Return a URL of the same server under another name: leases are per process and broker address."""
    return server.url().replace("127.0.0.1", "localhost")


def begun(server):
    return server.client().zcard("unacked_index.begun")


@pytest.fixture
def start(connect, loop):
    """Begin what is sent: returns the inbox that has it, its loop not turning any more."""

    def begin(server, *bodies, **options):
        connection = connect(lease_ttl=0.6, **options)
        send(connection, "q", *bodies)
        loop.listen(connection)
        inbox = Inbox(connection, "q", prefetch=len(bodies))
        loop.until(lambda: len(inbox.messages) == len(bodies))
        assert all(message.begin() for message in inbox.messages)
        return inbox

    return begin


def test_what_began_has_no_place_in_the_credit_and_outlives_the_lease(server, connect, loop, start):
    inbox = start(server, "long")
    loop.until(lambda: begun(server) == 1)
    assert server.client().zcard("unacked_index") == 0
    send(inbox.channel.connection.client, "q", "next")
    loop.until(lambda: len(inbox.messages) == 2)  # with a prefetch count of one

    other = connect(url=in_another_process(server), lease_ttl=0.6)
    left = []
    other.transport.on_left = lambda *told: left.append(told)
    other_inbox = Inbox(other, "q")
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        loop.spin(0.05)
        try:
            other.drain_events(timeout=0.01)
        except TimeoutError:
            pass
    assert left == []
    assert other_inbox.messages == []

    for message in inbox.messages:
        message.ack()
    loop.until(lambda: server.client().hlen("unacked") == 0 and begun(server) == 0)


def test_brief_tasks_are_acknowledged_as_ever(server, loop, start):
    inbox = start(server, *range(5))
    for message in inbox.messages:
        message.ack()
    loop.until(lambda: server.client().hlen("unacked") == 0)

    assert not server.client().exists("unacked_index.begun")


def test_others_hear_of_what_a_dead_worker_left_until_somebody_has_seen_to_it(server, connect, loop, start):
    start(server, "lost")
    loop.until(lambda: begun(server) == 1)
    # From here the first one is as good as dead: its loop turns no more.
    other = connect(url=in_another_process(server), lease_ttl=0.6)
    left = []
    other.transport.on_left = lambda *told: left.append(told)
    inbox = Inbox(other, "q")
    drain(other, lambda: len(left) == 2)  # nobody saw to it the first time
    queue, envelope, forget = left[-1]
    assert queue == "q"
    assert envelope["headers"] == {}
    forget()
    drain(other, lambda: begun(server) == 0 and server.client().hlen("unacked") == 0)

    assert inbox.messages == []


def test_an_end_that_a_lost_connection_swallowed_is_told_on_the_next(server, connect, loop, start):
    inbox = start(server, "one")
    loop.until(lambda: begun(server) == 1)
    connection = inbox.channel.connection.client
    server.client().client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(connection.connection_errors):
        loop.spin(1)
    connection.collect()
    inbox.messages[0].ack()
    again = connect(lease_ttl=0.6)
    loop.listen(again)
    Inbox(again, "q")
    loop.until(lambda: begun(server) == 0)

    assert server.client().hlen("unacked") == 0


def test_what_goes_back_already_cannot_begin(server, connect, loop):
    connection = connect(lease_ttl=0.6)
    send(connection, "q", "one")
    loop.listen(connection)
    inbox = Inbox(connection, "q")
    loop.until(lambda: inbox.messages)
    inbox.channel.close()

    assert not inbox.messages[0].begin()
