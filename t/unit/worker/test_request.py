"""One accepted message: how it is acknowledged, and what its end means for the broker."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from billiard.exceptions import Terminated

from celery import Celery, states
from celery.app.trace import child
from celery.concurrency.base import exception_info
from celery.concurrency.guard import SoftlyTerminated
from celery.exceptions import InvalidTaskError, TimeLimitExceeded, WorkerLostError
from celery.worker import state
from celery.worker.request import Request, create_request_cls

#: Each test has an app of its own, with tasks of the same names.
pytestmark = [
    pytest.mark.usefixtures("fresh_state"),
    pytest.mark.filterwarnings("ignore::celery.exceptions.DuplicateTaskNameWarning"),
]

EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


class Message:
    """A delivered message, as far as a request looks at it."""

    content_type, content_encoding = "application/json", "utf-8"
    body = b"[[1, 2], {}, {}]"

    def __init__(self, name="add", **headers):
        self.headers = {
            "id": "id-1",
            "task": name,
            "argsrepr": "(1, 2)",
            "kwargsrepr": "{}",
            "timelimit": [None, None],
            **headers,
        }
        self.properties = {"reply_to": "r", "correlation_id": "id-1", "priority": 3}
        self.delivery_info = {"exchange": "", "routing_key": "q", "redelivered": False}
        self.payload = [[1, 2], {}, EMBED]


class Events(list):
    enabled = True

    def send(self, type, **fields):
        self.append((type, fields))


@pytest.fixture
def app():
    app = Celery("request", broker="memory://", backend="cache+memory://", set_as_current=False)

    @app.task(name="add")
    def add(x, y):
        return x + y

    @app.task(name="late", acks_late=True)
    def late():
        pass

    @app.task(name="safe", acks_late=True, reject_on_worker_lost=True)
    def safe():
        pass

    @app.task(name="strict", acks_late=True, acks_on_failure=False, acks_on_timeout=False)
    def strict():
        pass

    @app.task(name="tried", acks_late=True, retry_on_worker_lost=True, max_retries=2, default_retry_delay=0)
    def tried(x, y):
        pass

    app.finalize()
    yield app
    app.close()


@pytest.fixture
def make(app):
    """Make a request whose answers to the broker and events are kept: ``request.said``, ``request.told``."""

    def make(name="add", **headers):
        said, events = [], Events()
        request = Request(
            Message(name, **headers),
            app=app,
            task=app.tasks[name],
            hostname="w1@test",
            eventer=events,
            on_ack=lambda *_: said.append("ack"),
            on_reject=lambda logger, errors, requeue: said.append(("reject", requeue)),
        )
        request.__dict__.update(said=said, told=events)
        return request

    return make


def types(request):
    return [type for type, _ in request.told]


def test_it_knows_its_message(make):
    request = make(shadow="shown", parent_id="p", root_id="r", group="g", timelimit=[30, 20], retries=2)
    assert (request.id, request.name, request.type) == ("id-1", "shown", "add")
    assert (request.parent_id, request.root_id, request.group) == ("p", "r", "g")
    assert (request.hard_limit, request.soft_limit) == (30, 20)
    assert request.args == [1, 2]
    assert request.delivery_info == {"exchange": "", "routing_key": "q", "priority": 3, "redelivered": False}
    assert request.humaninfo() == "shown[id-1]"
    assert request.info()["args"] == [1, 2]


def test_limits_fall_back_to_the_tasks(app, make):
    app.tasks["add"].time_limit = 9
    assert make().hard_limit == 9


@pytest.mark.parametrize("header", ["eta", "expires"])
def test_a_date_that_is_none_is_refused(make, header):
    with pytest.raises(InvalidTaskError, match=f"invalid {header} value 'tomorrow'"):
        make(**{header: "tomorrow"})


def test_an_early_acknowledgement_comes_with_the_start(make):
    request = make()
    request.on_started(42, time.monotonic() - 1)
    assert request.said == ["ack"]
    assert request.worker_pid == 42
    assert abs(time.time() - 1 - request.time_start) < 0.5
    assert request in state.active_requests
    assert state.total_count["add"] == 1
    assert types(request) == ["task-started"]


def test_a_late_acknowledgement_comes_with_the_end(make):
    request = make("late")
    request.on_started(42, time.monotonic())
    assert request.said == []
    request.on_finished(b"")
    assert request.said == ["ack"]
    assert request not in state.active_requests


def test_an_answer_tells_value_and_runtime(make):
    request = make()
    request.on_finished(child.pack((states.SUCCESS, "3", 0.5)))
    assert request.told == [("task-succeeded", {"uuid": "id-1", "result": "3", "runtime": 0.5})]


def failure(error):
    import pickle

    return child.pack((states.FAILURE, pickle.dumps(exception_info(error)), 0.1))


def test_a_failure_is_acknowledged_and_told(make):
    request = make("late")
    request.on_finished(failure(KeyError("boom")))
    assert request.said == ["ack"]
    (type, fields) = request.told[0]
    assert type == "task-failed"
    assert fields["exception"] == "KeyError('boom')"
    assert "boom" in fields["traceback"]


def test_a_failure_is_rejected_where_the_task_wants_that(make):
    request = make("strict")
    request.on_finished(failure(KeyError("boom")))
    assert request.said == [("reject", False)]


@pytest.mark.parametrize(
    ("answer", "said"),
    [((states.IGNORED, None, 0.0), ["ack"]), ((states.REJECTED, (True, "reject", ""), 0.0), [("reject", True)])],
)
def test_ignore_and_reject_are_answered_as_the_task_said(make, answer, said):
    request = make("late")
    request.on_finished(child.pack(answer))
    assert request.said == said


def test_a_lost_task_fails(app, make):
    request = make("late")
    request.on_lost(WorkerLostError("signal 9"))
    assert request.said == ["ack"]
    assert app.AsyncResult("id-1").state == states.FAILURE
    assert isinstance(app.AsyncResult("id-1").result, WorkerLostError)
    assert types(request) == ["task-failed"]


def test_a_lost_task_goes_back_if_it_wants_that(app, make):
    request = make("safe")
    request.on_lost(WorkerLostError("signal 9"))
    assert request.said == [("reject", True)]
    assert app.AsyncResult("id-1").state == states.PENDING


def test_a_lost_task_is_sent_again_as_often_as_it_may_retry(app, make):
    request = make("tried", retries=1)
    request.on_lost(WorkerLostError("signal 9"))
    assert request.said == ["ack"]
    with app.connection_for_read() as connection:
        message = connection.SimpleQueue("q").get(timeout=1)
        assert message.headers["id"] == "id-1"
        assert message.headers["retries"] == 2
        message.ack()
    request = make("tried", retries=2)
    request.on_lost(WorkerLostError("signal 9"))
    assert app.AsyncResult("id-1").state == states.FAILURE


def test_the_hard_limit_is_a_failure_that_this_process_stores(app, make):
    request = make("late")
    request.on_hard_limit(5)
    assert request.said == ["ack"]
    result = app.AsyncResult("id-1")
    assert isinstance(result.result, TimeLimitExceeded)
    request = make("strict")
    request.on_hard_limit(5)
    assert request.said == [("reject", False)]


def test_the_hard_limit_calls_the_tasks_handler(app, make):
    seen = []
    app.tasks["late"].on_failure = lambda exc, *args: seen.append(type(exc))
    make("late").on_hard_limit(5)
    assert seen == [TimeLimitExceeded]


def test_what_was_never_started_goes_back(make):
    request = make()
    state.task_reserved(request)
    request.on_dropped()
    assert request.said == [("reject", True)]
    assert request.id not in state.requests


def test_a_revoked_request_gives_no_frame(app, make):
    request = make()
    state.revoked.add("id-1")
    assert request.frame() is None
    assert request.said == ["ack"]
    assert app.AsyncResult("id-1").state == states.REVOKED
    assert types(request) == ["task-revoked"]


def test_an_expired_request_gives_no_frame(make):
    request = make(expires="2020-01-01T00:00:00+00:00")
    assert request.frame() is None
    assert request.told[0][1]["expired"] is True


def test_stamps_revoke(make):
    state.revoked_stamps["customer"] = ["c1"]
    assert make(stamped_headers=["customer"], stamps={"customer": "c1"}).revoked()
    assert not make(stamped_headers=["customer"], stamps={"customer": "c2"}).revoked()
    assert not make().revoked()


def test_terminate_ends_the_process_that_runs_it(make):
    killed = []

    class Pool:
        def terminate_job(self, pid, signal):
            killed.append((pid, int(signal)))

    request = make()
    request.on_started(42, time.monotonic())
    request.terminate(Pool(), "TERM")
    assert killed == [(42, 15)]
    assert types(request)[-1] == "task-revoked"
    request.on_lost(Terminated(15))
    assert types(request).count("task-revoked") == 1


def test_terminate_aims_at_the_request_where_the_pool_takes_jobs(make):
    """Its process may run another task by now."""
    aimed = []

    class Pool:
        def submit(self, job): ...

        def terminate_job(self, job, signal):
            aimed.append(job)
            return len(aimed) == 2

    over, running = make(), make()
    for request in (over, running):
        request.on_started(42, time.monotonic())
        request.terminate(Pool())

    assert aimed == [over, running]
    assert "task-revoked" not in types(over)
    assert types(running)[-1] == "task-revoked"


def test_a_task_that_is_terminated_softly_is_told_as_revoked_and_not_as_failed(make):
    request = make()
    request.on_started(42, time.monotonic())
    request.terminate(SimpleNamespace(terminate_job=lambda pid, signum: True), "SIGUSR1")
    request.on_success((1, exception_info(SoftlyTerminated()), 0.1))

    assert types(request)[-1] == "task-revoked"
    assert "task-failed" not in types(request)
    assert request.said == ["ack"]


def test_terminate_waits_for_the_start(make):
    killed = []

    class Pool:
        def terminate_job(self, pid, signal):
            killed.append(pid)

    request = make()
    request.terminate(Pool())
    assert killed == []
    request.on_started(7, time.monotonic())
    assert killed == [7]


def test_a_body_that_the_child_could_not_read_is_set_aside(make):
    aside = []
    request = make()
    request.__class__ = type(
        "R", (Request,), {"_set_aside": staticmethod(lambda message, reason: aside.append(reason))}
    )
    request.on_finished(child.pack((child.MALFORMED, "no body", 0.0)))
    assert aside == ["no body"]


def test_a_frame_holds_the_undecoded_body(make):
    values = child.Frame(*child.unpack(make("late").frame()))
    assert values.body == Message.body
    assert values.is_late
    assert values.wants_answer


def test_requests_of_a_task_share_what_is_the_same(app):
    cls = create_request_cls(Request, app.tasks["add"], None, "w1@test", None, app=app)
    request = cls(Message())
    assert (request.task, request.hostname, request.app) == (app.tasks["add"], "w1@test", app)
    assert cls.__name__ == "Request"


@pytest.fixture
def books(monkeypatch):
    """States that were given to the bookkeeper: ``(mark, id, done)``; it stores none of them by itself."""
    given = []

    def store(task, mark, task_id, *arguments, done=None, at_most=None, **keywords):
        given.append((mark, task_id, done, at_most))

    monkeypatch.setattr(Request, "_keep_books", staticmethod(store))
    return given


def test_a_late_task_is_acknowledged_when_the_failure_that_this_process_tells_is_stored(make, books):
    request = make("late")
    request.on_started(42, time.monotonic())
    request.on_timeout(False, 3)
    [(mark, task_id, done, _)] = books
    assert (mark, task_id, request.said) == ("mark_as_failure", "id-1", [])
    assert types(request) == ["task-started", "task-failed"]

    done()
    assert request.said == ["ack"]


def test_a_lost_late_task_is_acknowledged_when_that_is_stored(make, books):
    request = make("late")
    request.on_started(42, time.monotonic())
    request.on_lost(WorkerLostError("killed"))
    [(mark, _, done, at_most)] = books
    assert (mark, at_most, request.said) == ("mark_as_failure", None, [])

    done()
    assert request.said == ["ack"]


def test_what_never_began_waits_for_a_store_for_a_moment_only(make, books):
    request = make("late", expires="2001-01-01T00:00:00")
    assert request.revoked()
    [(mark, _, done, at_most)] = books
    assert (mark, request.said) == ("mark_as_revoked", [])
    assert at_most <= 1

    done()
    assert request.said == ["ack"]


def test_what_is_given_back_waits_for_no_store(make, books):
    request = make("late")
    request.on_started(42, time.monotonic())
    request.cancel(SimpleNamespace(terminate_job=lambda pid, signum: True))
    request.reject(requeue=True)

    assert [mark for mark, *_ in books] == ["mark_as_retry"]
    assert request.said == [("reject", True)]


def test_it_is_acknowledged_once(make):
    request = make()
    request.acknowledge()
    request.acknowledge()
    request.reject(requeue=True)
    assert request.said == ["ack"]


# -- what began, and acknowledges early


class Recorded(Message):
    """A message of a broker that can remember what began."""

    begins = 0

    def begin(self):
        self.begins += 1
        return True


@pytest.fixture
def begun(app, make):
    """A request that has begun, on record."""

    def begin(**headers):
        request = make(**headers)
        request._message = Recorded()
        request.on_accepted(1, time.monotonic())
        return request

    return begin


def test_an_early_task_stays_on_record_while_it_runs(begun):
    request = begun()
    assert request.said == []
    assert request.info()["acknowledged"] is True

    request.on_finished(b"")
    assert request.said == ["ack"]


def test_a_task_on_record_cannot_be_put_back(begun):
    request = begun()
    request.reject(requeue=True)

    assert request.said == ["ack"]


def test_nobody_waits_for_a_task_that_ignores_its_result(begun):
    assert begun(ignore_result=True).said == ["ack"]
    assert begun(ignore_result=True, group="g").said == []  # but its chord does
