"""Chords: header and body, what the store is told, who is the parent of whom; and the task that waits for a header."""

from __future__ import annotations

from uuid import uuid4

import pytest

from celery import Celery, chain, chord, group, signals, states
from celery.backends.errbacks import members_of
from celery.exceptions import ChordError


@pytest.fixture
def app():
    app = Celery("chords", broker="memory://", backend="cache+memory://", set_as_current=False)

    @app.task(shared=False, name="add")
    def add(x, y):
        return x + y

    @app.task(shared=False, name="tsum")
    def tsum(xs):
        return sum(xs)

    @app.task(shared=False, name="fail")
    def fail(*args):
        raise KeyError("no")

    app.told = []

    @app.task(shared=False, name="errback")
    def errback(request, exc, traceback):
        app.told.append((request.id, exc))

    app.finalize()
    for name in ("add", "tsum", "fail", "errback"):
        setattr(app, name, app.tasks[name])
    return app


@pytest.mark.parametrize("header", [[group()], [group(), group()], [group(group())], [chain()], group(chain())])
def test_the_body_of_a_header_without_a_task_is_sent_at_once(app, sent, header):
    chord(header, app.tsum.s(), app=app).apply_async()

    assert [(headers["task"], body[0]) for headers, body in sent] == [("tsum", ([],))]


@pytest.mark.parametrize("depth", [1, 2])
def test_the_body_of_a_header_that_gives_nothing_is_sent_with_a_list_for_each_member(app, sent, store, depth):
    body = group()
    for _ in range(depth):
        body = chord([app.add.s(1, 2)], body, app=app)
    result = chord([body, chain(app.add.s(3, 4), body)], app.tsum.s(), app=app).apply_async()

    assert [(headers["task"], body[0]) for headers, body in sent if headers["task"] == "tsum"] == [
        ("tsum", ([[], []],))
    ]
    assert [len(member.results) for member in result.parent.results] == [0, 0]
    assert not any(result.parent.id in entry for entry in store)


def test_members_of_every_kind_get_the_arguments_of_the_call(app, sent):
    members = [app.add.s(), chain(app.add.s(), app.add.s(1)), chord([app.add.s()], app.tsum.s(), app=app)]
    group(members, app=app).apply_async((1,), {"y": 2})

    assert [(body[0], body[1]) for _, body in sent] == [((1,), {"y": 2})] * 3


def test_errbacks_of_a_message_go_to_every_member_of_a_group(app):
    both = group(app.fail.s(), app.add.s(1, 2), app=app)
    both.link_error(dict(app.errback.s()))
    both.link_error("by name")

    links = [member.options["link_error"] for member in both.tasks]
    assert [[getattr(each, "task", each) for each in errbacks] for errbacks in links] == [["errback", "by name"]] * 2


def test_an_errback_that_raises_in_an_eager_run_is_logged(app, caplog):
    app.set_current()
    result = app.fail.s().on_error(app.fail.si() | app.add.s(1)).apply()

    assert isinstance(result.result, KeyError)
    assert "Errback celery.chain of task fail" in caplog.text


@pytest.fixture
def sent():
    """The headers and bodies of what is published."""
    found = []

    def note(body=None, headers=None, **_):
        found.append((headers, body))

    signals.before_task_publish.connect(note, weak=False)
    yield found
    signals.before_task_publish.disconnect(note)


@pytest.fixture
def store(app, monkeypatch):
    """What the result store was told of chords, in order with what was sent."""
    log = []
    backend = app.backend
    original = backend.apply_chord

    def apply_chord(header_args, body, **kwargs):
        log.append(("apply_chord", header_args[0], [member.id for member in header_args[1]], body.id))
        return original(header_args, body, **kwargs)

    def set_chord_size(group_id, size):
        log.append(("size", group_id, size))

    def note(headers=None, **_):
        log.append(("sent", headers["id"]))

    monkeypatch.setattr(backend, "apply_chord", apply_chord)
    monkeypatch.setattr(backend, "set_chord_size", set_chord_size)
    signals.before_task_publish.connect(note, weak=False)
    yield log
    signals.before_task_publish.disconnect(note)


def test_the_store_knows_of_a_chord_before_its_first_member_is_sent(app, store):
    result = chord([app.add.s(1, 2), app.add.s(3, 4)], app.tsum.s()).apply_async()

    ids = [member.id for member in result.parent.results]
    assert store == [
        ("apply_chord", result.parent.id, ids, result.id),
        ("size", result.parent.id, 2),
        ("sent", ids[0]),
        ("sent", ids[1]),
    ]


def test_the_size_counts_the_tasks_that_report_to_the_body(app, store):
    add, tsum = app.add, app.tsum
    chord([chain(add.s(1, 2), group(add.s(1), add.s(2))), chord([add.s(1, 1)], tsum.s()), add.s(1, 1)], tsum.s())()

    assert [entry[2] for entry in store if entry[0] == "size"] == [4, 1]


def test_a_chord_with_an_empty_header_calls_its_body_at_once(app, sent, store):
    result = chord([], app.tsum.s()).apply_async()

    assert [(headers["task"], body[0]) for headers, body in sent] == [("tsum", ([],))]
    assert result.parent.results == []
    assert not any(entry[0] in ("apply_chord", "size") for entry in store)


def test_the_result_of_a_chord_knows_all_that_came_before(app):
    add, tsum = app.add, app.tsum
    result = chain(
        add.s(1, 1), group(add.s(1), add.s(2)), tsum.s(), add.s(1), group(add.s(1), add.s(2)), tsum.s()
    ).apply_async()

    kinds = []
    while result is not None:
        kinds.append(type(result).__name__)
        result = result.parent
    assert kinds == ["AsyncResult", "GroupResult", "AsyncResult", "AsyncResult", "GroupResult", "AsyncResult"]


def test_the_results_of_a_body_that_is_a_chain_have_the_header_for_their_first_parent(app):
    result = chord([app.add.s(1, 2), app.add.s(3, 4)], app.tsum.s() | app.add.s(1)).apply_async()

    assert type(result.parent.parent).__name__ == "GroupResult"


def test_all_members_carry_the_same_body(app, sent):
    chord([app.add.s(i, i) for i in range(50)], app.tsum.s()).apply_async()

    assert len({id(body[2]["chord"]) for _, body in sent}) == 1


def test_a_body_that_is_a_chain_reports_to_the_chord_around_it(app, sent):
    add, tsum = app.add, app.tsum
    result = chord([chord([add.s(1, 2), add.s(3, 4)], tsum.s() | add.s(1)), add.s(5, 6)], tsum.s()).apply_async()

    inner = sent[0][1][2]["chord"]
    assert inner["options"]["chord"]["options"]["task_id"] == result.id
    assert inner["kwargs"]["tasks"][-1]["options"]["group_id"] == result.parent.id

    sent.clear()
    app.signature(inner).apply_async(([3, 7],))
    last = sent[0][1][2]["chain"][0]["options"]
    assert last["chord"]["options"]["task_id"] == result.id
    assert (last["group_id"], last["group_index"]) == (result.parent.id, 0)


def test_a_chord_can_be_given_its_body_by_calling_it(app, sent):
    header = chord([app.add.s(1, 2), app.add.s(3, 4)])

    result = header(app.tsum.s(), queue="q")

    assert result.parent is not None
    assert {body[2]["chord"]["options"]["queue"] for _, body in sent} == {"q"}
    assert header.body is None


def test_a_chord_is_sent_again_under_new_ids(app):
    whole = chord([app.add.s(1, 2)], app.tsum.s())

    first, second = whole.apply_async(), whole.apply_async()

    assert first.id != second.id
    assert first.parent.id != second.parent.id


def test_a_frozen_chord_is_sent_under_the_ids_it_has(app, sent):
    whole = chord([app.add.s(1, 2), app.add.s(3, 4)], app.tsum.s())
    frozen = whole.freeze()

    result = whole.apply_async()

    assert result.id == frozen.id
    assert result.parent.id == frozen.parent.id
    assert [headers["id"] for headers, _ in sent] == [member.id for member in frozen.parent.results]


def test_what_a_member_raises_is_raised_when_the_chord_runs_here(app):
    with pytest.raises(KeyError, match="no"):
        chord([app.add.s(1, 2), app.fail.s()], app.tsum.s()).apply()


def test_values_keep_the_order_of_the_header_when_it_runs_here(app):
    add = app.add

    @app.task(shared=False, name="keep")
    def keep(values):
        return values

    assert chord((add.s(i, 0) for i in range(20)), app.tasks["keep"].s()).apply().get() == list(range(20))


def test_a_chord_needs_a_store_for_results(app):
    bare = Celery("bare", broker="memory://", set_as_current=False)

    @bare.task(shared=False, name="add")
    def add(x, y):
        return x + y

    bare.finalize()
    with pytest.raises(NotImplementedError, match=r"(?i)result.?backend"):
        chord([bare.tasks["add"].s(1, 2)], bare.tasks["add"].s(3)).apply_async()


# -- celery.chord_unlock


def ended(app, value, state=states.SUCCESS):
    """The result of a task that has ended; the store is shared by all tests, so that ids are new."""
    result = app.AsyncResult(str(uuid4()))
    app.backend.store_result(result.id, value, state)
    return result


def unlock(app, header, body, **kwargs):
    task = app.tasks["celery.chord_unlock"]
    return task.apply(
        ("the-group", dict(body)), {"result": [member.as_tuple() for member in header], **kwargs}, throw=False
    )


@pytest.fixture
def header(app):
    """Two members that have run, with results 3 and 7."""
    return [ended(app, 3), ended(app, 7)]


@pytest.fixture
def body(app):
    body = app.tsum.s()
    body.freeze(group_id="the-group")
    body.link_error(app.errback.s())
    return body


def test_unlock_sends_the_body_when_all_have_ended(app, header, body, sent):
    unlock(app, header, body)

    assert [(headers["task"], headers["id"], message[0]) for headers, message in sent] == [("tsum", body.id, ([3, 7],))]


def test_unlock_looks_again_while_a_member_runs(app, header, body, sent):
    result = unlock(app, [*header, app.AsyncResult(str(uuid4()))], body, max_retries=3)

    # run here, it looks as often as it may, and then gives up
    assert result.state == states.SUCCESS
    assert [headers["task"] for headers, _ in sent] == []


def test_unlock_fails_the_body_when_a_member_failed(app, header, body, sent):
    failed = ended(app, KeyError("broken"), states.FAILURE)

    unlock(app, [*header, failed], body)

    assert sent == []
    with pytest.raises(ChordError, match=rf"Dependency {failed.id} raised KeyError\('broken'\)"):
        app.AsyncResult(body.id).get(timeout=1)
    assert [(task_id, type(error)) for task_id, error in app.told] == [(body.id, ChordError)]


def test_unlock_fails_the_body_when_a_member_was_revoked(app, header, body):
    from celery.exceptions import TaskRevokedError

    revoked = ended(app, TaskRevokedError("revoked"), states.REVOKED)

    unlock(app, [*header, revoked], body)

    with pytest.raises(ChordError, match=f"Dependency {revoked.id} raised TaskRevokedError"):
        app.AsyncResult(body.id).get(timeout=1)


def test_unlock_that_gives_up_fails_the_body_and_says_why(app, header, body):
    unlock(app, [*header, app.AsyncResult(str(uuid4()))], body, max_retries=0)

    with pytest.raises(ChordError, match=r"The header of chord the-group did not end within 0 looks \(max_retries\)"):
        app.AsyncResult(body.id).get(timeout=1)
    assert len(app.told) == 1


def test_unlock_gives_up_when_results_expire(app, header, body):
    app.conf.result_chord_expires = 10

    unlock(app, [app.AsyncResult(str(uuid4()))], body, interval=4)

    with pytest.raises(ChordError, match=r"did not end within 10 seconds.*result_chord_expires"):
        app.AsyncResult(body.id).get(timeout=1)


def test_unlock_looks_again_when_the_store_does_not_answer(app, header, body, monkeypatch, sent):
    asked = []

    def ready(self):
        asked.append(self)
        if len(asked) == 1:
            raise ConnectionError("gone")
        return True

    monkeypatch.setattr(app.GroupResult, "ready", ready)

    unlock(app, header, body)

    assert len(asked) == 2
    assert [headers["task"] for headers, _ in sent] == ["tsum"]


def test_members_that_end_in_a_group_are_known_by_the_members_of_that():
    one, ends_in_group, collected = {"task": "1"}, group_of({"task": "2"}, {"task": "3"}), group_of({"task": "4"})
    inner = {"task": "celery.chain", "subtask_type": "chain", "kwargs": {"tasks": [one, ends_in_group]}}
    joined = {"task": "celery.chord", "subtask_type": "chord", "kwargs": {"header": [one], "body": collected}}

    assert [task["task"] for task in members_of(group_of(one, inner, joined))] == ["1", "2", "3", "4"]


def group_of(*tasks):
    return {"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": list(tasks)}}
