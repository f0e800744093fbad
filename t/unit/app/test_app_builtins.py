"""The tasks that every app has; ``celery.chord_unlock`` is tested with chords."""

from __future__ import annotations

import pytest

from celery import Celery, group, signals


@pytest.fixture(scope="module")
def app():
    app = Celery("builtin", broker="memory://", backend="cache+memory://", set_as_current=False)

    @app.task(shared=False, name="add")
    def add(x, y):
        return x + y

    @app.task(shared=False, name="double")
    def double(x):
        return 2 * x

    app.finalize()
    app.add, app.double = app.tasks["add"], app.tasks["double"]
    return app


@pytest.fixture
def sent():
    """The headers and bodies of what is published."""
    found = []

    def note(body=None, headers=None, **_):
        found.append((headers, body))

    signals.before_task_publish.connect(note, weak=False)
    yield found
    signals.before_task_publish.disconnect(note)


def test_every_app_has_them(app):
    assert {name for name in app.tasks if name.startswith("celery.")} >= {
        "celery.accumulate", "celery.backend_cleanup", "celery.chain", "celery.chord", "celery.chord_unlock",
        "celery.chunks", "celery.group", "celery.map", "celery.starmap",
    }  # fmt: skip


def test_map_calls_the_task_for_each_item(app):
    assert app.tasks["celery.map"](dict(app.double.s()), [1, 2, 3]) == [2, 4, 6]


def test_starmap_spreads_each_item(app):
    assert app.tasks["celery.starmap"](dict(app.add.s()), [[1, 2], [3, 4]]) == [3, 7]


def test_accumulate_returns_all_or_one(app):
    accumulate = app.tasks["celery.accumulate"]

    assert accumulate(1, 2) == (1, 2)
    assert accumulate(1, 2, index=1) == 2


def test_chunks_sends_portions(app, sent):
    app.tasks["celery.chunks"](dict(app.add.s()), [[1, 1], [2, 2], [3, 3]], 2)

    assert [(headers["task"], body[1]["it"]) for headers, body in sent] == [
        ("celery.starmap", [[1, 1], [2, 2]]),
        ("celery.starmap", [[3, 3]]),
    ]


def test_group_sends_members_that_have_ids(app, sent):
    members = group(app.add.s(1), app.add.s(2))
    result = members.freeze()

    app.tasks["celery.group"]([dict(task) for task in members.tasks], result.as_tuple(), result.id, (10,))

    assert [(headers["id"], headers["group"], body[0]) for headers, body in sent] == [
        (result.results[0].id, result.id, (10, 1)),
        (result.results[1].id, result.id, (10, 2)),
    ]


def test_chain_starts_its_tasks(app, sent):
    app.tasks["celery.chain"](10, tasks=[dict(app.add.s(1)), dict(app.double.s())])

    assert [(headers["task"], body[0]) for headers, body in sent] == [("add", (10, 1))]
    assert [step["task"] for step in sent[0][1][2]["chain"]] == ["double"]


def test_chord_starts_its_header(app, sent):
    header = [dict(app.add.s(1, 1)), dict(app.add.s(2, 2))]
    for given in (header, dict(group(header))):
        sent.clear()
        app.tasks["celery.chord"](given, dict(app.double.s()))

        assert [headers["task"] for headers, _ in sent] == ["add", "add"]
        assert {body[2]["chord"]["task"] for _, body in sent} == {"double"}


def test_backend_cleanup_cleans_the_store(app, monkeypatch):
    cleaned = []
    monkeypatch.setattr(app.backend, "cleanup", lambda: cleaned.append(True))

    app.tasks["celery.backend_cleanup"]()

    assert cleaned == [True]
