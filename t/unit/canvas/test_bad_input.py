"""What cannot be a canvas, or cannot be sent, is told in one clear error that names the place."""

from __future__ import annotations

import re

import pytest
from kombu.exceptions import EncodeError

from celery import Celery, chain, chord, group, signature
from celery.canvas import xmap
from celery.result import denied_join_result, result_from_tuple

app = Celery("bad", broker="memory://", backend="cache+memory://", set_as_current=False)


@app.task(name="bad.add", shared=False)
def add(x, y):
    return x + y


@app.task(name="bad.total", shared=False)
def total(xs):
    return sum(xs)


class Odd:
    """No serializer takes it."""


@pytest.fixture(autouse=True)
def _current():
    app.set_current()
    yield
    app.set_default()


def circle(kind):
    """Return a canvas that is a part of itself."""
    one, two = add.s(1, 1), add.s(1)
    if kind == "group":
        whole = group(one, two)
        whole.tasks.append(whole)
    elif kind == "chain":
        whole = chain(one, two)
        whole.tasks.append(whole)
    elif kind == "chord":
        whole = chord([one], total.s())
        whole.body = whole
    else:
        whole = one
        one.link(two)
        two.link(one)
    return whole


PLACES = {
    "Item 1 of the group": lambda bad: group(add.s(1, 1), bad),
    "Item 1 of the chain": lambda bad: chain(add.s(1, 1), bad),
    "Item 1 of the header of the chord": lambda bad: chord([add.s(1, 1), bad], total.s()),
    "The body of the chord": lambda bad: chord([add.s(1, 1)], bad),
    "What stands right of |": lambda bad: add.s(1, 1) | bad,
    "What link got for bad.add": lambda bad: add.s(1, 1).link(bad),
    "What link_error got for bad.add": lambda bad: add.s(1, 1).on_error(bad),
    "What is mapped": lambda bad: xmap(bad, [1]),
}
NO_SIGNATURES = {
    "a number": (3, "is no signature, but int: 3"),
    "a list": ([add], "is no signature, but list"),
    "a mapping": ({"no": "task"}, "is no signature, but a mapping without a task: {'no': 'task'}"),
    "a task": (add, "is the task bad.add, not a call of it. Write add.s(...)"),
}


@pytest.mark.parametrize("bad", NO_SIGNATURES)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_signature_is_named_with_its_place(place, bad):
    item, told = NO_SIGNATURES[bad]
    if (place, bad) == ("What is mapped", "a task"):
        assert PLACES[place](item)["kwargs"]["task"] == add.s()
        return
    with pytest.raises(TypeError, match=re.escape(f"{place} {told}")):
        PLACES[place](item)


@pytest.mark.parametrize("option", ["link", "link_error"])
def test_callbacks_of_a_call_are_signatures(option):
    with pytest.raises(
        TypeError, match=rf"{option} of bad.add takes signatures, not <@task: bad.add .*: write task.s\(\)"
    ):
        add.apply_async((1, 1), **{option: add})
    with pytest.raises(TypeError, match=f"{option} of bad.add takes signatures, not 3"):
        add.apply_async((1, 1), **{option: [add.s(), 3]})


@pytest.mark.parametrize("use", ["apply_async", "apply", "clone", "stamp"])
@pytest.mark.parametrize("kind", ["group", "chain", "chord", "signature"])
def test_a_canvas_that_contains_itself_is_refused(kind, use):
    if (kind, use) == ("chord", "stamp"):
        return  # without a visitor, a body is not stamped
    error = EncodeError if (kind, use) == ("signature", "apply_async") else ValueError
    with pytest.raises(error, match=rf"The {kind} contains itself: (celery.{kind}|bad.add) → "):
        getattr(circle(kind), use)(**({"stamp": "v"} if use == "stamp" else {}))


@pytest.mark.parametrize("kind", ["group", "chain", "chord", "signature"])
def test_a_canvas_that_contains_itself_can_be_shown(kind):
    assert repr(circle(kind))


UNSENDABLE = {
    "bad.add() argument 1 (`x`)": lambda: add.s(Odd(), 1),
    "bad.add() argument 2 (`y`)": lambda: group(add.s(1, 1), add.s(1, {"deep": [1, Odd()]})),
    "bad.add() its chain, in bad.add() argument 1": lambda: chain(add.s(1, 1), add.s(2), add.s(Odd())),
    "bad.add() its chain, in bad.add() argument `y`": lambda: chain(
        add.s(1, 1), group(add.s(1), chain(add.s(1), add.s(y=[Odd()]))), total.s()
    ),
    "bad.add() its chord, in bad.total() argument 1": lambda: chord([add.s(1, 1), add.s(2, 2)], total.s(Odd())),
    "bad.add() its callbacks, in bad.add() argument 1": lambda: add.s(1, 1).set(link=[add.s(Odd())]),
    "bad.add() its errbacks, in bad.add() argument 1": lambda: add.s(1, 1).on_error(add.s(Odd())),
    "celery.map() argument `it`": lambda: add.map([Odd()]),
}


@pytest.mark.parametrize("place", UNSENDABLE)
def test_an_argument_that_cannot_be_sent_is_named_however_deep_it_is(place):
    told = f"{place}: a value of type `Odd` cannot be sent as json"
    with pytest.raises(EncodeError, match=re.escape(told)):
        UNSENDABLE[place]().apply_async()


@pytest.mark.parametrize("backend", [None, "rpc://"])
def test_a_chord_needs_a_store_that_can_do_chords(backend):
    other = Celery("none", broker="memory://", backend=backend, set_as_current=False)
    task = other.task(lambda *args: None, name="task", shared=False)
    canvases = [
        chord([task.si()], task.s(), app=other),
        task.si() | group(task.si(), task.si()) | task.s(),
        group(task.si(), chord([task.si()], task.s(), app=other)),
        group(task.si(), task.si() | group(task.si(), task.si()) | task.s()),
    ]
    for canvas in canvases:
        with pytest.raises(NotImplementedError, match="set result_backend"):
            canvas.apply_async()
    other.close()


def test_without_a_store_every_way_to_read_says_so():
    other = Celery("none", broker="memory://", set_as_current=False)
    result = other.AsyncResult("id")
    ways = [
        result.get,
        result.ready,
        lambda: result.state,
        lambda: result.children,
        other.GroupResult("g", [result]).get,
        other.GroupResult("g", [result]).save,
        lambda: other.GroupResult.restore("g"),
        result.forget,
    ]
    for way in ways:
        with pytest.raises(NotImplementedError, match=r"No result backend is configured.*set result_backend"):
            way()
    other.close()


def test_a_group_that_was_not_saved_is_none_and_text_is_no_result():
    assert app.GroupResult.restore("never saved") is None
    for bad in (3, "text", ("id", None, 3)):
        with pytest.raises(ValueError, match="is no result as a tuple"):
            result_from_tuple(bad, app)
    with pytest.raises(ValueError, match="are no members of a group, for one of them is None"):
        result_from_tuple(("id", [("member", None), None]), app)
    with pytest.raises(TypeError, match=r"'an id' is no result: give app.AsyncResult"):
        app.GroupResult("g", []).add("an id")


@pytest.mark.parametrize("wait", ["get", "join", "join_native"])
def test_waiting_inside_a_task_says_what_to_do_instead(wait):
    result = app.AsyncResult("id") if wait == "get" else app.GroupResult("g", [app.AsyncResult("id")])
    with denied_join_result(), pytest.raises(RuntimeError, match=r"Never call result.get\(\) within a task.*chord"):
        getattr(result, wait)()


def test_mappings_that_stand_for_nothing():
    with pytest.raises(KeyError, match="'nosuch' is no kind of canvas; known are chain, chord"):
        signature({"task": "x", "subtask_type": "nosuch"}, app=app)
    with pytest.raises(TypeError, match="names no task, so there is nothing to send"):
        signature(None, app=app).apply_async()
    with pytest.raises(TypeError, match="without body"):
        chord([add.s(1, 1)])()
    with pytest.raises(ValueError, match="An empty chain has no result"):
        chain().freeze()
    for size in (0, -1, None, "2"):
        with pytest.raises(ValueError, match=r"chunks of bad.add cannot have .* calls each: give at least 1"):
            add.chunks([(1, 1)], size)
    with pytest.raises(TypeError, match="What a task is mapped over is no iterable, but int: 5"):
        add.map(5)
    with pytest.raises(TypeError, match=r"A chord has one header and one body; a third was given: bad.total"):
        chord([add.s(1, 1)], total.s(), total.s())
    with pytest.raises(TypeError, match=r"The header of the chord is no signature, but str: 'bad.add'"):
        chord("bad.add", total.s())
    with pytest.raises(TypeError, match="The header of the chord is no signature, but int: 3"):
        chord(3, total.s())
    with pytest.raises(TypeError, match="What link got for the group is no signature, but int: 3"):
        group(add.s(1, 1)).link(3)
    with pytest.raises(TypeError, match="Cannot add link to group: use a chord"):
        group(add.s(1, 1)).apply_async(link=add.s(1))
