"""Properties and headers of RabbitMQ, read by us, are what py-amqp reads."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import pytest
from amqp.basic_message import Message
from amqp.serialization import decode_properties_basic
from hypothesis import given
from hypothesis import strategies as some

from celery.transports.amqp.reading import read_properties

words = some.text(max_size=30).filter(lambda text: len(text.encode()) < 100)
values = some.recursive(
    some.none()
    | some.booleans()
    | some.integers(-(2**62), 2**62)
    | some.floats(allow_nan=False)
    | words
    | some.binary(max_size=20)
    | some.just(Decimal("1.5"))
    | some.just(datetime(2026, 1, 2)),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
short = some.text("abc-", max_size=40)
properties = some.fixed_dictionaries(
    {},
    optional={
        "application_headers": some.dictionaries(words, values, max_size=6),
        **dict.fromkeys(
            ("content_type", "content_encoding", "correlation_id", "reply_to", "message_id", "type"), short
        ),
        **dict.fromkeys(("delivery_mode", "priority"), some.integers(0, 255)),
    },
)


@given(properties)
def test_they_are_read_as_py_amqp_reads_them(sent):
    packed = Message("", **sent)._serialize_properties()
    expected = decode_properties_basic(packed, 0)[0]
    found = read_properties(packed, 0)

    assert found == expected
    assert repr(found) == repr(expected)


@pytest.mark.parametrize("text", [b"\xff\xfe", b"\xc3"])
def test_text_that_is_no_text_stays_bytes(text):
    packed = Message("", application_headers={"id": "NN"})._serialize_properties().replace(b"NN", text.ljust(2, b"x"))

    assert read_properties(packed, 0) == decode_properties_basic(packed, 0)[0]
    assert type(read_properties(packed, 0)["application_headers"]["id"]) is bytes
