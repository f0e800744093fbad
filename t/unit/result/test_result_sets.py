"""Handles on many tasks."""

from __future__ import annotations

import pickle

import pytest

from celery import Celery
from celery.exceptions import ImproperlyConfigured, TimeoutError
from celery.result import denied_join_result


@pytest.fixture
def app():
    app = Celery("sets", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.backend.client.cache.clear()
    yield app
    app.backend.client.cache.clear()
    app.close()


@pytest.fixture
def store(app):
    def store(task_id, value, state="SUCCESS"):
        app.backend.store_result(task_id, value, state)
        return app.AsyncResult(task_id)

    return store


@pytest.fixture
def set_of(app):
    return lambda *ids: app.ResultSet([app.AsyncResult(task_id) for task_id in ids])


def test_members_are_added_once_and_taken_out(app, set_of):
    results = set_of("a", "b")
    results.add(app.AsyncResult("a"))
    results.update([app.AsyncResult("b"), app.AsyncResult("c"), app.AsyncResult("c")])
    assert [result.id for result in results] == ["a", "b", "c"]
    results.remove("a")
    results.discard("zz")
    with pytest.raises(KeyError):
        results.remove("zz")

    assert (len(results), results[0].id, repr(results)) == (2, "b", "<ResultSet: [b, c]>")
    results.clear()
    assert results.results == []


def test_sets_are_equal_by_members(set_of):
    assert set_of("a", "b") == set_of("a", "b")
    assert set_of("a") != set_of("b")
    assert set_of("a") != 3


def test_the_state_of_a_set(store, set_of):
    store("a", 1)
    store("b", KeyError("x"), "FAILURE")
    results = set_of("a", "b", "n")

    assert (results.ready(), results.waiting(), results.successful(), results.failed()) == (False, True, False, True)
    assert results.completed_count() == 1
    store("n", 3)
    assert (results.ready(), results.waiting(), results.completed_count()) == (True, False, 2)


def test_the_state_of_many_is_read_at_once(app, store, set_of):
    results = set_of(*[f"t{number}" for number in range(50)])
    for number in range(50):
        store(f"t{number}", number)
    reads = []
    mget = app.backend.mget
    app.backend.mget = lambda keys: reads.append(len(keys)) or mget(keys)

    assert results.ready()
    assert results.successful()
    assert reads == [50]


def test_joining_many_that_have_ended_is_one_look(app, store, set_of):
    for number in range(50):
        store(f"t{number}", number)
    reads = []
    get, mget = app.backend.get, app.backend.mget
    app.backend.get = lambda key: reads.append(1) or get(key)
    app.backend.mget = lambda keys: reads.append(len(keys)) or mget(keys)

    assert set_of(*[f"t{number}" for number in range(50)]).join() == list(range(50))
    assert reads == [50]


def test_values_come_in_order(store, set_of):
    for number in (3, 1, 2):
        store(f"t{number}", number)
    results = set_of("t3", "t1", "t2")

    assert results.get() == results.join() == results.join_native() == [3, 1, 2]


def test_a_member_twice_gives_its_value_twice(app, store):
    store("a", 1)
    results = app.ResultSet([app.AsyncResult("a"), app.AsyncResult("a")])

    assert results.join_native() == [1, 1]


def test_a_failed_member_is_raised_or_returned(store, set_of):
    store("a", 1)
    store("b", KeyError("x"), "FAILURE")
    results = set_of("a", "b")

    for join in (results.get, results.join, results.join_native):
        with pytest.raises(KeyError):
            join()
        assert [type(value) for value in join(propagate=False)] == [int, KeyError]
    with pytest.raises(KeyError):
        results.maybe_throw()


def test_a_callback_gets_every_member(store, set_of):
    store("a", 1)
    store("b", 2)
    for name in ("get", "join", "join_native"):
        seen = []
        assert getattr(set_of("a", "b"), name)(callback=lambda *args, seen=seen: seen.append(args)) == []
        assert sorted(seen) == [("a", 1), ("b", 2)]


def test_joins_end_in_time(store, set_of):
    store("a", 1)
    results = set_of("a", "n")
    for join in (results.get, results.join, results.join_native):
        with pytest.raises(TimeoutError):
            join(timeout=0.03)


def test_one_after_the_other_there_are_no_messages(set_of):
    with pytest.raises(ImproperlyConfigured, match="on_message"):
        set_of("a").join(on_message=print)


def test_inside_a_task_joining_is_refused(store, set_of):
    store("a", 1)
    results = set_of("a")
    with denied_join_result():
        for join in (results.get, results.join, results.join_native):
            with pytest.raises(RuntimeError):
                join()
            assert join(disable_sync_subtasks=False) == [1]


def test_sets_within_sets(app, store):
    for name in ("a", "b", "c"):
        store(name, name)
    inner = app.GroupResult("inner", [app.AsyncResult("a"), app.AsyncResult("b")])
    outer = app.GroupResult("outer", [inner, app.AsyncResult("c")])

    assert outer.join() == outer.join_native() == outer.get() == [["a", "b"], "c"]
    assert (outer.ready(), outer.successful(), outer.failed(), outer.completed_count()) == (True, True, False, 2)


def test_an_empty_set_is_done(app):
    empty = app.GroupResult("e", [])

    assert (empty.get(), empty.join(), empty.ready(), empty.successful()) == ([], [], True, True)
    assert list(empty.iter_native()) == []


def test_then_is_called_when_all_have_ended(store, set_of):
    heard = []
    results = set_of("a", "b")
    results.then(heard.append)
    store("a", 1)
    assert not results.ready()
    assert heard == []
    store("b", 2)
    assert results.ready()

    assert heard == [results]


def test_then_is_called_at_once_when_all_had_ended_before(store, set_of):
    heard = []
    results = set_of("a", "b")
    store("a", 1)
    store("b", 2)
    assert results.ready()
    results.then(heard.append)

    assert heard == [results]


def test_revoke_names_all_in_one_message(app, set_of):
    calls = []
    app.control.revoke = lambda ids, **kwargs: calls.append(ids)
    app.GroupResult("g", [app.AsyncResult("a"), app.GroupResult("h", [app.AsyncResult("b")])]).revoke()

    assert calls == [["a", "b"]]


def test_forget_forgets_all(app, store, set_of):
    store("a", 1)
    store("b", 1)
    set_of("a", "b").forget()

    assert {app.AsyncResult(name).state for name in ("a", "b")} == {"PENDING"}


def test_a_group_is_more_than_its_members(app):
    group = app.GroupResult("g", [app.AsyncResult("a")], parent=app.AsyncResult("p"))

    assert group == app.GroupResult("g", [app.AsyncResult("a")], parent=app.AsyncResult("p")) == "g"
    assert group != app.GroupResult("g", [app.AsyncResult("a")])
    assert group != app.GroupResult("h", [app.AsyncResult("a")], parent=app.AsyncResult("p"))
    assert (bool(app.GroupResult("x", [])), bool(group), str(group)) == (True, True, "g")
    assert repr(group) == "<GroupResult: g [a]>"
    assert group.as_tuple() == (("g", (("p", None), None)), [(("a", None), None)])
    assert group.children == group.results
    assert {group: 1}[group] == 1


def test_a_group_survives_a_pickle(app):
    app.set_current()
    group = app.GroupResult("g", [app.AsyncResult("a")])

    assert pickle.loads(pickle.dumps(group)) == group


def test_unknown_arguments_are_refused(app):
    with pytest.raises(TypeError, match="nonsense"):
        app.GroupResult("g", [], nonsense=1)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("wait", ["get", "join", "join_native"])
def test_a_group_within_a_group_is_awaited_no_longer_than_was_asked(app, wait):
    outer = app.GroupResult("outer", [app.GroupResult("inner", [app.AsyncResult("never")])])

    with pytest.raises(TimeoutError):
        getattr(outer, wait)(timeout=0.2)
