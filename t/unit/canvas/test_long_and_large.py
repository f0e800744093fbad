"""Long chains and large groups: nothing grows faster than what is in them, nothing is too deep."""

from __future__ import annotations

import json
import pickle
import pickletools
import sys

import pytest
from kombu.serialization import dumps, loads

from celery import Celery, chain, chord, group, signature
from celery.canvas import Signature

app = Celery("long", broker="memory://", backend="cache+memory://", set_as_current=False)


@app.task(name="long.add", shared=False)
def add(x, y):
    return x + y


@app.task(name="long.total", shared=False)
def total(xs):
    return sum(xs)


app.finalize()


def calls_of(function):
    """Return how many calls of Python functions ``function()`` makes, its own among them."""
    count = 0

    def count_calls(frame, event, argument):
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(count_calls)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


def chained(size):
    return chain(*[add.s(1) for _ in range(size)])


def chained_by_operator(size):
    whole = add.s(1)
    for _ in range(size - 1):
        whole = whole | add.s(1)
    return whole


def grouped(size):
    return group(add.s(number, number) for number in range(size))


def header_of(size):
    return chord([add.s(number, number) for number in range(size)], total.s())


WORK = {
    "a chain": chained,
    "a chain by |": chained_by_operator,
    "a chain of chains": lambda size: chain(chained(size // 2), chained(size // 2)),
    "a chain, frozen": lambda size: chained(size).freeze(),
    "a chain, frozen, as a tuple": lambda size: chained(size).freeze().as_tuple(),
    "a chain, cloned": lambda size: chained(size).clone(),
    "a chain, stamped": lambda size: chained(size).stamp(stamp="v"),
    "a chain, shown": lambda size: repr(chained(size)),
    "a chain, sent": lambda size: chained(size).apply_async((1,)),
    "a chain, there and back": lambda size: signature(json.loads(json.dumps(chained(size))), app=app),
    "a group, sent": lambda size: grouped(size).apply_async(),
    "a chord, sent": lambda size: header_of(size).apply_async(),
    "a chord, there and back": lambda size: signature(json.loads(json.dumps(header_of(size))), app=app),
}


@pytest.mark.parametrize("work", WORK)
def test_twice_the_size_is_twice_the_work(work):
    WORK[work](10)  # what is done once only is done
    small, large = (calls_of(lambda size=size: WORK[work](size)) for size in (200, 400))

    assert large < 2.2 * small


@pytest.mark.parametrize("build", [chained, chained_by_operator])
def test_thousands_of_steps_are_not_too_deep(build):
    whole = build(5000)
    result = whole.freeze()
    again = signature(json.loads(json.dumps(whole)), app=app)

    assert len(again.tasks) == 5000
    assert len(result.as_list()) == 5000
    assert pickle.loads(pickle.dumps(whole)).tasks[-1] == whole.tasks[-1]
    assert repr(whole).count("add(") == 5000
    assert build(1000).apply((1,)).get() == 1001


CANVASES = {
    "task": lambda: add.s(1, 2).set(queue="q", link=[add.s(1)]),
    "chain": lambda: chained(3),
    "group": lambda: grouped(3),
    "chord": lambda: header_of(3),
    "map": lambda: total.map([[1, 2], [3]]),
    "chunks": lambda: add.chunks([(1, 1), (2, 2), (3, 3)], 2).group(),
    "nested": lambda: chain(add.s(1, 1), group(add.s(1), chord([add.s(1), add.s(2)], total.s())), total.s()),
}


@pytest.mark.parametrize("serializer", ["json", "pickle", "yaml", "msgpack"])
@pytest.mark.parametrize("kind", CANVASES)
def test_a_canvas_survives_every_serializer(kind, serializer):
    pytest.importorskip({"yaml": "yaml", "msgpack": "msgpack"}.get(serializer, "json"))
    whole = CANVASES[kind]()
    content_type, encoding, data = dumps(json.loads(json.dumps(whole)), serializer=serializer)
    again = signature(loads(data, content_type, encoding, accept=[content_type]), app=app)

    assert kind == "map" or type(again) is type(whole)  # the mapping of a map is that of a call of celery.map
    assert json.dumps(again, sort_keys=True) == json.dumps(whole, sort_keys=True)
    assert again.apply((1,) if kind == "chain" else ()).get() == whole.apply((1,) if kind == "chain" else ()).get()


@pytest.mark.parametrize("kind", CANVASES)
def test_pickles_name_the_doors_that_celery_has(kind):
    whole = CANVASES[kind]()
    data = pickle.dumps(whole)
    named = {argument for opcode, argument, _ in pickletools.genops(data) if isinstance(argument, str)}

    assert {name for name in named if name.startswith("celery")} <= {"celery.canvas", *_names_of_tasks(whole)}
    assert pickle.loads(data) == whole
    assert isinstance(pickle.loads(data), Signature)


def _names_of_tasks(sig):
    text = json.dumps(sig)
    return {
        name
        for name in ("celery.chain", "celery.group", "celery.chord", "celery.map", "celery.starmap")
        if name in text
    }
