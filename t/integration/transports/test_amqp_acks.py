"""Acknowledgements on RabbitMQ: sent together, each once, none forgotten on the way out."""

from __future__ import annotations

import os
import subprocess
import uuid

import pytest
from kombu import Consumer, Queue
from kombu.asynchronous import Hub

from celery.transports import Connection

pytestmark = pytest.mark.rabbitmq

AMQP = os.environ.get("TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672") + "/"


class Desk:
    """A queue with messages, a connection on a loop that takes them, and what this sent to the broker."""

    def __init__(self, on_loop=True):
        self.name = f"acks-{uuid.uuid4().hex[:10]}"
        self.connection = Connection(AMQP)
        self.channel = self.connection.default_channel
        self.queue = Queue(self.name, channel=self.channel, durable=True)
        self.queue.declare()
        self.hub = Hub(timer=None)
        self.taken = []
        self.frames = []
        self._watch(self.connection.connection)
        if on_loop:
            self.connection.transport.register_with_event_loop(self.connection.connection, self.hub)

    def _watch(self, connection):
        """Note every acknowledgement that leaves: (tag, multiple)."""
        write = connection.frame_writer

        def frame_writer(kind, channel, method, arguments, content):
            if method == (60, 80):
                self.frames.append((int.from_bytes(arguments[:8], "big"), bool(arguments[8])))
            return write(kind, channel, method, arguments, content)

        connection.frame_writer = frame_writer

    def send(self, count):
        with Connection(AMQP) as connection:
            producer = connection.Producer()
            for number in range(count):
                producer.publish({"number": number}, routing_key=self.name, delivery_mode=2)

    def consume(self, **options):
        consumer = Consumer(self.channel, [self.queue], on_message=self.taken.append, **options)
        consumer.consume()
        return consumer

    def take(self, count):
        """Let the loop run until that many messages are here."""
        loop = self.hub.create_loop()
        for _ in range(200):
            if len(self.taken) >= count:
                return self.taken
            next(loop)
        raise AssertionError(f"{len(self.taken)} of {count} messages came")

    def settle(self):
        for tick in list(self.hub.on_tick):
            tick()

    def left(self):
        """Return how many messages the broker has, once nobody holds any."""
        self.connection.close()
        with Connection(AMQP) as connection:
            return connection.default_channel.queue_declare(self.name, passive=True).message_count

    def close(self):
        self.connection.close()
        self.hub.close()
        with Connection(AMQP) as connection:
            connection.default_channel.queue_delete(self.name)


@pytest.fixture
def desk():
    desk = Desk()
    yield desk
    desk.close()


def tags_covered(frames):
    """Return the tags that the frames settle, in order; a range settles those before it that are not settled yet."""
    covered = []
    for tag, multiple in frames:
        covered += [t for t in range(1, tag) if t not in covered] if multiple else []
        assert tag not in covered, f"{tag} was acknowledged twice: {frames}"
        covered.append(tag)
    return covered


def test_what_is_settled_in_one_turn_is_one_frame(desk):
    desk.send(5)
    desk.consume()
    for message in desk.take(5):
        message.ack()

    assert desk.frames == []
    desk.settle()
    assert desk.frames == [(5, True)]
    assert desk.left() == 0


def test_the_order_of_settling_does_not_matter(desk):
    desk.send(6)
    desk.consume()
    for index in (5, 2, 0, 4, 1, 3):
        desk.take(6)[index].ack()
    desk.settle()

    assert desk.frames == [(6, True)]
    assert desk.left() == 0


def test_a_range_ends_before_the_first_that_is_still_worked_on(desk):
    desk.send(6)
    desk.consume()
    messages = desk.take(6)
    for index in (0, 1, 3, 5):
        messages[index].ack()
    desk.settle()
    assert desk.frames == [(2, True), (4, False), (6, False)]

    messages[2].ack()
    desk.settle()
    assert desk.frames[3:] == [(3, True)]
    assert desk.left() == 1  # the fifth


def test_rejected_messages_are_no_gap_and_are_not_acknowledged(desk):
    desk.send(5)
    desk.consume()
    messages = desk.take(5)
    messages[0].ack()
    messages[1].reject()
    messages[2].ack()
    messages[3].reject(requeue=True)
    messages[4].ack()
    desk.settle()

    assert desk.frames == [(5, True)]
    assert desk.left() == 1  # the one that was put back


def test_a_range_never_ends_at_a_rejected_message(desk):
    desk.send(3)
    desk.consume()
    messages = desk.take(3)
    messages[0].ack()
    messages[1].reject()
    desk.settle()
    messages[2].reject()
    desk.settle()

    assert desk.frames == [(1, True)]
    assert desk.channel.is_open
    assert desk.left() == 0


def test_no_tag_is_acknowledged_twice_over_many_turns(desk):
    desk.send(300)
    desk.consume()
    messages = desk.take(300)
    held = []
    for number, message in enumerate(messages):
        if number % 7 == 3:
            held.append(message)
        elif number % 11 == 5:
            message.reject()
        else:
            message.ack()
        if number % 13 == 0:
            desk.settle()
        if number % 50 == 49:
            held.pop(0).ack()
    for message in held:
        message.ack()
    desk.settle()

    assert set(tags_covered(desk.frames)) == set(range(1, 301))
    assert len(desk.frames) < 300
    assert desk.left() == 0


def test_messages_of_a_consumer_without_acknowledgement_hold_nobody_up(desk):
    desk.send(2)
    silent = desk.consume(no_ack=True)
    desk.take(2)
    silent.cancel()
    desk.send(2)
    desk.consume()
    for message in desk.take(4)[2:]:
        message.ack()
    desk.settle()

    assert tags_covered(desk.frames) == [3, 4]
    assert desk.channel.is_open
    assert desk.left() == 0


def test_several_consumers_share_the_tags_of_a_channel(desk):
    other = Queue(f"{desk.name}-other", channel=desk.channel, durable=True)
    other.declare()
    try:
        desk.send(3)
        with Connection(AMQP) as connection:
            for number in range(3):
                connection.Producer().publish({"other": number}, routing_key=other.name)
        Consumer(desk.channel, [desk.queue, other], on_message=desk.taken.append).consume()
        messages = desk.take(6)
        assert {message.delivery_info["routing_key"] for message in messages} == {desk.name, other.name}
        for message in reversed(messages):
            message.ack()
        desk.settle()
        assert desk.frames == [(6, True)]
        assert desk.left() == 0
    finally:
        with Connection(AMQP) as connection:
            assert connection.default_channel.queue_delete(other.name) == 0


@pytest.mark.parametrize("close", ["channel", "connection", "amqp"])
def test_closing_sends_what_is_pending(desk, close):
    desk.send(4)
    desk.consume()
    messages = desk.take(4)
    for message in messages[:3]:
        message.ack()
    if close == "channel":
        desk.channel.close()
    elif close == "connection":
        desk.connection.close()
    else:
        desk.connection.connection.close()

    assert desk.frames == [(3, True)]
    assert desk.left() == 1


def test_closing_after_the_broker_has_cut_the_connection_is_quiet(desk):
    desk.send(2)
    desk.consume()
    for message in desk.take(2):
        message.ack()
    desk.connection.connection.sock.shutdown(2)
    desk.connection.close()

    assert desk.left() == 2


def test_a_new_connection_counts_from_one(desk):
    desk.send(4)
    desk.consume()
    for message in desk.take(4)[:2]:
        message.ack()
    desk.settle()
    desk.connection.close()
    again = Desk()
    again.queue.delete()
    again.name = desk.name
    again.queue = Queue(desk.name, channel=again.channel, durable=True)
    again.consume()
    messages = again.take(2)
    assert [message.delivery_tag for message in messages] == [1, 2]
    assert all(message.delivery_info["redelivered"] for message in messages)
    for message in messages:
        message.ack()
    again.settle()

    assert again.frames == [(2, True)]
    assert again.left() == 0
    again.hub.close()


def test_without_a_loop_each_is_acknowledged_at_once():
    desk = Desk(on_loop=False)
    try:
        desk.send(3)
        desk.consume()
        while len(desk.taken) < 3:
            desk.connection.drain_events(timeout=5)
        for number, message in enumerate(desk.taken):
            message.ack()
            assert desk.frames[-1] == (number + 1, False)
        assert desk.left() == 0
    finally:
        desk.close()


def test_a_request_within_a_delivery_keeps_the_frames_in_order(desk):
    desk.send(50)
    answers = []

    def on_message(message):
        desk.taken.append(message)
        if len(desk.taken) % 10 == 1:  # waits for an answer that comes behind the deliveries already read
            answers.append(desk.connection.channel().queue_declare(desk.name, passive=True).queue)

    Consumer(desk.channel, [desk.queue], on_message=on_message).consume()
    messages = desk.take(50)

    assert [message.payload["number"] for message in messages] == list(range(50))
    assert answers == [desk.name] * 5


def test_frames_behind_one_that_fails_are_not_lost(desk):
    desk.send(20)

    def on_message(message):
        desk.taken.append(message)
        if len(desk.taken) == 5:
            raise RuntimeError("a bug in a callback")

    Consumer(desk.channel, [desk.queue], on_message=on_message).consume()
    with pytest.raises(RuntimeError):
        desk.take(20)
    desk.take(20)

    assert [message.delivery_tag for message in desk.taken] == list(range(1, 21))


def test_large_bodies_come_in_pieces(desk):
    body = os.urandom(3_000_000)
    with Connection(AMQP) as connection:
        producer = connection.Producer()
        producer.publish(
            body, routing_key=desk.name, content_type="application/octet-stream", content_encoding="binary"
        )
        producer.publish(b"", routing_key=desk.name, content_type="text/plain", content_encoding="binary")
        producer.publish("ä" * 9, routing_key=desk.name, content_type="text/plain", content_encoding="utf-8")
    desk.consume()
    messages = desk.take(3)

    assert messages[0].body == body
    assert not messages[1].body
    assert messages[2].body == "ä" * 9
    assert messages[2].raw_body == ("ä" * 9).encode()


def test_a_message_by_get_is_like_one_delivered(desk):
    desk.send(1)
    message = desk.queue.get()

    assert message.payload == {"number": 0}
    assert message.delivery_info["routing_key"] == desk.name
    message.ack()
    desk.settle()
    assert desk.left() == 0


def test_rabbitmq_takes_what_is_sent(desk):
    """The broker's own count of what is unacknowledged agrees."""
    desk.send(3)
    desk.consume()
    for message in desk.take(3)[:2]:
        message.ack()
    desk.settle()
    desk.channel.queue_declare(desk.name, passive=True)  # an answer comes after what was sent before
    command = ["rabbitmqctl", "-q", "list_queues", "name", "messages_unacknowledged"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("rabbitmqctl does not reach the broker")
    assert f"{desk.name}\t1" in listed
