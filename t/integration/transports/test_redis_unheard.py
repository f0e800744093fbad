"""What the server hands out on a connection that breaks before the answer arrives goes back at once."""

from __future__ import annotations

import pytest
from redis_kit import Inbox, send

from celery.transports.redis.lease import Unheard
from celery.transports.redis.recovery import settle
from t.faults.proxy import Proxy

pytestmark = pytest.mark.redis


@pytest.fixture
def proxy(server):
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def consume(connect, loop, proxy):
    """Consumes from a queue through the proxy: by the same address, thus by the same lease, on each connection."""

    def consume(queue="q"):
        connection = connect(url=f"redis://127.0.0.1:{proxy.port}/0")
        loop.listen(connection)
        inbox = Inbox(connection, queue)
        loop.spin(0.1)
        return inbox

    return consume


@pytest.fixture
def ask(connect, loop, proxy):
    """Has messages sent, and asked for through a proxy in a mode."""

    def ask(inbox, mode, *bodies):
        proxy.set(mode)
        send(connect(), "q", *bodies)
        inbox.channel.be_ready()
        loop.spin(0.1)

    return ask


@pytest.fixture
def cut(loop, proxy):
    """Cuts the connection of an inbox, and gives it up."""

    def cut(inbox):
        connection = inbox.channel.connection.client
        proxy.set("reset")
        with pytest.raises(connection.connection_errors):
            loop.spin(2)
        connection.collect()
        proxy.pass_new()

    return cut


def held(server):
    return int(server.client().hlen("unacked"))


def waiting(server):
    return int(server.client().llen("q"))


def test_messages_of_an_answer_that_was_lost_come_on_the_next_connection(server, loop, consume, ask, cut):
    inbox = consume()
    ask(inbox, "mute", "one", "two", "three")
    assert (held(server), inbox.messages) == (3, [])
    cut(inbox)

    again = consume()
    loop.until(lambda: len(again.messages) == 3, seconds=2)  # the lease lasts 60
    assert again.bodies == ["one", "two", "three"]
    assert not any(message.headers.get("redelivered") for message in again.messages)  # nobody has seen them
    for message in again.messages:
        message.ack()
    loop.until(lambda: held(server) == 0)


def test_they_go_back_behind_what_was_delivered_and_not_begun(server, loop, consume, ask, cut):
    inbox = consume()
    ask(inbox, "pass", "one", "two")
    loop.until(lambda: len(inbox.messages) == 2)
    ask(inbox, "mute", "three")
    assert held(server) == 3
    cut(inbox)

    again = consume()
    loop.until(lambda: len(again.messages) == 3, seconds=2)
    assert again.bodies == ["one", "two", "three"]


def test_what_runs_is_not_given_back_with_them(server, loop, consume, ask, cut):
    inbox = consume()
    ask(inbox, "pass", "one")
    loop.until(lambda: inbox.messages)
    inbox.messages[0].started()
    ask(inbox, "mute", "two")
    assert held(server) == 2
    cut(inbox)

    again = consume()
    loop.until(lambda: again.messages, seconds=2)
    loop.spin(2.5)  # it is looked a second time meanwhile
    assert again.bodies == ["two"]
    for message in (*inbox.messages, *again.messages):
        message.ack()
    loop.until(lambda: held(server) == 0)


def test_an_answer_that_was_heard_after_all_gives_nothing_back(server, loop, consume, ask, cut):
    inbox = consume()
    ask(inbox, "pass", "one")
    loop.until(lambda: inbox.messages)
    inbox.messages[0].started()
    lease = inbox.channel.lease
    number = int(inbox.messages[0].delivery_tag.rpartition(":")[2])
    lease.unheard.append(Unheard(range(number, number + 1), inbox.channel._key_of_payload))
    cut(inbox)

    consume()
    loop.spin(0.2)
    assert (held(server), waiting(server)) == (1, 0)
    inbox.messages[0].ack()
    loop.until(lambda: held(server) == 0)
    assert waiting(server) == 0


def test_a_request_that_arrives_after_the_next_connection_leaves_nothing_behind(server, loop, proxy, consume, ask):
    inbox = consume()
    ask(inbox, "stall", "one")
    inbox.channel.engine.break_off(ConnectionError("given up"))
    inbox.channel.connection.client.collect()
    proxy.pass_new()
    consume("another")
    assert (held(server), waiting(server)) == (0, 1)
    proxy.heal()
    loop.until(lambda: held(server) == 1, seconds=2)

    loop.until(lambda: held(server) == 0 and waiting(server) == 1, seconds=3)


def test_a_process_that_ends_gives_them_back_with_what_else_it_has(server, loop, proxy, consume, ask):
    inbox = consume()
    ask(inbox, "pass", "one")
    loop.until(lambda: inbox.messages)
    ask(inbox, "mute", "two")
    assert held(server) == 2
    inbox.channel.engine.break_off(ConnectionError("given up"))
    proxy.pass_new()
    settle(inbox.channel.lease)

    assert (held(server), waiting(server)) == (0, 2)
