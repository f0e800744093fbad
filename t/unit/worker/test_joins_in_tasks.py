"""Where waiting for another task is denied: in a task that a worker runs, and nowhere else."""

from __future__ import annotations

import threading

import pytest

from celery import Celery, _state
from celery.result import allow_join_result, denied_join_result


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch):
    monkeypatch.setattr(_state._tls, "join_will_block", None)
    monkeypatch.setattr(_state, "joins_may_deadlock", True)


@pytest.fixture
def task():
    with Celery("joins", set_as_current=False) as app:
        yield app.task(name="t")(lambda: None)


@pytest.fixture
def run_by_worker(task):
    task.push_request(called_directly=False, is_eager=False, id="1")
    _state.push_current_task(task)
    yield
    _state.pop_current_task()
    task.pop_request()


def test_a_task_that_a_worker_runs_must_not_wait(run_by_worker):
    assert _state.task_join_will_block()
    with allow_join_result():
        assert not _state.task_join_will_block()
    assert _state.task_join_will_block()


def test_a_thread_beside_it_may(run_by_worker):
    answers = []
    thread = threading.Thread(target=lambda: answers.append(_state.task_join_will_block()))
    thread.start()
    thread.join()
    assert answers == [False]


def test_a_client_may_unless_it_is_denied():
    assert not _state.task_join_will_block()
    with denied_join_result():
        assert _state.task_join_will_block()
    assert not _state.task_join_will_block()


def test_an_eager_task_may(task):
    task.push_request(called_directly=False, is_eager=True, id="1")
    _state.push_current_task(task)
    try:
        assert not _state.task_join_will_block()
    finally:
        _state.pop_current_task()
        task.pop_request()


def test_a_pool_of_greenlets_has_room(run_by_worker, monkeypatch):
    monkeypatch.setattr(_state, "joins_may_deadlock", False)
    assert not _state.task_join_will_block()
