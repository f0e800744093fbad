"""Frames in, answers out: the worker child's side of a task."""

from __future__ import annotations

import pickle
import zlib
from base64 import b64encode
from datetime import datetime, timezone

import pytest
from kombu.utils.json import dumps

from celery import Celery, states
from celery.app.trace import child
from celery.exceptions import Ignore, Reject

ID = "id-1"
#: Each test has an app of its own, with tasks of the same names.
pytestmark = pytest.mark.filterwarnings("ignore::celery.exceptions.DuplicateTaskNameWarning")

EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(one)
        self.lock = __import__("threading").Lock()


@pytest.fixture
def app():
    app = Celery("child", broker="memory://", backend="cache+memory://", set_as_current=False)

    @app.task(name="add")
    def add(x, y):
        return x + y

    @app.task(name="fail")
    def fail():
        raise KeyError("boom")

    @app.task(name="odd")
    def odd():
        raise Unpicklable(1, 2)

    @app.task(name="ignoring")
    def ignoring():
        raise Ignore()

    @app.task(name="rejecting")
    def rejecting():
        raise Reject("no", requeue=True)

    @app.task(name="told", bind=True)
    def told(self):
        request = self.request
        return [request.id, request.reply_to, request.correlation_id, request.hostname, request.delivery_info]

    app.finalize()
    yield app
    app.close()


def frame(name, body, wants_answer=True, headers=None, **changes):
    fields = {
        "name": name,
        "id": ID,
        "headers": {"id": ID, "task": name, **(headers or {})},
        "properties": {"reply_to": "r", "correlation_id": ID},
        "delivery_info": {"exchange": "", "routing_key": "q", "priority": 0, "redelivered": False},
        "body": body,
        "body_encoding": "",
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "decoded": False,
        "wants_answer": wants_answer,
        "is_late": False,
        **changes,
    }
    return child.pack(child.Frame(**fields))


def body(*args, **kwargs):
    return dumps([list(args), kwargs, EMBED]).encode()


def answer(app, data):
    return child.Answer(*child.unpack(child.Runner(app, "w1@test").run(data)))


def test_a_plain_success_needs_no_answer(app):
    assert child.Runner(app, "w1@test").run(frame("add", body(1, 2), wants_answer=False)) == b""
    assert app.AsyncResult(ID).get() == 3


def test_an_answer_carries_the_representation_and_the_runtime(app):
    state, value, runtime = answer(app, frame("add", body(1, 2)))
    assert (state, value) == (states.SUCCESS, "3")
    assert runtime >= 0


def test_a_body_in_base64_is_decoded_here(app):
    data = frame("add", b64encode(body(1, 2)).decode(), body_encoding="base64")
    assert answer(app, data).value == "3"


@pytest.mark.parametrize("form", ["bytes", "view"])
@pytest.mark.parametrize(
    ("encoding", "compression"), [("base64", None), ("", None), ("base64", "application/x-gzip"), ("raw", "gzip")]
)
def test_a_large_body_follows_its_frame_and_is_given_up_when_it_is_read(app, form, encoding, compression):
    size = 4 * child.LARGE_BODY
    large = dumps([[list(range(size // 4)), ["end"]], {}, EMBED]).encode()
    if compression:
        large = zlib.compress(large, 0)
    headers = {"id": ID, "task": "add", **({"compression": compression} if compression else {})}
    body = memoryview(b64encode(large) if encoding == "base64" else large)
    packed = child.pack_frame(
        "add", ID, headers, {}, {}, body, encoding, "application/json", "utf-8", False, False, False
    )
    data = packed if form == "bytes" else memoryview(bytearray(packed))
    assert child.Runner(app, "w1@test").run(data) == b""
    assert len(app.AsyncResult(ID).get()) == size // 4 + 1
    if form == "view":
        with pytest.raises(ValueError, match="released"):
            len(data)


def test_a_large_body_that_is_no_base64_is_an_answer(app):
    body = memoryview(b"=" * child.LARGE_BODY)
    packed = child.pack_frame("add", ID, {}, {}, {}, body, "base64", "application/json", "utf-8", False, False, False)
    assert answer(app, packed).state == child.MALFORMED


def test_what_a_serializer_stumbles_over_is_an_answer(app):
    packed = child.pack_frame("add", ID, {}, {}, {}, b"[]", "", "application/json", 0.5, False, False, False)
    assert answer(app, packed).state == child.MALFORMED


def test_a_compressed_body_is_unpacked_here_and_no_further_than_the_limit(app):
    packed = {"body_encoding": "base64", "headers": {"compression": "application/x-gzip"}}
    data = frame("add", b64encode(zlib.compress(body(1, 2))).decode(), **packed)
    assert answer(app, data).value == "3"

    app.conf.broker_transport_options = {"max_message_bytes": 1000}
    bomb = zlib.compress(body("x" * 100_000, 2))
    state, reason, _ = answer(app, frame("add", b64encode(bomb).decode(), **packed))
    assert state == child.MALFORMED
    assert "1,000 bytes" in reason


def test_a_failure_carries_the_error_with_its_traceback(app):
    state, value, _ = answer(app, frame("fail", body()))
    einfo = pickle.loads(value)
    assert state == states.FAILURE
    assert repr(einfo.exception) == "KeyError('boom')"
    assert "boom" in einfo.traceback


def test_an_exception_that_cannot_be_pickled_still_comes_to_the_parent(app):
    state, value, _ = answer(app, frame("odd", body()))
    assert state == states.FAILURE
    assert "Unpicklable" in repr(pickle.loads(value).exception)


def test_ignore_and_reject_are_answers_of_their_own(app):
    assert answer(app, frame("ignoring", body()))[:2] == (states.IGNORED, None)
    state, (requeue, shown, traceback), _ = answer(app, frame("rejecting", body()))
    assert (state, requeue, shown) == (states.REJECTED, True, "reject requeue=True: no")
    assert "Reject" in traceback


@pytest.mark.parametrize(
    "bad",
    [
        b"{",
        b"\xff\xfe",
        b"5",
        b"[]",
        b"[[], {}]",
        b'["ab", {}, {}]',
        b"[[], [], {}]",
        b"[[], {}, []]",
        b'[[], {}, {"callbacks": 5}]',
        b'[[], {}, {"callbacks": [5]}]',
        b'[[], {}, {"chain": ["add"]}]',
    ],
)
def test_a_body_that_is_none_is_an_answer_with_a_reason(app, bad):
    state, reason, _ = answer(app, frame("add", bad))
    assert state == child.MALFORMED
    assert reason


def test_a_content_type_that_is_not_accepted_is_refused(app):
    data = frame("add", pickle.dumps(([1, 2], {}, EMBED)), content_type="application/x-python-serialize")
    state, reason, _ = answer(app, data)
    assert state == child.MALFORMED
    assert "ContentDisallowed" in reason


def test_headers_that_are_not_plain_travel_too(app):
    data = frame("add", body(1, 2), headers={"sent": datetime(2026, 1, 1, tzinfo=timezone.utc)})
    assert answer(app, data).value == "3"


def test_the_task_sees_where_its_message_came_from(app):
    child.Runner(app, "w1@test").run(frame("told", body(), wants_answer=False))
    assert app.AsyncResult(ID).get() == [
        ID,
        "r",
        ID,
        "w1@test",
        {"exchange": "", "routing_key": "q", "priority": 0, "redelivered": False},
    ]


def test_an_unknown_task_is_a_failure(app):
    state, value, _ = answer(app, frame("no.such", body()))
    assert state == states.FAILURE
    assert type(pickle.loads(value).exception).__name__ == "NotRegistered"


def test_tracers_are_built_through_the_door_that_libraries_wrap(app, monkeypatch):
    from celery.app import trace

    built = []
    original = trace.build_tracer

    def wrapped(name, *args, **kwargs):
        built.append(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(trace, "build_tracer", wrapped)
    runner = child.Runner(app, "w1@test")
    for _ in range(2):
        runner.run(frame("add", body(1, 2)))
    assert built == ["add"]
