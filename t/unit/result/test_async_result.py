"""Handles on one task."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from datetime import datetime, timezone
from types import SimpleNamespace

import pytest

from celery import Celery
from celery.exceptions import ImproperlyConfigured, IncompleteStream, TaskRevokedError, TimeoutError
from celery.result import (
    AsyncResult,
    EagerResult,
    allow_join_result,
    assert_will_not_block,
    denied_join_result,
    result_from_tuple,
)


@pytest.fixture
def app():
    app = Celery("results", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.backend.client.cache.clear()
    yield app
    app.backend.client.cache.clear()
    app.close()


def store(app, task_id, value, state="SUCCESS", children=(), **extra):
    request = SimpleNamespace(
        id=task_id, group=None, parent_id=None, children=list(children), delivery_info={}, stamps=None, **extra
    )
    app.backend.store_result(task_id, value, state, traceback=extra.get("traceback"), request=request)
    return app.AsyncResult(task_id)


def test_a_handle_needs_an_id(app):
    with pytest.raises(ValueError, match="valid id"):
        app.AsyncResult(None)


def test_handles_are_equal_by_id(app):
    one = app.AsyncResult("a")

    assert one == app.AsyncResult("a") == "a"
    assert one != app.AsyncResult("b")
    assert one != 5
    assert {one: 1}["a"] == 1
    assert (str(one), repr(one), one.task_id) == ("a", "<AsyncResult: a>", "a")


def test_making_a_handle_reads_nothing(app):
    app.backend.get = lambda key: pytest.fail("read")

    assert app.AsyncResult("a").id == "a"


def test_copies_and_pickles_are_the_same_handle(app):
    app.set_current()
    result = app.AsyncResult("a", parent=app.AsyncResult("p"))
    for other in (copy.copy(result), pickle.loads(pickle.dumps(result))):
        assert other == result
        assert other.parent == result.parent
        assert other.get.__func__ is result.get.__func__


def test_what_the_store_says_of_a_success(app):
    result = store(app, "a", [1])

    assert (result.state, result.status, result.result, result.info) == ("SUCCESS", "SUCCESS", [1], [1])
    assert (result.ready(), result.successful(), result.failed(), result.exists()) == (True, True, False, True)
    assert result.get() == result.wait() == [1]
    assert abs((datetime.now(timezone.utc) - result.date_done).total_seconds()) < 60


def test_a_final_record_is_read_once(app):
    result = store(app, "a", 1)
    assert result.get() == 1
    app.backend.get = lambda key: pytest.fail("read again")

    assert result.state == "SUCCESS"
    assert result.get() == 1


def test_a_retry_is_not_the_end(app):
    result = store(app, "a", KeyError("x"), "RETRY")

    assert not result.ready()
    assert isinstance(result.result, KeyError)
    with pytest.raises(TimeoutError):
        result.get(timeout=0.02)


def test_a_failure_is_raised_or_returned(app):
    result = store(app, "a", KeyError("x"), "FAILURE", traceback="tb")
    seen = []

    with pytest.raises(KeyError):
        result.get()
    with pytest.raises(KeyError):
        result.maybe_throw()
    assert isinstance(result.get(propagate=False, callback=lambda *args: seen.append(args)), KeyError)
    assert seen == [("a", result.result)]
    assert result.traceback == "tb"


def test_raising_again_and_again_does_not_pile_up_tracebacks(app):
    result = store(app, "a", KeyError("x"), "FAILURE")
    depths = []
    for _ in range(3):
        try:
            result.get()
        except KeyError as error:
            frame, depth = error.__traceback__, 0
            while frame:
                frame, depth = frame.tb_next, depth + 1
            depths.append(depth)

    assert depths[1] == depths[2]  # the first one came by way of the wait


def test_revoked_without_a_reason_is_still_an_error(app):
    with pytest.raises(TaskRevokedError):
        store(app, "a", None, "REVOKED").get()


def test_a_callback_gets_id_and_value(app):
    seen = []
    store(app, "a", 3).get(callback=lambda *args: seen.append(args))

    assert seen == [("a", 3)]


def test_nothing_is_awaited_of_an_ignored_result(app):
    result = app.AsyncResult("never")
    result.ignored = True

    assert result.get() is None


def test_a_store_that_polls_has_no_messages(app):
    with pytest.raises(ImproperlyConfigured, match="on_message"):
        app.AsyncResult("a").get(on_message=print)


def test_on_interval_is_called_while_waiting(app):
    calls = []
    with pytest.raises(TimeoutError):
        app.AsyncResult("a").get(timeout=0.05, interval=0.01, on_interval=lambda: calls.append(1))

    assert len(calls) > 1


def test_a_failed_parent_ends_the_wait(app):
    parent = store(app, "parent", KeyError("parent"), "FAILURE")
    child = app.AsyncResult("child", parent=app.AsyncResult("between", parent=parent))

    with pytest.raises(KeyError, match="parent"):
        child.get(timeout=5)
    with pytest.raises(TimeoutError):
        child.get(timeout=0.02, follow_parents=False)
    with pytest.raises(TimeoutError):
        child.get(timeout=0.02, propagate=False)


def test_inside_a_task_waiting_is_refused(app):
    result = store(app, "a", 1)
    with denied_join_result():
        with pytest.raises(RuntimeError, match="within a task"):
            result.get()
        with pytest.raises(RuntimeError):
            assert_will_not_block()
        assert result.get(disable_sync_subtasks=False) == 1
        with allow_join_result():
            assert result.get() == 1
        with pytest.raises(RuntimeError):
            result.get()
    assert result.get() == 1


def test_forget_takes_those_before_it_too(app):
    store(app, "p", 1)
    store(app, "a", 1)
    app.AsyncResult("a", parent=app.AsyncResult("p")).forget()

    assert (app.AsyncResult("a").state, app.AsyncResult("p").state) == ("PENDING", "PENDING")


def test_revoke_speaks_to_the_workers(app):
    calls = []
    app.control.revoke = lambda *args, **kwargs: calls.append((args, kwargs))
    app.AsyncResult("a").revoke(terminate=True, signal="SIGKILL", wait=True, timeout=3)

    assert calls == [
        (("a",), {"connection": None, "terminate": True, "signal": "SIGKILL", "reply": True, "timeout": 3})
    ]


def test_then_is_called_when_somebody_looks(app):
    heard = []
    result = app.AsyncResult("a")
    result.then(heard.append)
    assert not result.ready()
    assert heard == []
    store(app, "a", 1)
    assert result.ready()

    assert heard == [result]


def test_then_after_the_end_is_called_at_once(app):
    result = store(app, "a", 1)
    result.get()
    heard = []
    result.then(heard.append)

    assert heard == [result]


def test_throw_breaks_the_promise(app):
    with pytest.raises(KeyError):
        app.AsyncResult("a").throw(KeyError("x"))


def tree(app):
    leaves = [store(app, name, name) for name in ("x", "y")]
    group = app.GroupResult("g", leaves)
    store(app, "kid", 2, children=[group])
    return store(app, "root", 1, children=[app.AsyncResult("kid")])


def test_the_tree_is_walked_breadth_first(app):
    root = tree(app)

    assert [(parent and parent.id, node.id) for parent, node in root.iterdeps()] == [
        (None, "root"),
        ("root", "kid"),
        ("kid", "g"),
        ("g", "x"),
        ("g", "y"),
    ]
    assert [value for _, value in root.collect()] == [1, 2, ["x", "y"], "x", "y"]
    assert root.get_leaf() == "y"
    assert root.children == [app.AsyncResult("kid")]


def test_a_tree_that_still_grows_is_incomplete(app):
    root = store(app, "root", 1, children=[app.AsyncResult("kid")])

    with pytest.raises(IncompleteStream):
        list(root.iterdeps())
    assert [node.id for _, node in root.iterdeps(intermediate=True)] == ["root", "kid"]


def test_the_tree_can_be_drawn(app, tmp_path):
    root = tree(app)
    with open(tmp_path / "graph.dot", "w") as file:
        root.graph.to_dot(file)

    assert "kid" in (tmp_path / "graph.dot").read_text()
    assert len(list(root.graph)) == 5


def test_tuples_stand_for_results(app):
    chain = app.AsyncResult("c", parent=app.AsyncResult("p", parent=app.AsyncResult("r")))

    assert chain.as_tuple() == (("c", (("p", (("r", None), None)), None)), None)
    assert chain.as_list() == ["c", "p", "r"]
    back = result_from_tuple(chain.as_tuple(), app)
    assert back == chain
    assert back.parent.parent == chain.parent.parent
    assert result_from_tuple(back, app) is back
    assert result_from_tuple(["x", None], app) == "x"
    assert result_from_tuple([["x", ["p", None]], None], app).parent == "p"


def test_a_long_chain_does_not_exhaust_the_stack(app):
    result = None
    for number in range(3000):
        result = app.AsyncResult(f"t{number}", parent=result)
    back = result_from_tuple(result.as_tuple(), app)

    assert back.as_list() == result.as_list()
    assert len(back.as_list()) == 3000


def test_waiting_does_not_outlast_its_time(app):
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        app.AsyncResult("a").get(timeout=0.05, interval=10)

    assert time.monotonic() - began < 1


# -- eager


def test_an_eager_success():
    result = EagerResult("e", 42, "SUCCESS", name="t")

    assert (result.get(), result.wait(), result.result, result.info) == (42, 42, 42, 42)
    assert (result.state, result.ready(), result.successful(), result.failed()) == ("SUCCESS", True, True, False)
    assert (result.children, result.as_tuple(), result.name) == (None, (("e", None), None), "t")
    assert (result.supports_native_join, repr(result)) == (False, "<EagerResult: e>")
    assert result.forget() is None


@pytest.mark.parametrize(("value", "kind"), [(KeyError("x"), KeyError), ("text", Exception)])
def test_an_eager_failure(value, kind):
    result = EagerResult("e", value, "FAILURE", traceback="tb")

    with pytest.raises(kind):
        result.get()
    assert result.get(propagate=False) is value
    assert result.traceback == "tb"


def test_an_eager_retry_has_no_value():
    assert EagerResult("e", KeyError("x"), "RETRY").get() is None


def test_an_eager_result_can_be_called_revoked():
    result = EagerResult("e", 1, "SUCCESS")
    result.revoke()

    assert result.state == "REVOKED"
    with pytest.raises(TaskRevokedError):
        result.get()


def test_then_on_an_eager_result_is_called_at_once():
    heard = []
    result = EagerResult("e", 1, "SUCCESS")
    result.then(heard.append)

    assert heard == [result]


def test_eager_results_copy_and_pickle():
    result = EagerResult("e", 1, "SUCCESS", "tb", "n")
    for other in (copy.copy(result), pickle.loads(pickle.dumps(result))):
        assert (other.id, other.result, other.state, other.traceback, other.name) == ("e", 1, "SUCCESS", "tb", "n")


def test_the_classes_are_known_under_the_door():
    assert {cls.__module__ for cls in (AsyncResult, EagerResult)} == {"celery.result"}


def test_the_body_of_a_chord_raises_what_its_header_raised(app):
    store(app, "good", 1)
    store(app, "bad", KeyError("member"), "FAILURE")
    store(app, "body", ValueError("chord"), "FAILURE")
    header = app.GroupResult("g", [app.AsyncResult("good"), app.AsyncResult("bad")])

    with pytest.raises(KeyError, match="member"):
        app.AsyncResult("body", parent=header).get(timeout=1)
    with pytest.raises(ValueError, match="chord"):
        app.AsyncResult("body", parent=header).get(timeout=1, follow_parents=False)
    with pytest.raises(KeyError, match="member"):
        app.AsyncResult("never", parent=header).get(timeout=1)


def test_looking_at_many_parents_does_not_take_the_time_of_waiting(app):
    header = app.GroupResult("g", [app.AsyncResult(f"t{number}") for number in range(1000)])
    looks = []
    mget = app.backend.mget
    app.backend.mget = lambda keys: looks.append(len(keys)) or time.sleep(0.02) or mget(keys)
    with pytest.raises(TimeoutError):
        app.AsyncResult("body", parent=header).get(timeout=0.3, interval=0.001)

    assert len(looks) <= 4


def test_what_failed_first_is_raised_also_if_both_end_during_the_wait(app):
    header = app.GroupResult("g", [app.AsyncResult("bad")])
    result = app.AsyncResult("body", parent=header)

    def fail():
        store(app, "bad", KeyError("member"), "FAILURE")
        store(app, "body", ValueError("chord"), "FAILURE")

    threading.Timer(0.02, fail).start()
    with pytest.raises(KeyError, match="member"):
        result.get(timeout=5, interval=0.01)
