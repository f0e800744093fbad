"""Messages that decode nothing before somebody asks, and what is refused as none."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest
from kombu.exceptions import DecodeError, MessageStateError

from celery.transports.dead_letters import dead_envelope, dead_letter
from celery.transports.message import LARGE_BODY, Malformed, Message, count_loss, parse, parse_in_place


class Channel:
    """Notes what is asked of it."""

    no_ack_consumers = None

    def __init__(self):
        self.asked = []

    def basic_ack(self, tag, multiple=False):
        self.asked.append(("ack", tag))

    def basic_reject(self, tag, requeue=False):
        self.asked.append(("reject", tag, requeue))

    def message_started(self, message):
        self.asked.append(("started", message.delivery_tag))


def envelope(**changes):
    return {
        "body": "eyJuIjogMX0=",
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"id": "1"},
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": "q"},
            "body_encoding": "base64",
            "delivery_tag": "t",
        },
        **changes,
    }


def test_the_body_stays_encoded_until_asked_for():
    message = Message(envelope(), Channel(), "~1:1", "q")
    assert (message.raw_body, message.body_encoding) == ("eyJuIjogMX0=", "base64")
    assert message.body == b'{"n": 1}'
    assert message.payload == {"n": 1}
    assert message.delivery_tag == "~1:1"


def test_a_large_body_stays_where_it_is_and_is_text_for_those_who_write_it_again():
    text = b64encode(b'["' + b"x" * LARGE_BODY + b'"]').decode()
    payload = json.dumps(envelope(body=text)).encode()
    message = Message(parse_in_place(payload), Channel(), "~1:1", "q")
    assert message.raw_body.obj is payload
    assert message.payload == ["x" * LARGE_BODY]
    assert json.loads(dead_envelope(message._raw, "q", "why"))["body"] == text
    assert message.raw_body == text


@pytest.mark.parametrize(
    "changes",
    [
        {"body": "x" * LARGE_BODY + "\\n"},
        {"body": "x" * LARGE_BODY + "ä"},
        {"body": "x" * LARGE_BODY, "properties": {"delivery_info": {}, "body_encoding": None}},
        {"headers": {"body": "x" * LARGE_BODY}},
    ],
)
def test_other_large_messages_are_read_as_a_whole(changes):
    payload = json.dumps(envelope(**changes), ensure_ascii=False).encode()
    assert parse_in_place(payload) == parse(payload) == json.loads(payload)


def test_a_body_that_is_named_twice_is_the_last_one():
    payload = json.dumps(envelope(body="x" * LARGE_BODY))[:-1] + ', "body": "eA=="}'
    assert parse_in_place(payload.encode())["body"] == "eA=="


def test_a_broken_body_is_an_error_only_when_it_is_read():
    message = Message(envelope(headers={"compression": "application/x-gzip"}), Channel())
    assert not message.errors
    with pytest.raises(DecodeError, match="incorrect header"):
        _ = message.body


def test_settling_happens_once():
    channel = Channel()
    message = Message(envelope(), channel, "t1")
    message.started()
    message.started()
    message.ack()
    assert channel.asked == [("started", "t1"), ("ack", "t1")]
    assert message.acknowledged
    for settle in (message.ack, message.reject, message.requeue, message.requeue_lost):
        with pytest.raises(MessageStateError):
            settle()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b'"text"',
        b"\xff",
        b"{}",
        json.dumps(envelope(properties=None)).encode(),
        json.dumps(envelope(headers=[])).encode(),
        json.dumps(envelope(properties={"delivery_info": "x"})).encode(),
        json.dumps({**envelope(), "content-type": 5}).encode(),
        json.dumps({**envelope(), "content-encoding": 0.5}).encode(),
        b"[" * 100_000,
        b'{"x": {"__type__": "nosuch", "__value__": 1}}',
    ],
)
def test_what_is_no_message_is_malformed(payload):
    with pytest.raises(Malformed):
        parse(payload)


def test_missing_headers_are_empty_ones():
    assert parse(json.dumps(envelope(headers=None)).encode())["headers"] == {}


def test_typed_values_in_headers_are_read_as_kombu_reads_them():
    headers = {"when": {"__type__": "date", "__value__": "2026-11-20"}}
    assert str(parse(json.dumps(envelope(headers=headers)).encode())["headers"]["when"]) == "2026-11-20"


def test_losses_are_counted_apart():
    message = envelope()
    assert count_loss(message, started=False) == (0, 1)
    assert count_loss(message, started=True) == (1, 2)
    assert Message(message).redelivery_count == 1
    assert message["headers"]["redelivered"] is True
    message["headers"]["x-celeriac-lost"] = "many"
    assert Message(message).redelivery_count == 0


def test_dead_letters_keep_the_message_and_the_reason():
    kept = json.loads(dead_envelope(envelope(), "q", "because"))
    assert kept["body"] == envelope()["body"]
    assert kept["headers"] == {"id": "1", "x-celeriac-reason": "because"}
    wrapped = Message(json.loads(dead_envelope(b"\x00garbage", "q", "no message")))
    assert wrapped.body == b"\x00garbage"


def test_other_brokers_get_a_dead_letter_queue():
    import kombu

    with kombu.Connection("memory://") as connection:
        producer = connection.Producer()
        queue = kombu.Queue("dl", channel=connection.channel())
        queue.declare()
        producer.publish({"n": 1}, exchange="", routing_key="dl", compression="gzip", headers={"id": "9"})
        message = queue.get()
        assert dead_letter(message, "unreadable")
        assert message.acknowledged
        [kept] = [kombu.Queue("celeriac.dead", channel=connection.channel()).get(accept=["json"])]
        assert kept.payload == {"n": 1}
        assert kept.headers == {"id": "9", "x-celeriac-reason": "unreadable", "x-celeriac-queue": "dl"}
