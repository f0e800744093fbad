"""What a worker's slot owes to a store that is away."""

from __future__ import annotations

import errno
from datetime import datetime, timedelta

import pytest
from kombu.exceptions import EncodeError

from celery import Celery
from celery.backends import owing
from celery.backends.base import KeyValueStoreBackend
from celery.exceptions import BackendStoreError


class Store(KeyValueStoreBackend):
    """A store in a dict; ``trouble`` is raised by each write while it is set, ``tries`` counts them."""

    retry_policy = {"max_retries": 2, "interval_start": 0, "interval_step": 0, "interval_max": 0}

    def __init__(self, app):
        super().__init__(app)
        self.data = {}
        self.trouble = None
        self.tries = 0

    def get(self, key):
        return self.data.get(key)

    def set(self, key, value):
        self.tries += 1
        if self.trouble is not None:
            raise self.trouble
        self.data[key] = value

    def is_passing_trouble(self, exc):
        return isinstance(exc, OSError)

    def succeed(self, *task_ids):
        for task_id in task_ids:
            self.store_result(task_id, 1, "SUCCESS")

    @property
    def stored(self):
        return [key.decode().rpartition("-")[2] for key in self.data]


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(owing, "SHORTEST_REST", 0.0)
    monkeypatch.setattr(owing, "LONGEST_REST", 0.0)
    app = Celery("owing", set_as_current=False)
    store = Store(app)
    store.defer_confirmations()
    yield store
    app.close()


FULL = OSError(errno.ENOSPC, "No space left on device")


def test_what_the_store_does_not_take_is_kept_and_stored_in_order(store):
    store.succeed("a")
    store.trouble = FULL
    store.succeed("b", "c")
    with pytest.raises(OSError, match="No space left"):
        store.try_flush()
    assert store.stored == ["a"]

    store.trouble = None
    store.succeed("d")  # not before the others
    assert store.stored == ["a"]
    store.try_flush()
    assert store.stored == ["a", "b", "c", "d"]


def test_outside_of_a_workers_slot_the_error_is_the_callers(store):
    client = Store(store.app)
    client.trouble = FULL
    with pytest.raises(OSError, match="No space left"):
        client.succeed("a")


def test_who_waits_tries_as_often_as_the_policy_says(store):
    store.trouble = FULL
    store.succeed("a")
    store.tries = 0
    with pytest.raises(OSError, match="No space left"):
        store.flush()
    assert store.tries == 3


def test_a_store_that_failed_a_moment_ago_is_left_alone(store, monkeypatch):
    monkeypatch.setattr(owing, "SHORTEST_REST", 60.0)
    monkeypatch.setattr(owing, "LONGEST_REST", 60.0)
    store.trouble = FULL
    store.succeed("a")
    for _ in range(3):
        with pytest.raises(OSError, match="No space left"):
            store.try_flush()
    assert store.tries == 1


def test_a_record_that_is_refused_does_not_hold_up_the_others(store):
    store.trouble = FULL
    store.succeed("a", "b")
    store.trouble = ValueError("it holds a path")
    with pytest.raises(BackendStoreError, match="refused a record and 1 more: it holds a path"):
        store.flush()

    store.trouble = None
    store.flush()
    assert store.stored == []


def test_so_many_are_owed_and_then_tasks_wait(store, monkeypatch):
    monkeypatch.setattr(owing, "OWED_MAX", 2)
    store.trouble = FULL
    store.succeed("a", "b")
    with pytest.raises(OSError, match="No space left"):
        store.succeed("c")


def test_a_value_that_cannot_be_stored_fails_its_task_also_while_the_store_is_away(store):
    store.trouble = FULL
    store.succeed("a")
    with pytest.raises(EncodeError):
        store.store_result("b", object(), "SUCCESS")


def test_what_was_owed_was_done_when_the_task_ended(store, monkeypatch):
    store.trouble = FULL
    ended = store.app.now()
    store.succeed("a")
    store.trouble = None
    monkeypatch.setattr(store.app, "now", lambda: ended + timedelta(hours=1))
    store.flush()
    store.succeed("b")
    done = {name: datetime.fromisoformat(store.get_task_meta(name)["date_done"]) for name in "ab"}
    assert done["a"] - ended < timedelta(minutes=1)
    assert done["b"] - ended == timedelta(hours=1)
