"""One call of one task: arguments, options, copies, errors."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from celery import Celery, chain, chord, group, signature
from celery.canvas import Signature, maybe_signature, subtask
from celery.utils.abstract import CallableSignature


@pytest.fixture(scope="module")
def app():
    app = Celery("signatures", broker="memory://", backend="cache+memory://", set_as_current=False)

    @app.task(shared=False, name="add")
    def add(x, y):
        return x + y

    @app.task(shared=False, name="errback")
    def errback(*args):
        return None

    app.finalize()
    app.add, app.errback = app.tasks["add"], app.tasks["errback"]
    return app


@pytest.fixture
def add(app):
    return app.add


def test_a_copy_shares_nothing_that_can_change(add):
    original = add.s(1, 2).set(headers={"a": 1})
    original.link(add.s(3))

    copied = original.clone()
    copied.options["headers"]["a"] = 2
    copied.options["link"][0].set(queue="q")
    copied.kwargs["new"] = 1

    assert original.options["headers"] == {"a": 1}
    assert original.options["link"] == [add.s(3)]
    assert original.kwargs == {}


def test_a_copy_keeps_app_and_task(app, add):
    copied = add.s(1).clone()

    assert copied.app is app
    assert copied.type is add


def test_members_of_a_header_share_one_body(add):
    body = add.s(1)
    member = add.s(2).set(chord=body)

    assert member.clone().options["chord"] is body


def test_a_deep_copy_is_a_signature_of_its_own(add):
    original = group(add.s(1, [2]), add.s(3, 4))

    copied = copy.deepcopy(original)
    copied.tasks[0].set(queue="q")

    assert type(copied) is group
    assert original.tasks[0].options == {}


@pytest.mark.parametrize("make", [
    lambda add: add.s(1, 2),
    lambda add: chain(add.s(1, 2), add.s(3)),
    lambda add: group(add.s(1, 2), add.s(3, 4)),
    lambda add: chord([add.s(1, 2), add.s(3, 4)], add.s(1)),
    lambda add: add.starmap([(1, 2)]),
    lambda add: add.chunks([(1, 2)], 1),
])  # fmt: skip
@pytest.mark.parametrize("dump", [
    lambda sig: pickle.loads(pickle.dumps(sig)),
    lambda sig: signature(json.loads(json.dumps(sig))),
    copy.deepcopy,
    lambda sig: sig.clone(),
])  # fmt: skip
def test_a_signature_survives_each_way_of_travelling(make, dump, add):
    original = make(add)

    arrived = dump(original)

    assert json.loads(json.dumps(arrived)) == json.loads(json.dumps(original))
    assert arrived.subtask_type == original.subtask_type


def test_pickles_name_a_function_that_celery_has(add):
    pickled = pickle.dumps(chord([add.s(1, 2)], add.s(1)), protocol=0)

    assert b"celery.canvas\nsignature" in pickled
    assert b"celery.canvas." not in pickled


def test_a_class_can_stand_for_a_type_of_its_own(add):
    @Signature.register_type("greeting")
    class greeting(Signature):
        @classmethod
        def from_dict(cls, d, app=None):
            return cls(d, app=app)

    try:
        found = signature({"task": "add", "subtask_type": "greeting"})
        assert type(found) is greeting
        assert type(found.clone()) is greeting
    finally:
        del Signature.TYPES["greeting"]


def test_an_or_with_a_mapping_is_no_union_of_dicts(app, add):
    joined = add.s(1, 2) | dict(add.s(3))

    assert joined.subtask_type == "chain"
    assert [task.args for task in joined.tasks] == [(1, 2), (3,)]
    assert (dict(add.s(1, 2)) | add.s(3)).subtask_type == "chain"


def test_or_in_place_makes_a_workflow(add):
    sig = original = add.s(1, 2)
    sig |= add.s(3)

    assert sig.subtask_type == "chain"
    assert original.subtask_type is None


def test_a_signature_is_a_callable_signature(add):
    assert isinstance(add.s(), CallableSignature)
    assert maybe_signature(add.s(1), clone=True) == add.s(1)
    assert subtask is signature


def test_a_task_that_only_workers_know_can_be_sent(app):
    sent = Signature("elsewhere.task", (1,), app=app).apply_async()

    assert sent.id


def test_a_signature_that_links_itself_is_refused(add):
    sig = add.s(1)

    with pytest.raises(ValueError, match=r"add\(1\) cannot link itself.*clone"):
        sig.link(sig)
    with pytest.raises(ValueError, match="cannot link_error itself"):
        sig.link_error(sig)


@pytest.mark.parametrize(("make", "message"), [
    (lambda add: group([add.s(1, 2), 3]), r"Item 1 of the group is no signature, but int: 3. Make one with task.s"),
    (lambda add: group([add.s(1, 2), add]), r"Item 1 of the group is the task add, not a call of it. Write add.s"),
    (lambda add: group(add.s(1, 2), None), r"Item 1 of the group is no signature, but NoneType"),
    (lambda add: chain(add.s(1, 2), "add"), r"Item 1 of the chain is no signature, but str: 'add'"),
    (lambda add: chain([add, add.s(1)]), r"Item 0 of the chain is the task add"),
    (lambda add: chord([add.s(1, 2), 3], add.s(1)), r"Item 1 of the header of the chord is no signature, but int"),
    (lambda add: chord([add.s(1, 2)], "add"), r"The body of the chord is no signature, but str: 'add'"),
    (lambda add: chord(3, add.s(1)), r"The header of the chord is no signature, but int"),
    (lambda add: chord([add.s(1, 2)])(), r"chord without body.*call it with a body"),
    (lambda add: add.s(1) | 3, r"What stands right of \| is no signature, but int: 3"),
    (lambda add: 3 | add.s(1), r"What stands left of \| is no signature, but int: 3"),
    (lambda add: add.s(1) | add, r"What stands right of \| is the task add"),
    (lambda add: group(add.s(1, 2)).apply_async(link=add.s(1)), r"Cannot add link to group: use a chord"),
])  # fmt: skip
def test_what_is_no_signature_is_refused_where_it_is_found(make, message, add):
    with pytest.raises(TypeError, match=message):
        make(add)


def in_itself(add, kind):
    if kind == "chain":
        whole = chain(add.s(1, 2), add.s(3))
        whole.tasks.append(whole)
    elif kind == "group":
        whole = group(add.s(1, 2), add.s(3, 4))
        whole.tasks.append(whole)
    elif kind == "chord":
        whole = chord([add.s(1, 2)], add.s(1))
        whole.tasks.append(whole)
    else:
        inner = chain(add.s(1), add.s(2))
        whole = group(add.s(1, 2), inner)
        inner.tasks.append(whole)
    return whole


@pytest.mark.parametrize("kind", ["chain", "group", "chord", "two"])
@pytest.mark.parametrize("use", ["apply_async", "apply", "freeze"])
def test_a_canvas_that_contains_itself_is_told_by_name(kind, use, add):
    whole = in_itself(add, kind)

    with pytest.raises(ValueError, match=r"contains itself: celery.\w+ → (celery.\w+ → )?celery.\w+"):
        getattr(whole, use)()
