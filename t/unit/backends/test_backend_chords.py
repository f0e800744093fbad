"""Chords on stores that count, and on those that cannot."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from celery import Celery
from celery.exceptions import ChordError


@pytest.fixture
def app():
    app = Celery("chords", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.backend.client.cache.clear()
    app.sent = []

    @app.task(name="body", shared=False)
    def body(values):
        return values

    app.finalize()
    signature = app.signature

    def recording_signature(*args, **kwargs):
        made = signature(*args, **kwargs)
        if made.get("task") == "body":
            made.delay = lambda values: app.sent.append((made["options"].get("task_id"), values))
        return made

    app.signature = recording_signature
    yield app
    app.backend.client.cache.clear()
    app.close()


def body_of(app, **options):
    return dict(app.tasks["body"].s().set(task_id="BODY", **options))


def start(app, *ids, group_id="g"):
    header = [app.AsyncResult(task_id) for task_id in ids]
    app.backend.apply_chord((group_id, header), body_of(app))


def finish(app, task_id, value=None, state="SUCCESS", group_id="g", **options):
    request = SimpleNamespace(
        id=task_id,
        group=group_id,
        group_index=0,
        parent_id=None,
        children=[],
        delivery_info={},
        stamps=None,
        chord=body_of(app, **options),
        chain=None,
        errbacks=None,
        ignore_result=False,
        root_id=None,
        task="t",
    )
    if state == "SUCCESS":
        app.backend.mark_as_done(task_id, value, request=request)
    else:
        app.backend.mark_as_failure(task_id, value, request=request)


def test_the_last_member_sends_the_body(app):
    start(app, "a", "b")
    finish(app, "b", 2)
    assert app.sent == []
    finish(app, "a", 1)

    assert app.sent == [("BODY", [1, 2])]


def test_a_member_delivered_twice_releases_nothing_early(app):
    start(app, "a", "b")
    finish(app, "a", 1)
    finish(app, "a", 1)
    assert app.sent == []
    finish(app, "b", 2)

    assert app.sent == [("BODY", [1, 2])]


def test_a_member_delivered_after_the_end_releases_nothing_again(app):
    start(app, "a", "b")
    for task_id in ("a", "b", "a", "b"):
        finish(app, task_id, task_id)

    assert app.sent == [("BODY", ["a", "b"])]
    assert app.backend.get_state("BODY") == "PENDING"


def test_a_failed_member_fails_the_body(app):
    start(app, "a", "b")
    finish(app, "a", 1)
    finish(app, "b", KeyError("x"), "FAILURE")

    assert app.sent == []
    result = app.AsyncResult("BODY")
    with pytest.raises(ChordError, match="KeyError"):
        result.get(timeout=1)


def test_a_failed_member_calls_the_errbacks_of_the_body(app):
    told = []

    @app.task(name="tell", shared=False)
    def tell(request, exc, traceback):
        told.append((request.id, type(exc)))

    errbacks = [dict(tell.s())]
    start(app, "a")
    finish(app, "a", KeyError("x"), "FAILURE", link_error=errbacks)

    assert told == [("BODY", ChordError)]


def test_a_lost_header_fails_the_body(app):
    finish(app, "a", 1)

    with pytest.raises(ChordError, match="no longer exists"):
        app.AsyncResult("BODY").get(timeout=1)


def test_a_body_that_cannot_be_sent_fails(app):
    start(app, "a")
    original = app.signature

    def broken(*args, **kwargs):
        made = original(*args, **kwargs)
        made.delay = lambda values: 1 / 0
        return made

    app.signature = broken
    finish(app, "a", 1)

    with pytest.raises(ChordError, match="ZeroDivisionError"):
        app.AsyncResult("BODY").get(timeout=1)


def test_a_group_as_body_fails_member_by_member(app):
    from celery import group

    body = group(app.tasks["body"].s().set(task_id="one"), app.tasks["body"].s().set(task_id="two"), app=app)
    try:
        raise ChordError("x")
    except ChordError as error:
        app.backend.chord_error_from_stack(body, error)

    assert {app.AsyncResult(task_id).state for task_id in ("one", "two")} == {"FAILURE"}


def test_a_store_that_cannot_count_sends_the_unlock_task(app, tmp_path):
    other = Celery("files", broker="memory://", backend=f"file://{tmp_path}", set_as_current=False)
    sent = []
    body = app.tasks["body"].s().set(task_id="BODY", priority=4)
    unlock = SimpleNamespace(apply_async=lambda args, kwargs, **options: sent.append((args, kwargs, options)))
    other.tasks["celery.chord_unlock"] = unlock
    other.backend.apply_chord(("g", [other.AsyncResult("a")]), body, interval=3, max_retries=7, countdown=2)
    other.close()

    assert sent == [
        (
            ("g", body),
            {"interval": 3, "max_retries": 7, "result": [(("a", None), None)], "_chord_unlock_exchange_type": "direct"},
            {"countdown": 2, "queue": None, "priority": 4},
        )
    ]


def test_only_some_stores_take_members_later(app):
    with pytest.raises(NotImplementedError, match="add_to_chord"):
        app.backend.add_to_chord("g", app.AsyncResult("a"))
