"""The worker whose clock the test turns."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from celery import Celery, chain, chord
from celery.contrib.testing.app import TestApp, setup_default_app
from celery.contrib.testing.inprocess import InProcessWorker
from celery.exceptions import ImproperlyConfigured, NotRegistered
from celery.schedules import crontab

NOW = datetime(2026, 11, 20, 10, 30, tzinfo=timezone.utc)


@pytest.fixture
def app():
    with TestApp("inprocess") as app, setup_default_app(app):
        app.set_current()
        yield app


@pytest.fixture
def worker(app):
    with InProcessWorker(app, now=NOW) as worker:
        yield worker


@pytest.fixture
def add(app):
    @app.task(name="add")
    def add(x, y=1):
        return x + y

    return add


def test_tasks_run_when_the_test_says_so(worker, add):
    result = add.delay(1, y=2)
    assert result.state == "PENDING"
    [enqueued] = worker.assert_enqueued(add, args=(1,), kwargs={"y": 2}, queue="celery", countdown=0, count=1)
    assert enqueued.id == result.id
    assert worker.run() == 1
    assert result.get() == 3
    assert worker.ran == [("add", "SUCCESS")]
    assert worker.enqueued == []


def test_what_is_revoked_does_not_run(worker, app, add):
    later = add.apply_async((1,), countdown=60)
    soon, other = add.delay(2), add.delay(3)
    later.revoke()
    app.control.revoke([soon.id])
    worker.advance(seconds=61)

    assert (later.state, soon.state, other.get()) == ("REVOKED", "REVOKED", 4)
    assert worker.ran == [("add", "REVOKED"), ("add", "SUCCESS"), ("add", "REVOKED")]


def test_who_waits_for_a_revoked_task_hears_of_it(worker, app, add):
    last = (add.s(1).set(countdown=60) | add.s()).apply_async()
    silent = add.apply_async((1,), countdown=60, ignore_result=True)
    last.parent.revoke()
    app.control.revoke([silent.id])
    worker.advance(seconds=61)

    assert (last.parent.state, last.state) == ("REVOKED", "REVOKED")
    assert app.backend.get_state(silent.id) == "PENDING"


def test_time_passes_when_the_test_says_so(worker, app, add):
    order = []

    @app.task(name="note")
    def note(word):
        order.append((word, app.now() - NOW))

    note.apply_async(("later",), countdown=3600)
    note.apply_async(("soon",), countdown=60)
    note.apply_async(("at",), eta=NOW + timedelta(seconds=90))
    worker.assert_enqueued(note, args=("soon",), countdown=60)
    assert worker.run() == 0
    assert worker.advance(seconds=59) == 0
    assert worker.advance(hours=1) == 3
    assert order == [("soon", timedelta(seconds=60)), ("at", timedelta(seconds=90)), ("later", timedelta(hours=1))]
    assert app.now() == NOW + timedelta(hours=1, seconds=59)


def test_a_retry_is_a_task_that_waits(worker, app):
    @app.task(name="flaky", bind=True, default_retry_delay=180)
    def flaky(self):
        if self.request.retries < 2:
            raise self.retry()
        return self.request.retries

    result = flaky.delay()
    worker.run()
    assert result.state == "RETRY"
    worker.assert_enqueued("flaky", countdown=180)
    worker.advance(minutes=6)
    assert result.get() == 2
    assert [state for _, state in worker.ran] == ["RETRY", "RETRY", "SUCCESS"]


def test_workflows_run_to_their_end(worker, add, app):
    @app.task(name="total")
    def total(numbers):
        return sum(numbers)

    result = chain(add.s(1, 2), add.s(10))()
    worker.run()
    assert result.get() == 13
    body = chord([add.s(1, 1), add.s(2, 2)])(total.s())
    worker.advance(seconds=5)
    assert body.get() == 6


def test_what_has_expired_does_not_run(worker, add):
    result = add.apply_async((1,), countdown=60, expires=30)
    worker.advance(minutes=2)
    assert result.state == "REVOKED"
    assert worker.ran == [("add", "REVOKED")]


def test_a_failure_is_the_tasks_own(worker, app):
    @app.task(name="boom")
    def boom():
        raise KeyError("lost")

    result = boom.delay()
    worker.run()
    with pytest.raises(KeyError, match="lost"):
        result.get()


def test_beat_sends_as_the_clock_turns(app, add):
    app.conf.beat_schedule = {
        "tick": {"task": "add", "schedule": 10.0, "args": (1,)},
        "hourly": {"task": "add", "schedule": crontab(0), "args": (2,)},
    }
    with InProcessWorker(app, now=NOW, beat=True) as worker:
        worker.advance(seconds=61)
        assert len(worker.ran) == 6
        worker.advance(minutes=30)
        assert len(worker.ran) == 6 + 180 + 1


def test_a_failed_assertion_tells_what_waits(worker, add):
    add.apply_async((5,), countdown=7)
    with pytest.raises(AssertionError, match=r"0 tasks add, args \(6,\) are enqueued; waiting are\n.*task='add'"):
        worker.assert_enqueued(add, args=(6,))
    with pytest.raises(AssertionError, match="1 tasks add are enqueued; waiting are"):
        worker.assert_enqueued(add, count=0)
    worker.assert_enqueued("other", count=0)


def test_a_task_that_nobody_knows_is_told(worker, app):
    app.send_task("unknown")
    with pytest.raises(NotRegistered, match="unknown"):
        worker.run()


def test_only_a_broker_in_memory_will_do():
    with Celery("real", broker="redis://u:secret@nowhere", set_as_current=False) as app:
        with pytest.raises(ImproperlyConfigured, match=r"memory://, not redis://u:\*\*@nowhere"):
            InProcessWorker(app).__enter__()


def test_the_clock_is_the_real_one_again_at_the_end(app):
    with InProcessWorker(app, now=NOW):
        assert app.now() == NOW
    assert abs(app.now() - datetime.now(timezone.utc)) < timedelta(minutes=5)
