"""Chains and groups: whose steps they are, how they grow, how they are sent."""

from __future__ import annotations

from contextlib import contextmanager
from functools import reduce
from operator import or_
from time import process_time

import pytest

from celery import Celery, chain, group, signals
from celery.canvas import _chain


@pytest.fixture(scope="module")
def app():
    app = Celery("chains", broker="memory://", backend="cache+memory://", set_as_current=False)

    @app.task(shared=False, name="add")
    def add(x, y):
        return x + y

    @app.task(shared=False, name="fail")
    def fail(*args):
        raise KeyError("no")

    app.finalize()
    app.add, app.fail = app.tasks["add"], app.tasks["fail"]
    return app


@pytest.fixture
def add(app):
    return app.add


@pytest.fixture
def sent():
    """The headers and bodies of what is published."""
    found = []

    def note(body=None, headers=None, **_):
        found.append((headers, body))

    signals.before_task_publish.connect(note, weak=False)
    yield found
    signals.before_task_publish.disconnect(note)


# -- whose steps they are


def test_two_tasks_joined_are_the_steps_themselves(add):
    first, second = add.s(1, 2), add.s(3)

    joined = first | second

    assert joined.tasks[0] is first
    assert joined.tasks[1] is second


def test_a_longer_chain_leaves_the_shorter_one_alone(add):
    short = add.s(1, 2) | add.s(3)
    long = short | add.s(4)

    long.tasks[0].set(queue="q")
    short.tasks[1].set(queue="r")

    assert [step.options for step in short.tasks] == [{}, {"queue": "r"}]
    assert [step.options for step in long.tasks] == [{"queue": "q"}, {}, {}]


def test_chains_that_share_steps_have_ids_of_their_own(add):
    base = add.s(1, 2) | add.s(3)
    left, right = base | add.s(4), base | add.s(5)

    ids = [step.id for whole in (left, right, base) if whole.freeze() for step in whole.tasks]

    assert len(set(ids)) == len(ids) == 8


@pytest.mark.parametrize("make", [
    lambda step: chain(step, step, step),
    lambda step: step | step | step,
    lambda step: group(step, step, step),
    lambda step: group([step] * 3),
])  # fmt: skip
def test_a_signature_used_thrice_is_three_tasks(make, add):
    whole = make(add.s(1, y=2))
    whole.freeze()

    assert len({step.id for step in whole.tasks}) == 3


def test_a_chain_is_sent_again_under_new_ids(add):
    whole = chain(add.s(1, 2), add.s(3))

    assert whole.apply_async().id != whole.apply_async().id


def test_a_frozen_chain_is_sent_under_the_ids_it_has(add):
    whole = chain(add.s(1, 2), add.s(3), add.s(4))
    frozen = whole.freeze()

    result = whole.apply_async()

    assert result.id == frozen.id == whole.id
    assert result.parent.id == frozen.parent.id == whole.tasks[1].id
    assert result.parent.parent.parent is None


def test_callbacks_of_a_chain_move_to_its_last_step_when_it_grows(add):
    base = chain(add.s(1, 2), add.s(3))
    base.link(add.s(9))
    base.link_error(add.s(8))

    grown = base | add.s(4)

    assert grown.options == {}
    assert [step.options.get("link") for step in grown.tasks] == [None, [add.s(9)], None]
    assert [step.options.get("link_error") for step in grown.tasks] == [[add.s(8)], [add.s(8)], None]
    assert [step.options for step in base.tasks] == [{}, {}]


# -- how they grow


def seconds(function):
    best = float("inf")
    for _ in range(3):
        started = process_time()
        function()
        best = min(best, process_time() - started)
    return best


@pytest.mark.parametrize("make", [
    lambda steps: chain(steps),
    lambda steps: chain(*steps),
    lambda steps: reduce(or_, steps),
    lambda steps: chain(steps).clone(),
    lambda steps: chain(steps).freeze(),
    lambda steps: chain(steps).apply_async(),
], ids=["list", "arguments", "or", "clone", "freeze", "apply_async"])  # fmt: skip
def test_ten_times_the_steps_cost_no_hundred_times_the_time(make, add):
    few = [add.s(1, 1), *[add.s(1) for _ in range(149)]]
    many = [add.s(1, 1), *[add.s(1) for _ in range(1499)]]
    make(few)

    assert seconds(lambda: make(many)) < 40 * seconds(lambda: make(few)) + 0.02


def test_a_chain_of_thousands_needs_no_deep_stack(add):
    whole = reduce(or_, [add.s(1, 2), *[add.s(1)] * 3000])

    result = whole.apply_async()

    depth = 0
    while result is not None:
        depth, result = depth + 1, result.parent
    assert depth == 3001
    assert len(repr(whole)) > 3000
    assert len(whole.clone().tasks) == 3001


def test_a_long_chain_run_here_gives_the_sum(add):
    assert chain(add.s(0, 0), *[add.s(1)] * 500).apply().get() == 500


# -- how they are sent


def test_a_generator_is_read_once(add):
    read = []

    def members():
        for number in range(3):
            read.append(number)
            yield add.s(number, number)

    whole = group(members())
    whole.apply_async()
    whole.apply_async()

    assert read == [0, 1, 2]
    assert len(whole) == 3


def test_a_large_group_goes_out_as_one_batch(app, add, monkeypatch, sent):
    log = []

    @contextmanager
    def batch():
        log.append("begin")
        yield
        log.append(len(sent))

    monkeypatch.setattr(app, "_batch", batch, raising=False)

    group(add.s(i, i) for i in range(1000)).apply_async()

    assert log == ["begin", 1000]


def test_members_of_a_group_know_group_and_place(add, sent):
    result = group(add.s(1, 1), group(add.s(2, 2), add.s(3, 3)), add.s(4, 4)).apply_async(root_id="root")

    assert [(headers["group"], headers["group_index"], headers["root_id"]) for headers, _ in sent] == [
        (result.id, index, "root") for index in range(4)
    ]
    assert [headers["id"] for headers, _ in sent] == [member.id for member in result.results]


def test_options_of_a_nested_group_reach_its_members(add, sent):
    inner = group(add.s(1, 1), add.s(2, 2).set(priority=1)).set(priority=5, headers={"x": 1})

    group(inner, add.s(3, 3)).apply_async()

    assert [headers.get("x") for headers, _ in sent] == [1, 1, None]


def test_an_empty_chain_does_nothing(app, sent):
    assert chain().apply_async() is None
    assert chain().apply() is None
    assert _chain()() is None
    assert sent == []


def test_an_empty_group_has_an_empty_result(app, sent):
    result = group().apply_async()

    assert result.results == []
    assert result.id
    assert sent == []


def test_an_empty_chain_cannot_be_frozen(app):
    with pytest.raises(ValueError, match="An empty chain has no result"):
        chain().freeze()


def test_the_step_that_fails_here_ends_the_chain_with_its_error(app, add, caplog):
    with pytest.raises(KeyError, match="no"):
        chain(add.s(1, 2), app.fail.s(), add.s(1)).apply()


def test_all_eager_tasks_run_where_they_are_sent(app, add):
    app.conf.task_always_eager = True
    try:
        assert (add.s(1, 2) | group(add.s(1), add.s(2))).apply_async().get() == [4, 5]
        assert (~group(add.s(1, 2), add.s(3, 4))) == [3, 7]
        assert add.chunks([(1, 1), (2, 2), (3, 3)], 2).apply_async().get() == [[2, 4], [6]]
    finally:
        app.conf.task_always_eager = False
