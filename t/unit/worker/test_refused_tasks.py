"""A task that raises `Reject`: without requeue it has failed, and whoever waits for it is told."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from celery import chord, signals
from celery.exceptions import ChordError, Reject


@pytest.fixture
def refusing(app):
    times = Counter()

    @app.task(bind=True)
    def refusing(self, requeue=False):
        times[self.request.id] += 1
        if times[self.request.id] == 2:
            return "done later"
        raise Reject("no thanks", requeue=requeue)

    return refusing


@pytest.mark.parametrize("is_late", [True, False])
def test_a_refused_task_has_failed(refusing, worker, is_late):
    refusing.acks_late = is_late
    result = refusing.delay()

    with pytest.raises(Reject) as caught:
        result.get(timeout=10)
    assert caught.value.args == ("no thanks", False)
    assert (result.state, result.traceback) == ("FAILURE", None)


def test_one_that_goes_back_into_its_queue_has_not(refusing, worker):
    refusing.acks_late = True

    assert refusing.delay(requeue=True).get(timeout=10) == "done later"


def test_errbacks_and_the_failure_signal_hear_of_it(app, refusing, worker):
    told, called = [], threading.Event()

    @app.task
    def errback(request, error, traceback):
        told.append((request.id, error))
        called.set()

    def on_failure(task_id, exception, **kwargs):
        told.append((task_id, exception))

    signals.task_failure.connect(on_failure, sender=refusing)
    try:
        result = refusing.apply_async(link_error=errback.s())
        assert called.wait(10)
        result.get(timeout=10, propagate=False)
    finally:
        signals.task_failure.disconnect(on_failure, sender=refusing)

    assert {task_id for task_id, _ in told} == {result.id}
    assert [type(error) for _, error in told] == [Reject] * len(told)


def test_a_chord_with_a_refused_member_fails(app, refusing, worker):
    @app.task
    def body(values):
        return values

    result = chord([refusing.si(), refusing.si()])(body.s())

    error = result.get(timeout=10, propagate=False)  # were it raised, a member's own might come first

    assert isinstance(error, ChordError)
    assert result.state == "FAILURE"


def test_an_event_tells_of_the_failure_before_the_rejection(app, refusing, running):
    refusing.acks_late = True
    events = []
    with running(task_events=True), app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": events.append})
        with receiver.consumer_context() as (own_connection, _, _):
            refusing.delay()
            while "task-rejected" not in [event["type"] for event in events]:
                own_connection.drain_events(timeout=5)

    kinds = [event["type"] for event in events if event["type"].startswith("task")]
    failed = next(event for event in events if event["type"] == "task-failed")
    assert kinds == ["task-received", "task-started", "task-failed", "task-rejected"]
    assert failed["exception"] == "reject requeue=False: no thanks"
    assert "raise Reject" in failed["traceback"]


def test_nothing_is_stored_for_an_eager_call(app, refusing):
    result = refusing.apply()

    assert result.state == "REJECTED"
    assert app.AsyncResult(result.id).state == "PENDING"
