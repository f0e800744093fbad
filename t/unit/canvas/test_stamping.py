"""Stamps reach every part of a canvas, and what is linked to it."""

from __future__ import annotations

import json

import pytest

from celery import Celery, chain, chord, group, signals
from celery.canvas import StampingVisitor


@pytest.fixture(scope="module")
def app():
    app = Celery("stamping", broker="memory://", backend="cache+memory://", set_as_current=False)

    @app.task(shared=False, name="add")
    def add(x, y):
        return x + y

    @app.task(shared=False, name="tsum")
    def tsum(xs):
        return sum(xs)

    app.finalize()
    app.add, app.tsum = app.tasks["add"], app.tasks["tsum"]
    return app


class Numbered(StampingVisitor):
    """Each task gets the next number."""

    def __init__(self):
        self.count = 0

    def on_signature(self, sig, **headers):
        self.count += 1
        return {"number": self.count}


class Ends(StampingVisitor):
    """Notes where canvases begin and end; its headers of chords are groups."""

    def __init__(self):
        self.seen = []

    def on_signature(self, sig, **headers):
        return {}

    def on_group_start(self, group, **headers):
        self.seen.append(f"group of {len(group.tasks)}")
        return {"in_group": True}

    def on_group_end(self, group, **headers):
        self.seen.append("end of group")

    def on_chain_start(self, chain, **headers):
        self.seen.append("chain")
        return {}

    def on_chain_end(self, chain, **headers):
        self.seen.append("end of chain")


def tasks_of(sig):
    """All tasks of a canvas, in order, without those that are linked."""
    kwargs = sig["kwargs"]
    header = kwargs.get("header")
    parts = kwargs.get("tasks") or (header["kwargs"]["tasks"] if isinstance(header, dict) else header) or ()
    if sig["subtask_type"] is None:
        yield sig
    for part in parts:
        yield from tasks_of(part)
    if kwargs.get("body"):
        yield from tasks_of(kwargs["body"])


def test_every_task_of_a_nested_canvas_is_stamped_once(app):
    add, tsum = app.add, app.tsum
    whole = chain(
        add.s(1, 1), group(add.s(1), chain(add.s(2), add.s(3))), tsum.s(), chord([add.s(1), add.s(2)], tsum.s())
    )

    whole.stamp(Numbered())

    numbers = [task.options["number"] for task in tasks_of(whole)]
    assert numbers == list(range(1, 9))
    assert all(task.options["stamped_headers"] == ["number"] for task in tasks_of(whole))


def test_the_default_hooks_of_a_chord_are_those_of_its_header(app):
    visitor = Ends()
    whole = chord([app.add.s(1, 2), app.add.s(3, 4) | app.add.s(1)], app.tsum.s())

    whole.stamp(visitor)

    assert visitor.seen == ["group of 2", "chain", "end of chain", "end of group"]
    assert all(task.options["in_group"] for task in tasks_of(whole))


def test_stamps_survive_json_and_copies(app):
    whole = group(app.add.s(1, 2), app.add.s(3, 4) | app.add.s(5))
    whole.stamp(key="value")

    for arrived in (whole.clone(), app.signature(json.loads(json.dumps(whole)))):
        assert [task.options for task in tasks_of(arrived)] == [{"key": "value", "stamped_headers": ["key"]}] * 3


def test_links_of_links_are_stamped(app):
    sig, callback, further = app.add.s(1, 2), app.add.s(3), app.add.s(4)
    callback.link(further)
    sig.link(callback)
    sig.link_error(app.add.s(5))

    sig.stamp(key="value")

    linked = sig.options["link"][0]
    assert [each.options["key"] for each in (linked, linked.options["link"][0], sig.options["link_error"][0])] == [
        "value"
    ] * 3


def test_a_link_that_is_a_mapping_or_an_id_is_accepted(app):
    sig = app.add.s(1, 2).set(link=dict(app.add.s(3)), link_error=["the-id-of-a-task"])

    sig.stamp(key="value")

    assert sig.options["link"][0].options["key"] == "value"
    assert sig.options["link_error"] == ["the-id-of-a-task"]


def test_a_stamp_stays_when_options_come_later(app):
    sig = app.add.s(1, 2)
    sig.stamp(key="value")

    assert sig.clone(key="other", stamped_headers=["else"]).options == {"key": "value", "stamped_headers": ["key"]}


@pytest.mark.parametrize(("first", "second", "together"), [
    ("a", "b", ["b", "a"]),
    (["a"], "b", ["b", "a"]),
    (["a", "b"], ["b", "c"], ["b", "c", "a"]),
    ({"deep": 1}, {"deep": 1}, [{"deep": 1}]),
])  # fmt: skip
def test_appended_stamps_are_kept_together(app, first, second, together):
    sig = app.add.s(1, 2)
    sig.stamp(key=first)
    sig.stamp(key=second, append_stamps=True)

    assert sig.options["key"] == together


def test_stamps_that_are_told_at_the_call_reach_every_member(app):
    found = []

    def note(headers=None, **_):
        found.append((headers["stamped_headers"], headers["stamps"]))

    signals.before_task_publish.connect(note, weak=False)
    try:
        group(app.add.s(1, 2), app.add.s(3, 4)).apply_async(stamped_headers=["key"], key="value")
    finally:
        signals.before_task_publish.disconnect(note)

    assert found == [(["key"], {"key": "value"})] * 2


def test_a_visitor_must_say_what_it_does_with_a_task():
    with pytest.raises(TypeError, match="on_signature"):
        StampingVisitor()


def test_what_was_stamped_is_returned_to_go_on_with(app):
    add = app.tasks["add"]
    for canvas in (
        add.s(1, 2),
        add.s(1, 2) | add.s(3),
        group(add.s(1, 2)),
        chord([add.s(1, 2)], add.s(1)),
        add.map([1]),
    ):
        assert canvas.stamp(key="value") is canvas
