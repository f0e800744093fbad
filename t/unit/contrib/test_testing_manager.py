"""The tools for test programs, against a worker in this process."""

from __future__ import annotations

import io
import threading
import uuid

import pytest

from celery import Celery, group
from celery.contrib.testing.manager import Manager, Sentinel
from celery.contrib.testing.worker import start_worker


@pytest.fixture
def app():
    app = Celery("managed", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.update(
        task_default_queue=f"q-{uuid.uuid4().hex[:8]}", broker_transport_options={"polling_interval": 0.005}
    )
    yield app
    app.close()


@pytest.fixture
def manager(app):
    return Manager(app, stdout=io.StringIO(), stderr=io.StringIO(), block_timeout=20)


@pytest.fixture
def gate(app):
    """A worker with two slots, and a task that waits until the gate opens."""
    gate = threading.Event()

    @app.task(name="wait")
    def wait(number):
        assert gate.wait(30)
        return number

    @app.task(name="fail")
    def fail():
        raise ValueError("no")

    with start_worker(app, perform_ping_check=False, pool="threads", concurrency=2, without_mingle=True):
        yield gate
        gate.set()


def test_lines_go_where_they_are_told_to(manager):
    manager.remark("hello")
    manager.remark("more", sep="=")
    manager.warn("careful")

    assert manager.stdout.getvalue() == "-hello\n=more\n"
    assert manager.stderr.getvalue() == "careful\n"


def test_what_fails_at_first_is_waited_for(manager):
    outcomes = iter([ValueError("one"), ValueError("two"), "three"])
    heard = []

    def attempt():
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    found = manager.wait_for(
        attempt,
        (ValueError,),
        desc="it",
        errback=lambda exc, interval, retries: heard.append((str(exc), retries)),
        interval_start=0.001,
        interval_step=0.001,
        emit_warning=True,
    )

    assert found == "three"
    assert heard == [("one", 0), ("two", 1)]
    assert manager.stderr.getvalue().count("Still waiting for it.") == 2


def test_the_last_error_is_raised(manager):
    with pytest.raises(ZeroDivisionError):
        manager.wait_for(lambda: 1 / 0, (ZeroDivisionError,), max_retries=2, interval_start=0, interval_step=0)


def test_what_never_happens_is_none(manager):
    quick = {"max_retries": 3, "interval_start": 0.001, "interval_step": 0}

    assert manager.ensure_not_for_a_while(lambda: 1 / 0, (ZeroDivisionError,), **quick) is None
    assert manager.ensure_not_for_a_while(lambda: "happened", (ZeroDivisionError,), **quick) == "happened"


def test_what_is_not_true_is_raised(manager):
    assert manager.true_or_raise(lambda value: value, 5) == 5
    with pytest.raises(Sentinel):
        manager.true_or_raise(lambda value: value, 0)


def test_results_are_joined(app, manager, gate):
    gate.set()
    wait, fail = app.tasks["wait"], app.tasks["fail"]

    manager.join(wait.delay(1))
    manager.join(group(wait.s(number) for number in range(3)).apply_async())
    manager.join(fail.delay())
    with pytest.raises(ValueError, match="no"):
        manager.join(fail.delay(), propagate=True)


def test_results_that_do_not_come_are_named(app, manager, gate):
    results = group(app.tasks["wait"].s(number) for number in range(2)).apply_async()

    with pytest.raises(AssertionError, match=results[0].id):
        manager.join(results, max_retries=2, timeout=0.01)
    assert manager.stderr.getvalue().count("Still waiting for 2/2") == 2
    assert manager.missing_results(results) == [result.id for result in results]
    Manager(app, no_join=True).join(results)


def test_workers_tell_where_tasks_are(app, manager, gate):
    manager.inspect = lambda timeout: app.control.inspect(timeout=timeout, limit=1)
    running = [app.tasks["wait"].delay(number).id for number in range(2)]
    manager.assert_accepted(running, interval=5.0)
    waiting = app.tasks["wait"].delay(2).id
    manager.assert_received([waiting], interval=5.0)

    assert manager.query_task_states([*running, waiting], timeout=5.0) == {"active": {*running}, "reserved": {waiting}}
    assert not manager.is_accepted([waiting], timeout=5.0)
    assert not manager.is_received(["nobody"], timeout=5.0)
    gate.set()
    results = [app.AsyncResult(task_id) for task_id in running]
    assert manager.assert_result_tasks_in_progress_or_completed(results, interval=0.1)


def test_idle_is_when_nothing_runs(app, manager, gate):
    manager.inspect = lambda timeout=3.0: app.control.inspect(timeout=10, limit=1)
    running = app.tasks["wait"].delay(1)
    manager.assert_accepted([running.id], interval=5.0)
    threading.Timer(0.1, gate.set).start()
    manager.wait_until_idle()

    assert running.get(timeout=10) == 1
