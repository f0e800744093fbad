"""What a client publishes agrees field by field with what Celery 5.7.0 was recorded to publish.

The records are ``t/facts/messages/*.json``; each names its call.  Ids, times and hosts are placeholders there: the
same placeholder must stand for the same value everywhere in one record.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import json
import os
import re
import uuid
from pathlib import Path

import pytest
from kombu import Exchange
from kombu.compression import decompress
from kombu.serialization import loads
from kombu.transport import memory

from celery import Celery, chain, chord, group
from celery.canvas import StampingVisitor

FACTS = Path(__file__).parents[2] / "facts" / "messages"
UTC = dt.timezone.utc


# -- an app whose broker notes what it is given


class NotingChannel(memory.Channel):
    """Keeps each message as it came, and delivers none."""

    noted: list[dict] = []

    def prepare_message(
        self, body, priority=None, content_type=None, content_encoding=None, headers=None, properties=None
    ):
        known = {"content_type": content_type, "content_encoding": content_encoding, **(properties or {})}
        if priority is not None:
            known["priority"] = priority
        noted = {"body": body, "headers": dict(headers or {}), "properties": known}
        message = super().prepare_message(body, priority, content_type, content_encoding, headers, properties)
        return {**message, "noted": noted}

    def basic_publish(self, message, exchange, routing_key, **kwargs):
        self.noted.append({"exchange": exchange, "routing_key": routing_key, **message["noted"]})


class NotingTransport(memory.Transport):
    Channel = NotingChannel
    driver_type = "amqp"


class Desk:
    """The app of the recorded scenarios: its tasks, and what was published."""

    def __init__(self, **conf):
        self.app = app = Celery("capapp", broker="memory://", backend="cache+memory://", set_as_current=False)
        app.conf.update(broker_transport=NotingTransport, **conf)
        self.messages = NotingChannel.noted
        self.messages.clear()

        def task(function, **options):
            return app.task(name=f"capapp.{function.__name__}", shared=False, **options)(function)

        def add(x, y):
            return x + y

        def mul(x, y):
            return x * y

        def tsum(xs):
            return sum(xs)

        def ignored():
            return 1

        def limited(s):
            return s

        def errback(request, exc, tb):
            return "errback"

        self.add, self.mul, self.tsum, self.errback = map(task, (add, mul, tsum, errback))
        self.ignored = task(ignored, ignore_result=True)
        self.limited = task(limited, time_limit=2, soft_time_limit=1)
        app.finalize()


class Monitoring(StampingVisitor):
    def on_signature(self, sig, **headers):
        return {"monitoring_id": "m1", "stamped_headers": ["monitoring_id"]}


class EveryPart(StampingVisitor):
    def on_signature(self, sig, **headers):
        return {"trace": "t1"}

    def on_callback(self, callback, **headers):
        return {"cb": "c1"}

    def on_errback(self, errback, **headers):
        return {"eb": "e1"}


def soon(seconds):
    return dt.datetime.now(UTC) + dt.timedelta(seconds=seconds)


def stamped(signature, **how):
    signature.stamp(**how)
    return signature


def linked(signature, callback, errback=None):
    signature.link(callback)
    if errback is not None:
        signature.link_error(errback)
    return signature


JSON_TYPES = (
    [
        dt.datetime(2020, 1, 2, 3, 4, 5, 678901, UTC),
        dt.datetime(2020, 1, 2, 3, 4, 5),
        dt.date(2020, 1, 2),
        dt.time(3, 4, 5),
    ],
    {
        "dec": decimal.Decimal("1.5"),
        "uuid": uuid.UUID("12345678-1234-5678-1234-567812345678"),
        "bytes": b"abc",
        "rawbytes": b"\xff\x00",
    },
)

SINGLE = {
    "task_simple": lambda d: d.add.delay(2, 3),
    "task_kwargs": lambda d: d.add.apply_async(args=(2,), kwargs={"y": 3}),
    "task_countdown": lambda d: d.add.apply_async((2, 3), countdown=60),
    "task_eta": lambda d: d.add.apply_async((2, 3), eta=soon(60)),
    "task_expires_seconds": lambda d: d.add.apply_async((2, 3), expires=120),
    "task_expires_datetime": lambda d: d.add.apply_async((2, 3), expires=soon(120)),
    "task_countdown_expires": lambda d: d.add.apply_async((2, 3), countdown=10, expires=120),
    "task_time_limits": lambda d: d.add.apply_async((2, 3), time_limit=20, soft_time_limit=10),
    "task_class_time_limits": lambda d: d.limited.delay(1),
    "task_ignore_result": lambda d: d.ignored.delay(),
    "task_ignore_result_call": lambda d: d.add.apply_async((2, 3), ignore_result=True),
    "task_shadow": lambda d: d.add.apply_async((2, 3), shadow="other"),
    "task_priority": lambda d: d.add.apply_async((2, 3), priority=5),
    "task_headers": lambda d: d.add.apply_async((2, 3), headers={"x-custom": "v"}),
    "task_id_and_correlation": lambda d: d.add.apply_async((2, 3), task_id="my-task-id"),
    "task_queue": lambda d: d.add.apply_async((2, 3), queue="other"),
    "task_exchange_routing_key": lambda d: d.add.apply_async(
        (2, 3), exchange="ex1", routing_key="rk1", declare=[Exchange("ex1", "topic")]
    ),
    "task_transient": lambda d: d.add.apply_async((2, 3), delivery_mode="transient"),
    "task_argsrepr": lambda d: d.add.apply_async((2, 3), argsrepr="<secret>", kwargsrepr="<k>"),
    "task_reply_to": lambda d: d.add.apply_async((2, 3), reply_to="q1"),
    "task_serializer_yaml": lambda d: d.add.apply_async((2, 3), serializer="yaml"),
    "task_serializer_pickle": lambda d: d.add.apply_async((2, 3), serializer="pickle"),
    "task_serializer_msgpack": lambda d: d.add.apply_async((2, 3), serializer="msgpack"),
    "task_compression_gzip": lambda d: d.add.apply_async((2, 3), compression="gzip"),
    "task_json_types": lambda d: d.add.delay(*JSON_TYPES),
    "send_task_by_name": lambda d: d.app.send_task("other.task", [1], {"a": 2}),
    "signature_immutable_options": lambda d: d.add.si(2, 3).set(queue="q2", priority=1).apply_async(),
    "link": lambda d: d.add.apply_async((2, 3), link=d.mul.s(10)),
    "link_two": lambda d: d.add.apply_async((2, 3), link=[d.mul.s(10), d.mul.si(1, 2)]),
    "link_error": lambda d: d.add.apply_async((2, 3), link_error=d.errback.s()),
}

CANVAS = {
    "chain2": lambda d: chain(d.add.s(1, 2), d.mul.s(3)).apply_async(),
    "chain3": lambda d: (d.add.s(1, 2) | d.mul.s(3) | d.add.s(4)).apply_async(),
    "chain_link_error": lambda d: chain(d.add.s(1, 2), d.mul.s(3)).on_error(d.errback.s()).apply_async(),
    "chain_options": lambda d: chain(d.add.s(1, 2), d.mul.s(3)).apply_async(countdown=5, expires=60, priority=3),
    "group2": lambda d: group(d.add.s(1, 2), d.add.s(3, 4)).apply_async(),
    "group_link": lambda d: linked(group(d.add.s(1, 2), d.add.s(3, 4)), d.mul.s(2)).apply_async(),
    "chord": lambda d: chord([d.add.s(1, 2), d.add.s(3, 4)])(d.tsum.s()),
    "chord_link_error": lambda d: chord(
        [d.add.s(1, 2), d.add.s(3, 4)], d.tsum.s().on_error(d.errback.s())
    ).apply_async(),
    "chord_single": lambda d: chord([d.add.s(1, 2)])(d.tsum.s()),
    "group_into_task": lambda d: (group(d.add.s(1, 2), d.add.s(3, 4)) | d.tsum.s() | d.mul.s(2)).apply_async(),
    "chain_with_group": lambda d: (d.add.s(1, 1) | group(d.add.s(1), d.add.s(2)) | d.tsum.s()).apply_async(),
    "chord_of_chains": lambda d: chord([d.add.s(1, 2) | d.mul.s(3), d.add.s(3, 4) | d.mul.s(5)])(d.tsum.s()),
    "nested_chord": lambda d: chord([chord([d.add.s(1, 2), d.add.s(3, 4)], d.tsum.s()), d.add.s(5, 6)])(d.tsum.s()),
    "chunks": lambda d: d.add.chunks([(1, 1), (2, 2), (3, 3)], 2).apply_async(),
    "map": lambda d: d.tsum.map([[1, 2], [3]]).apply_async(),
    "starmap": lambda d: d.add.starmap([(1, 2), (3, 4)]).apply_async(),
    "stamp_simple": lambda d: stamped(d.add.si(1, 2), stamp="value").apply_async(),
    "stamp_visitor": lambda d: stamped(d.add.si(1, 2), visitor=Monitoring()).apply_async(),
    "stamp_link": lambda d: stamped(
        linked(d.add.si(1, 2), d.mul.s(2), d.errback.s()), visitor=EveryPart()
    ).apply_async(),
    "stamp_group": lambda d: stamped(group(d.add.s(1, 2), d.add.s(3, 4)), stamp="value").apply_async(),
    "stamp_chord": lambda d: stamped(chord([d.add.s(1, 2), d.add.s(3, 4)], d.tsum.s()), stamp="value").apply_async(),
}

VERSION_1 = ("task_simple", "task_countdown", "task_expires_seconds", "task_time_limits", "link", "link_error")
VERSION_1 += ("task_headers", "task_ignore_result_call", "task_shadow", "chain2", "chain3", "group2", "chord")

SCENARIOS = {
    **{name: (call, {}) for name, call in {**SINGLE, **CANVAS}.items()},
    **{f"v1_{name}": ({**SINGLE, **CANVAS}[name], {"task_protocol": 1}) for name in VERSION_1},
    "task_countdown_quorum": (
        lambda d: d.add.apply_async((1, 2), countdown=70),
        {"task_default_queue_type": "quorum", "task_default_exchange_type": "topic"},
    ),
}


# -- comparing

_PLACEHOLDERS = re.compile(r"<(?:task|group|uuid|reply-queue)-\d+>")
_PATTERNS = {
    "<YYYY-MM-DDTHH:MM:SS.ffffff+00:00>": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00",
    "gen<pid>@<host>": r"gen\d+@.+",
    "<token>": r"[0-9a-f]{32}",
}


def differences(expected, actual, known, where=""):
    """Yield what differs; ``known`` maps placeholders to the values they were found to stand for."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for name in {*expected, *actual}:
            if name not in actual:
                yield f"{where}.{name}: missing, is {expected[name]!r}"
            elif name not in expected:
                yield f"{where}.{name}: not recorded, is {actual[name]!r}"
            else:
                yield from differences(expected[name], actual[name], known, f"{where}.{name}")
    elif isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            yield f"{where}: {len(actual)} items instead of {len(expected)}: {actual!r}"
        for index, (one, other) in enumerate(zip(expected, actual, strict=False)):
            yield from differences(one, other, known, f"{where}[{index}]")
    elif where.endswith(".expiration"):
        if not is_soon_after(expected, actual):
            yield f"{where}: {actual!r} instead of {expected!r}"
    elif not same_value(expected, actual, known):
        yield f"{where}: {actual!r} instead of {expected!r}"


def is_soon_after(expected, actual):
    """Whether ``actual`` milliseconds are left where ``expected`` were; a busy machine publishes a little later."""
    return actual.isdecimal() and int(expected) - 2000 <= int(actual) <= int(expected) + 1


def same_value(expected, actual, known):
    if isinstance(expected, str) and isinstance(actual, str):
        if expected in _PATTERNS:
            return re.fullmatch(_PATTERNS[expected], actual) is not None
        if _PLACEHOLDERS.fullmatch(expected):
            return known.setdefault(expected, actual) == actual and list(known.values()).count(actual) == 1
        if _PLACEHOLDERS.search(expected):
            pattern = re.escape(expected)
            for placeholder in _PLACEHOLDERS.findall(expected):
                pattern = pattern.replace(re.escape(placeholder), r"[0-9a-f-]{36}")
            return re.fullmatch(pattern, actual) is not None
    return type(expected) is type(actual) and expected == actual


def plain(message):
    """Return a noted message in the form of a record: its body decoded."""
    properties, headers = dict(message["properties"]), message["headers"]
    body = message["body"]
    if "compression" in headers:
        body = decompress(body, headers["compression"])
    encoding, kind = properties["content_encoding"], properties["content_type"]
    if kind == "application/json":
        body = json.loads(body)  # as it travels: typed values are not brought back
    else:
        body = loads(body, kind, encoding, accept=[kind])
    return json.loads(json.dumps({**message, "body": body, "headers": headers, "properties": properties}))


def recorded(name):
    messages = json.loads((FACTS / f"{name}.json").read_text())["messages"]
    for message in messages:
        body = message["body"]
        if isinstance(body, dict) and "$decoded" in body:
            message["body"] = body["$decoded"]
        message.pop("sent_by", None)
    return messages


def arranged(messages, expected):
    """Put messages of a group in the order of the record, which follows random ids."""

    def key(message):
        return json.dumps(
            [message["headers"].get("task"), message["headers"].get("group_index"), message["headers"].get("argsrepr")]
        )

    order = [key(message) for message in expected]
    return sorted(messages, key=lambda message: order.index(key(message)) if key(message) in order else -1)


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_a_published_message_is_as_celery_5_7_publishes_it(name):
    call, conf = SCENARIOS[name]
    desk = Desk(**conf)
    call(desk)

    expected = recorded(name)
    actual = arranged([plain(message) for message in desk.messages], expected)
    assert list(differences(expected, actual, {})) == []


def test_every_record_of_a_published_message_has_its_scenario():
    others = re.compile(r"(w|wx|rb|rpc|db|dbx|control|event|amqp|worker)_.*|beat")
    assert {path.stem for path in FACTS.glob("*.json") if not others.fullmatch(path.stem)} == set(SCENARIOS)


def test_the_pickled_body_is_the_recorded_one_byte_by_byte():
    desk = Desk()
    SINGLE["task_serializer_pickle"](desk)

    record = json.loads((FACTS / "task_serializer_pickle.json").read_text())["messages"][0]["body"]["$base64"]
    assert desk.messages[0]["body"] == base64.b64decode(record)


def test_the_comparison_sees_a_difference():
    expected = recorded("task_simple")
    assert list(differences(expected, json.loads(json.dumps(expected).replace('"capapp.add"', '"capapp.sub"')), {}))


def test_a_process_is_named_in_the_origin():
    desk = Desk()
    desk.add.delay(1, 2)

    assert desk.messages[0]["headers"]["origin"].startswith(f"gen{os.getpid()}@")
