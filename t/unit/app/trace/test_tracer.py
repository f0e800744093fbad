"""One run of one task: request in, outcome out."""

from __future__ import annotations

import logging
import warnings

import pytest
from kombu.exceptions import OperationalError

from celery import Celery, Task, signals, states
from celery.app import trace
from celery.concurrency.guard import SoftlyTerminated
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded, TaskRevokedError

ID = "id-1"

#: Each test has an app of its own, with tasks of the same names.
pytestmark = pytest.mark.filterwarnings("ignore::celery.exceptions.DuplicateTaskNameWarning")


@pytest.fixture
def app():
    app = Celery("trace", broker="memory://", backend="cache+memory://", set_as_current=False)
    yield app
    app.close()


@pytest.fixture
def heard():
    """The signals that were sent: name → keyword arguments."""
    seen = {}
    names = (
        "task_prerun",
        "task_postrun",
        "task_success",
        "task_failure",
        "task_retry",
        "task_internal_error",
    )
    receivers = []
    for name in names:

        def receive(signal, sender, _name=name, **fields):
            seen[_name] = {"sender": sender, **fields}

        receivers.append((getattr(signals, name), receive))
        getattr(signals, name).connect(receive, weak=False)
    yield seen
    for signal, receive in receivers:
        signal.disconnect(receive)


def run(task, *args, request=None, **kwargs):
    tracer = trace.build_tracer(task.name, task, app=task.app)
    return tracer(ID, args, kwargs, {"id": ID, **(request or {})})


def test_a_return_is_stored_and_told(app, heard):
    @app.task
    def add(x, y):
        return x + y

    outcome = run(add, 2, y=3)

    assert (outcome.retval, outcome.info) == (5, None)
    assert outcome.runtime >= 0
    assert app.AsyncResult(ID).get() == 5
    assert heard["task_prerun"]["task_id"] == heard["task_postrun"]["task_id"] == ID
    assert heard["task_postrun"]["state"] == states.SUCCESS
    assert heard["task_success"]["result"] == 5


def test_a_failure_is_stored_with_its_traceback(app, heard):
    @app.task
    def fail():
        raise KeyError("boom")

    outcome = run(fail)

    assert outcome.info.state == states.FAILURE
    assert isinstance(outcome.retval.exception, KeyError)
    meta = app.backend.get_task_meta(ID)
    assert meta["status"] == states.FAILURE
    assert 'raise KeyError("boom")' in meta["traceback"]
    assert heard["task_failure"]["einfo"].exception is heard["task_failure"]["exception"]


def test_handlers_are_called_in_order(app):
    calls = []

    class Watched(Task):
        def before_start(self, task_id, args, kwargs):
            calls.append("before_start")

        def on_success(self, retval, task_id, args, kwargs):
            calls.append(("on_success", retval))

        def after_return(self, status, retval, task_id, args, kwargs, einfo):
            calls.append(("after_return", status, einfo))

    @app.task(base=Watched)
    def one():
        calls.append("run")
        return 1

    run(one)

    assert calls == ["before_start", "run", ("on_success", 1), ("after_return", states.SUCCESS, None)]


def test_on_failure_and_after_return_see_the_error(app):
    calls = []

    class Watched(Task):
        def on_failure(self, exc, task_id, args, kwargs, einfo):
            calls.append(("on_failure", exc, args))

        def after_return(self, status, retval, task_id, args, kwargs, einfo):
            calls.append(("after_return", status, einfo.exception))

    @app.task(base=Watched)
    def fail(x):
        raise error

    error = ValueError("no")
    run(fail, 7)

    assert calls == [("on_failure", error, (7,)), ("after_return", states.FAILURE, error)]


def test_a_custom_call_is_what_runs(app):
    class Doubling(Task):
        def __call__(self, *args, **kwargs):
            return 2 * self.run(*args, **kwargs)

    @app.task(base=Doubling)
    def same(x):
        return x

    assert run(same, 4).retval == 8


def test_the_request_is_current_while_the_task_runs_and_gone_after(app):
    @app.task(bind=True)
    def who(self):
        return self.request.id, self.request.called_directly

    assert run(who).retval == (ID, False)
    assert who.request.called_directly
    assert who.request.id is None


def test_ignore_leaves_no_state(app, heard):
    @app.task
    def ignoring():
        raise Ignore()

    outcome = run(ignoring)

    assert outcome.info.state == states.IGNORED
    assert app.AsyncResult(ID).state == states.PENDING
    assert heard["task_postrun"]["state"] == states.IGNORED
    assert "task_failure" not in heard


def test_reject_carries_its_wish(app):
    @app.task
    def rejecting():
        raise Reject("no thanks", requeue=True)

    outcome = run(rejecting)

    assert outcome.info.state == states.REJECTED
    assert outcome.info.retval.requeue is True


def test_a_retry_is_stored_and_told(app, heard):
    @app.task(bind=True)
    def again(self):
        raise Retry("later", ValueError("x"), when=1)

    outcome = run(again)

    assert outcome.info.state == states.RETRY
    assert app.AsyncResult(ID).state == states.RETRY
    assert isinstance(heard["task_retry"]["reason"], Retry)


def test_a_task_that_ignores_its_result_stores_nothing(app):
    @app.task(ignore_result=True)
    def quiet():
        return 1

    @app.task
    def usual():
        return 1

    run(quiet)
    assert app.AsyncResult(ID).state == states.PENDING
    run(usual, request={"ignore_result": True})
    assert app.AsyncResult(ID).state == states.PENDING


def test_what_the_call_says_of_its_result_counts_more_than_what_the_task_says(app):
    @app.task(ignore_result=True)
    def quiet():
        return 1

    @app.task(ignore_result=True)
    def quiet_failure():
        raise ValueError("heard")

    run(quiet, request={"ignore_result": None})
    assert app.AsyncResult(ID).state == states.PENDING
    run(quiet, request={"ignore_result": False})
    assert app.AsyncResult(ID).result == 1
    run(quiet_failure, request={"ignore_result": False})
    assert app.AsyncResult(ID).state == states.FAILURE


def test_an_error_is_stored_though_results_are_ignored_if_the_task_says_so(app):
    @app.task(ignore_result=True, store_errors_even_if_ignored=True)
    def fail():
        raise ValueError("kept")

    run(fail)

    assert app.AsyncResult(ID).state == states.FAILURE


def test_started_is_stored_when_tracked(app, monkeypatch):
    stored = []

    @app.task(track_started=True)
    def tracked():
        stored.append(app.AsyncResult(ID).state)

    run(tracked)

    assert stored == [states.STARTED]


def test_a_value_that_cannot_be_stored_is_a_failure(app):
    @app.task
    def odd():
        return object()

    outcome = run(odd)

    assert outcome.info is not None
    assert outcome.info.state == states.FAILURE


def test_callbacks_and_the_next_step_are_children_of_the_task(app, monkeypatch):
    sent = []

    @app.task
    def add(x, y):
        return x + y

    monkeypatch.setattr(
        "celery.canvas.Signature.apply_async",
        lambda self, args=(), kwargs=None, **options: sent.append((self["task"], args, options)),
    )
    run(
        add,
        1,
        2,
        request={"callbacks": [add.s(10)], "chain": [add.s(30), add.s(20)], "root_id": "root"},
    )

    assert [(args, options["parent_id"], options["root_id"]) for _, args, options in sent] == [
        ((3,), ID, "root"),
        ((3,), ID, "root"),
    ]
    assert "chain" not in sent[0][2]
    assert [dict(step)["args"] for step in sent[1][2]["chain"]] == [(30,)]


def test_a_successor_that_cannot_be_sent_makes_the_task_fail(app, monkeypatch):
    @app.task
    def add(x, y):
        return x + y

    def refuse(self, *args, **options):
        raise OperationalError("the broker is away")

    monkeypatch.setattr("celery.canvas.Signature.apply_async", refuse)
    outcome = run(add, 1, 2, request={"callbacks": [add.s(10)]})

    assert outcome.info.state == states.FAILURE
    assert app.AsyncResult(ID).state == states.FAILURE


def test_propagate_lets_the_exception_through(app):
    @app.task
    def fail():
        raise KeyError("through")

    tracer = trace.build_tracer(fail.name, fail, app=app, eager=True, propagate=True)
    with pytest.raises(KeyError, match="through"):
        tracer(ID, (), {}, {"id": ID})


def test_an_error_in_a_handler_is_an_internal_error(app, heard):
    class Broken(Task):
        def after_return(self, *args):
            raise RuntimeError("handler")

    @app.task(base=Broken)
    def fine():
        return 1

    with pytest.warns(RuntimeWarning, match="outside of its body"):
        outcome = run(fine)

    assert outcome.info.state == states.FAILURE
    assert heard["task_internal_error"]["exception"].args == ("handler",)


def test_arguments_that_are_no_mapping_are_refused(app):
    @app.task
    def fine():
        return 1

    from celery.exceptions import InvalidTaskError

    tracer = trace.build_tracer(fine.name, fine, app=app)
    with pytest.raises(InvalidTaskError, match="must be a mapping, not list"):
        tracer(ID, (), [1], {"id": ID})


def test_a_redelivery_of_a_task_that_succeeded_is_not_run(app):
    runs = []
    app.conf.worker_deduplicate_successful_tasks = True

    @app.task(acks_late=True)
    def once():
        runs.append(1)

    app.backend.persistent = True
    run(once)
    run(once, request={"delivery_info": {"redelivered": True}})
    assert runs == [1]
    run(once, request={"delivery_info": {"redelivered": False}})
    assert runs == [1, 1]


def test_success_is_logged_with_the_name_to_show(app, caplog):
    @app.task
    def add(x, y):
        return x + y

    with caplog.at_level(logging.INFO, "celery.app.trace"):
        run(add, 1, 2, request={"shadow": "shown"})

    record = caplog.records[-1]
    assert record.getMessage().startswith(f"Task shown[{ID}] succeeded in ")
    assert record.getMessage().endswith("s: 3")
    assert record.data["return_value"] == "3"


def test_an_expected_error_is_no_error_in_the_log(app, caplog):
    @app.task(throws=(ValueError,))
    def fail():
        raise ValueError("as agreed")

    with caplog.at_level(logging.INFO, "celery.app.trace"):
        run(fail)

    record = caplog.records[-1]
    assert record.levelno == logging.INFO
    assert record.getMessage().endswith("raised expected: ValueError('as agreed')")
    assert record.exc_info is None


def test_a_project_may_replace_the_formats(app, caplog, monkeypatch):
    @app.task
    def add(x, y):
        return x + y

    monkeypatch.setattr(trace, "LOG_SUCCESS", "done: %(name)s")
    with caplog.at_level(logging.INFO, "celery.app.trace"):
        run(add, 1, 2)

    assert caplog.records[-1].getMessage() == f"done: {add.name}"


def test_fast_trace_task_runs_a_message_for_the_installed_app(app):
    @app.task(name="fast.add")
    def add(x, y):
        return x + y

    trace.setup_worker_optimizations(app, "w1@test")
    try:
        body = b'[[1, 2], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            failed, _, runtime = trace.fast_trace_task("fast.add", ID, {"id": ID}, body, "application/json", "utf-8")
        assert failed == 0
        assert runtime >= 0
        assert app.AsyncResult(ID).get() == 3
    finally:
        trace.reset_worker_optimizations()


def test_arguments_that_do_not_fit_name_the_caller(app):
    """`send_task` does not check them, and who reads the failure has to know whom to ask."""

    @app.task(bind=True)
    def add(self, x, y):
        return x + y

    result = run(add, 1, request={"origin": "gen42@web1"})

    assert type(result.retval.exception) is TypeError
    assert str(result.retval.exception).endswith("missing 1 required positional argument: 'y' (called by gen42@web1)")
    assert str(app.AsyncResult(ID).result).endswith("(called by gen42@web1)")


def test_a_type_error_of_the_task_itself_does_not(app):
    @app.task
    def add(x, y):
        return x + y

    result = run(add, 1, "1", request={"origin": "gen42@web1"})

    assert "gen42" not in str(result.retval.exception)


@pytest.mark.parametrize("is_told_first", [True, False])
def test_a_task_that_is_terminated_softly_is_revoked_whoever_stores_it_first(app, heard, is_told_first):
    """The worker stores it, too, when it sends the signal; the task's process is faster or slower."""

    @app.task
    def long():
        raise SoftlyTerminated

    if is_told_first:
        app.backend.mark_as_revoked(ID, "terminated")
    outcome = run(long)
    if not is_told_first:
        app.backend.mark_as_revoked(ID, "terminated")
    meta = app.backend.get_task_meta(ID)

    assert meta["status"] == states.REVOKED
    assert isinstance(meta["result"], TaskRevokedError)
    assert str(meta["result"]) == "terminated"
    assert outcome.info.state == states.FAILURE
    assert isinstance(heard["task_failure"]["exception"], SoftTimeLimitExceeded)
