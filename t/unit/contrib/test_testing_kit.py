"""The testing kit, as a user's project uses it: in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys

PROJECT = {
    "conftest.py": 'pytest_plugins = ["celery.contrib.pytest"]\n',
    "tasks.py": """
from celery import shared_task

@shared_task
def mul(x, y):
    return x * y
""",
    "test_fixtures.py": """
import logging

import pytest

from celery import current_app, shared_task
from celery.contrib.testing import worker as testing_worker


@pytest.fixture(scope="session")
def celery_config():
    return {"task_default_queue": "tests"}


@pytest.fixture(scope="session")
def celery_includes():
    return ["tasks", "celery.contrib.testing.tasks"]


@pytest.fixture(scope="session")
def celery_class_tasks():
    from celery import Task

    class Neg(Task):
        name = "neg"

        def run(self, x):
            return -x

    return [Neg]


def test_a_task_runs_in_the_worker(celery_app, celery_worker):
    @celery_app.task
    def sub(x, y):
        return x - y

    celery_worker.reload()
    assert sub.delay(5, 3).get(timeout=10) == 2


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_may_declare_tasks_of_the_same_names(celery_app, celery_worker, turn):
    @celery_app.task
    def mine():
        return turn

    @shared_task
    def everybodys():
        return turn

    celery_worker.reload()
    assert mine.delay().get(timeout=10) == turn
    assert everybodys.delay().get(timeout=10) == turn


def test_includes_are_known_and_shared_tasks_run(celery_app, celery_worker):
    import tasks

    assert tasks.mul.delay(4, 4).get(timeout=10) == 16
    assert celery_app.conf.task_default_queue == "tests"


@pytest.mark.celery(task_default_queue="marked", result_backend="redis://nowhere")
def test_the_mark_overrides_settings(celery_app):
    assert celery_app.conf.task_default_queue == "marked"
    assert celery_app.conf.result_backend == "redis://nowhere"
    assert celery_app.conf.accept_content == {"json"}
    assert current_app.main != celery_app.main
    celery_app.set_current()
    assert current_app.main == celery_app.main


def test_signals_tell_of_the_worker(celery_app):
    from celery.contrib.testing.tasks import ping

    told = []
    connected = [
        (signal, lambda sender, told=told, name=name, **kwargs: told.append((name, sorted(set(kwargs) - {"signal"}))))
        for name, signal in (
            ("starting", testing_worker.test_worker_starting),
            ("started", testing_worker.test_worker_started),
            ("stopped", testing_worker.test_worker_stopped),
        )
    ]
    for signal, receiver in connected:
        signal.connect(receiver)
    with testing_worker.start_worker(celery_app):
        pass
    assert told == [("starting", []), ("started", ["consumer", "worker"]), ("stopped", ["worker"])]


def test_an_error_and_a_chord(celery_app, celery_worker):
    from celery import chord

    @celery_app.task(name="fail")
    def fail():
        raise KeyError("no")

    @celery_app.task(name="total")
    def total(numbers):
        return sum(numbers)

    import tasks

    celery_worker.reload()
    with pytest.raises(KeyError):
        fail.delay().get(timeout=10)
    assert chord([tasks.mul.s(1, 2), tasks.mul.s(3, 4)])(total.s()).get(timeout=10) == 14


# Last, for its worker stays: it would take messages for tasks that only the apps of other tests know.
def test_a_worker_of_the_session(celery_session_app, celery_session_worker):
    assert celery_session_app.send_task("neg", (3,)).get(timeout=10) == -3
    assert celery_session_worker.app is celery_session_app
""",
    "test_trap.py": """
import pytest

from celery import current_app


@pytest.fixture(scope="session")
def use_celery_app_trap():
    return True


def test_the_current_app_is_a_trap(celery_app):
    with pytest.raises(RuntimeError):
        current_app.conf


def test_unless_it_is_asked_for(celery_app, depends_on_current_app):
    assert current_app.conf.broker_url == "memory://"
""",
}


def test_a_project_tests_itself_with_it(tmp_path):
    for name, text in PROJECT.items():
        (tmp_path / name).write_text(text)
    python = sys.executable
    run = subprocess.run(
        [
            python,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--import-mode=prepend",
            "--rootdir",
            str(tmp_path),
            "-W",
            "ignore",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "10 passed" in run.stdout


def test_messages_are_as_a_consumer_gets_them():
    from celery.contrib.testing.app import TestApp
    from celery.contrib.testing.mocks import ContextMock, TaskMessage, TaskMessage1, task_message_from_sig

    message = TaskMessage("add", "id", (1, 2), {"z": 3}, shadow="sum")
    assert message.headers == {"id": "id", "task": "add", "shadow": "sum"}
    assert message.payload == ((1, 2), {"z": 3}, {"callbacks": None, "errbacks": None, "chain": None})
    assert message.content_type == "application/json"
    assert TaskMessage1("add", "id", (1,)).payload["args"] == (1,)

    with TestApp() as app:

        @app.task(name="add")
        def add(x, y):
            return x + y

        message = task_message_from_sig(app, add.s(1, 2).set(link=add.s(3), countdown=10))
        assert message.payload[2]["callbacks"][0]["task"] == "add"
        assert message.headers["eta"]
    with ContextMock() as mock:
        assert mock.anything


def test_an_abortable_task_sees_that_it_was_aborted():
    from celery.contrib.abortable import AbortableAsyncResult, AbortableTask
    from celery.contrib.testing.app import TestApp

    with TestApp() as app:

        @app.task(bind=True, base=AbortableTask, name="long")
        def long(self):
            return "stopped" if self.is_aborted() else "done"

        handle = long.AsyncResult("some-id")
        assert isinstance(handle, AbortableAsyncResult)
        assert not handle.is_aborted()
        handle.abort()
        assert handle.is_aborted()
        assert long.apply(task_id="some-id").result == "stopped"
        assert long.apply(task_id="other").result == "done"
