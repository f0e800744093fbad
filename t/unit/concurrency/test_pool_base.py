"""The table of pools, and what a pool of a user's own is given."""

from __future__ import annotations

import os

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError

from celery import concurrency
from celery.concurrency.base import BasePool, apply_target, bare_exception, exception_info


class OwnPool(BasePool):
    """As somebody would write one for Celery."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.events: list[str] = []

    def on_start(self):
        self.events.append("start")

    def on_stop(self):
        self.events.append("stop")

    def on_terminate(self):
        self.events.append("terminate")

    def on_apply(self, target, args=None, kwargs=None, **options):
        self.given = options
        return target(*args, **kwargs)


@pytest.mark.parametrize("name", ["prefork", "processes", "threads", "solo"])
def test_pools_are_found_by_name(name):
    assert issubclass(concurrency.get_implementation(name), BasePool)


def test_a_pool_is_found_by_its_path():
    assert concurrency.get_implementation("celery.concurrency.base:BasePool") is BasePool
    assert concurrency.get_implementation(OwnPool) is OwnPool


def test_custom_without_a_class_says_what_to_set(monkeypatch):
    monkeypatch.setitem(concurrency.ALIASES, "custom", None)
    with pytest.raises(ValueError, match="CELERY_CUSTOM_WORKER_POOL"):
        concurrency.get_implementation("custom")


def test_custom_is_what_the_environment_names(monkeypatch):
    monkeypatch.setitem(concurrency.ALIASES, "custom", "celery.concurrency.solo:TaskPool")

    assert concurrency.get_implementation("custom") is concurrency.get_implementation("solo")


def test_all_names_of_the_table_are_available():
    assert set(concurrency.get_available_pool_names()) == set(concurrency.ALIASES)


def test_a_pool_of_ones_own_runs_callables():
    pool = OwnPool(3, callbacks_propagate=(KeyError,), app="app", other=1)
    assert not pool.active
    pool.start()
    assert pool.active
    assert pool.apply_async(pow, (2, 5), correlation_id="id") == 32
    pool.close()
    assert not pool.active
    pool.stop()

    assert pool.events == ["start", "stop"]
    assert pool.given == {"waitforslot": True, "callbacks_propagate": (KeyError,), "correlation_id": "id"}
    assert (pool.limit, pool.num_processes, pool.app, pool.options) == (3, 3, "app", {"other": 1})


def test_a_pool_of_ones_own_promises_what_it_implements():
    class Resizable(OwnPool):
        def grow(self, n=1): ...
        def shrink(self, n=1): ...
        def terminate_job(self, pid, signal=None): ...

    assert Resizable().traits.resizes
    assert Resizable().traits.kills_tasks
    assert not OwnPool().traits.resizes
    assert not OwnPool().traits.kills_tasks
    assert not OwnPool().traits.restarts


def test_a_pool_without_on_apply_says_so():
    with pytest.raises(NotImplementedError, match="on_apply"):
        BasePool().apply_async(print)


def test_apply_target_calls_back_before_and_after():
    told: list = []
    apply_target(pow, (2, 3), callback=told.append, accept_callback=lambda pid, at: told.append((pid, type(at))))

    assert told == [(os.getpid(), float), 8]


def test_apply_target_leaves_exceptions_to_its_caller():
    with pytest.raises(ZeroDivisionError):
        apply_target(divmod, (1, 0), callback=pytest.fail)


def test_a_target_that_wants_to_end_the_process_is_lost():
    told: list[ExceptionInfo] = []
    apply_target(exit, (3,), callback=told.append)

    assert told[0].type is WorkerLostError
    assert "3" in str(bare_exception(told[0]))


def test_an_error_that_nobody_raised_has_a_traceback_too():
    info = exception_info(KeyError("x"))

    assert "KeyError" in info.traceback
    assert type(bare_exception(info)) is KeyError
