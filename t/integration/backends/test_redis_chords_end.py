"""Chords on Redis whose members do not report, or whose last member dies: each ends, and ends once."""

from __future__ import annotations

import os
import time
import uuid
from types import SimpleNamespace

import pytest
import redis

from celery import Celery, chord
from celery.app.task import Context
from celery.exceptions import ChordError

URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379")

pytestmark = pytest.mark.redis


class Chord:
    """A chord of two members, ``a`` and ``b``; ``sent`` has the values of each body that was sent."""

    def __init__(self, app):
        self.app, self.id, self.sent, self.failed = app, uuid.uuid4().hex, [], []
        self.body = app.tasks["body"].s().set(task_id=f"body-of-{self.id}")
        header = [app.AsyncResult(name) for name in "ab"]
        app.backend.apply_chord((self.id, header), self.body)
        app.backend.set_chord_size(self.id, 2)
        signature = app.signature

        def recording(*args, **kwargs):
            made = signature(*args, **kwargs)
            made.delay = self.sent.append
            return made

        app.signature = recording

    def end(self, name, value=1, state="SUCCESS", **fields):
        request = {"id": name, "group": self.id, "group_index": ord(name) - 97, "chord": dict(self.body), **fields}
        self.app.backend.on_chord_part_return(SimpleNamespace(**request), state, value)

    def key(self, suffix):
        return f"{self.app.prefix}celery-taskset-meta-{self.id}.{suffix}"

    def make_due(self, client):
        client.zadd(f"{self.app.prefix}celery-taskset-meta-celeriac-open-chords", {self.id: 0})

    def record(self):
        return self.app.backend.get_task_meta(self.body.id, cache=False)


@pytest.fixture
def client():
    with redis.Redis.from_url(URL) as client:
        yield client


@pytest.fixture(params=[True, False], ids=["ordered", "unordered"])
def app(request, client):
    prefix = f"chords-{uuid.uuid4().hex}"
    app = Celery("chords", broker="memory://", backend=URL, set_as_current=False)
    app.prefix = f"{prefix}_"
    app.conf.result_backend_transport_options = {"global_keyprefix": prefix, "result_chord_ordered": request.param}

    @app.task(name="body", shared=False)
    def body(values):
        return values

    app.finalize()
    yield app
    keys = client.keys(f"{prefix}*")
    if keys:
        client.delete(*keys)
    app.backend._lines.close()
    app.backend.client.close()
    app.close()


def test_a_chord_without_progress_fails_when_its_counters_expire(app, client):
    chord = Chord(app)
    chord.end("a")
    assert app.backend.sweep_chords() == 0
    chord.make_due(client)
    assert app.backend.sweep_chords() == 0

    client.delete(chord.key("s"), chord.key("j"), chord.key("d"))  # they have expired
    chord.make_due(client)
    assert app.backend.sweep_chords() == 1
    chord.end("b")

    assert chord.sent == []
    assert chord.record()["status"] == "FAILURE"
    assert isinstance(chord.record()["result"], ChordError)
    assert "did not end within 86400 seconds" in str(chord.record()["result"])
    assert client.keys(f"{app.prefix}celery-taskset-meta-*open-chords") == []


def test_a_body_that_nobody_sends_is_sent_by_the_sweep(app, client):
    chord = Chord(app)
    chord.end("a", 1)
    client.set(chord.key("c"), "b:of-a-process-that-died", ex=100)
    chord.end("b", 2, id="b2", group_index=1)  # as another member: that one may not take the claim over
    assert chord.sent == []
    chord.make_due(client)
    assert app.backend.sweep_chords() == 0  # it is claimed

    client.delete(chord.key("c"))  # the claim has run out
    for _ in range(2):  # a peer that needs no claim has the time between two looks
        assert chord.sent == []
        chord.make_due(client)
        app.backend.sweep_chords()

    assert chord.sent == [[1, 2]]
    chord.make_due(client)
    assert app.backend.sweep_chords() == 0


def test_the_member_that_died_with_the_claim_takes_it_over_at_once(app, client):
    chord = Chord(app)
    chord.end("a", 1)
    client.set(chord.key("c"), "b:of-its-first-delivery", ex=100)
    chord.end("b", 2)

    assert chord.sent == [[1, 2]]


def test_an_error_path_is_followed_once(app, client):
    chord = Chord(app)
    chord.end("a")
    chord.end("b", ValueError("no"), "FAILURE")
    told_at = chord.record()["date_done"]
    chord.end("b", ValueError("again"), "FAILURE")
    chord.end("a")

    assert chord.record()["status"] == "FAILURE"
    assert chord.record()["date_done"] == told_at
    assert client.get(chord.key("c")) == b"done"


def test_a_member_whose_message_cannot_be_read_counts_by_the_body_that_was_kept(app):
    chord = Chord(app)
    chord.end("a")
    unreadable = SimpleNamespace(id="b", group=chord.id, group_index=1, chord=None)
    app.backend.on_unreadable_part(unreadable, ValueError("unreadable"))
    stranger = SimpleNamespace(id="b", group="of-no-chord", group_index=1, chord=None)
    app.backend.on_unreadable_part(stranger, ValueError("unreadable"))

    assert chord.record()["status"] == "FAILURE"
    assert "unreadable" in str(chord.record()["result"])


def request_of(name, of, **fields):
    """Return the request of a member of the chord ``of``."""
    member = {"id": name, "group": of.id, "group_index": ord(name) - 97, "chord": dict(of.body)}
    return Context({**member, "ignore_result": False, "delivery_info": {}, "children": [], **fields})


@pytest.mark.parametrize("state", ["REVOKED", "FAILURE"])
def test_a_chain_in_the_header_ends_with_the_step_that_will_not_run_on(app, state):
    chord = Chord(app)
    chord.end("a")
    member = app.tasks["body"].s().set(task_id="b", group_id=chord.id, group_index=1, chord=dict(chord.body))
    first = request_of("x", chord, group=None, chord=None, chain=[dict(member)])
    if state == "REVOKED":
        app.backend.mark_as_revoked("x", "revoked", request=first)
    else:
        app.backend.mark_as_failure("x", ValueError("no"), request=first)

    assert app.backend.get_state("b") == state
    assert chord.record()["status"] == "FAILURE"


def test_a_lost_member_counts_as_it_ended_if_that_is_known(app):
    chord = Chord(app)
    chord.end("a", 1)
    app.backend.store_result("b", 2, "SUCCESS")
    app.backend.mark_as_lost("b", RuntimeError("lost"), request_of("b", chord))

    assert chord.sent == [[1, 2]]
    assert app.backend.get_state("b") == "SUCCESS"


def test_a_lost_member_has_failed_otherwise(app):
    chord = Chord(app)
    chord.end("a", 1)
    app.backend.mark_as_lost("b", RuntimeError("lost"), request_of("b", chord))

    assert chord.sent == []
    assert app.backend.get_state("b") == "FAILURE"
    assert "lost" in str(chord.record()["result"])


def test_messages_grow_with_the_members_and_no_faster(client):
    app = Celery("sizes", broker=URL, backend=URL, set_as_current=False)
    app.conf.update(task_default_queue=f"sizes-{uuid.uuid4().hex}", result_expires=60)

    @app.task(name="body", shared=False)
    def body(values):
        return values

    def bytes_for(size):
        chord(body.s(number) for number in range(size))(body.s() | body.s())
        messages = client.lrange(app.conf.task_default_queue, 0, -1)
        client.delete(app.conf.task_default_queue)
        assert len(messages) == size
        return sum(map(len, messages))

    assert bytes_for(300) < 11 * bytes_for(30)
    app.close()


def test_a_body_is_kept_as_long_as_its_header_makes_progress(app, client):
    chord = Chord(app)
    client.expire(chord.key("b"), 10)
    chord.make_due(client)
    began = time.time()
    app.backend.sweep_chords()

    assert client.ttl(chord.key("b")) > 86_400
    (looks_at,) = (score for _, score in client.zscan_iter(f"{app.prefix}celery-taskset-meta-celeriac-open-chords"))
    assert 0 < looks_at - began < 100
