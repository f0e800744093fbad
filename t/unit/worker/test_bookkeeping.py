"""The thread that tells result stores what the main process knows."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from celery.worker.consumer import bookkeeping
from celery.worker.consumer.bookkeeping import Bookkeeper


class Away(Exception):
    """The store is away."""


class Store:
    """A store that can be away; ``stored`` is what it was told."""

    def __init__(self):
        self.sweeps = threading.Semaphore(0)
        self.is_there = threading.Event()
        self.is_there.set()
        self.refusals = threading.Semaphore(0)
        self.stored = []
        self.sweep_chords = self.sweeps.release

    def is_passing_trouble(self, error):
        return isinstance(error, Away)

    def mark_as_revoked(self, task_id, reason):
        if not self.is_there.is_set():
            self.refusals.release()
            raise Away("nobody listens")
        self.stored.append((task_id, reason))


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def task(store):
    return SimpleNamespace(name="add", backend=store)


@pytest.fixture
def keeper(store, monkeypatch):
    monkeypatch.setattr(bookkeeping, "AWAY_SECONDS", 0.01)
    conf = SimpleNamespace(result_backend_transport_options={"chord_sweep_interval": 0.01})
    keeper = Bookkeeper(SimpleNamespace(backend=store, conf=conf))
    yield keeper
    keeper.stop()


def test_it_sweeps_again_and_again(keeper, store):
    keeper.start()
    for _ in range(3):
        assert store.sweeps.acquire(timeout=10)


def test_jobs_are_done_in_order_and_an_error_stops_none(keeper, caplog):
    done = []
    keeper.submit(done.append, 1)
    keeper.submit([].pop)
    keeper.submit(done.append, 2)
    keeper.stop()

    assert done == [1, 2]
    assert "pop from empty list" in caplog.text


def test_a_store_that_does_not_answer_does_not_hold_up_the_end(keeper, monkeypatch):
    monkeypatch.setattr(bookkeeping, "PARTING_SECONDS", 0.01)
    gate = threading.Event()
    keeper.submit(gate.wait)
    keeper.stop()
    gate.set()


def test_what_a_store_does_not_take_waits_until_it_is_back(keeper, store, task):
    done = []
    store.is_there.clear()
    for task_id in "ab":
        keeper.store(task, "mark_as_revoked", task_id, "revoked", done=lambda task_id=task_id: done.append(task_id))
    for _ in range(3):
        assert store.refusals.acquire(timeout=10)
    assert (done, keeper.is_awaited) == ([], True)

    store.is_there.set()
    settled = threading.Event()
    keeper.submit(settled.set)
    assert settled.wait(10)
    assert store.stored == [("a", "revoked"), ("b", "revoked")]
    assert (done, keeper.is_awaited) == (["a", "b"], False)


def test_what_must_not_wait_for_long_is_told_before_the_store_is_back(keeper, store, task):
    waits = []
    keeper._timer = SimpleNamespace(
        call_after=lambda seconds, call, arguments: waits.append((seconds, call, arguments))
    )
    store.is_there.clear()
    done = []
    keeper.store(task, "mark_as_revoked", "a", "revoked", done=lambda: done.append("a"), at_most=3)
    [(seconds, call, arguments)] = waits
    assert (seconds, done) == (3, [])
    call(*arguments)
    assert done == ["a"]

    store.is_there.set()
    settled = threading.Event()
    keeper.submit(settled.set)
    assert settled.wait(10)
    assert (store.stored, done) == ([("a", "revoked")], ["a"])


def test_who_stops_gives_up_what_a_store_does_not_take(keeper, store, task, caplog):
    done = []
    store.is_there.clear()
    for task_id in "ab":
        keeper.store(task, "mark_as_revoked", task_id, "revoked", done=lambda: done.append(1))
    keeper.stop()

    assert done == []  # so what is not acknowledged is delivered again
    assert not keeper.is_awaited
    assert "mark_as_revoked of add[a] and 1 more are not stored" in caplog.text


def test_so_many_wait_for_a_store_and_no_more(keeper, store, task, caplog, monkeypatch):
    monkeypatch.setattr(bookkeeping, "MOST_JOBS", 2)
    store.is_there.clear()
    done = []
    for task_id in "abc":
        keeper.store(task, "mark_as_revoked", task_id, "revoked", done=lambda task_id=task_id: done.append(task_id))

    assert done == ["c"]
    assert "mark_as_revoked of add[c] is not stored, for 2 others wait" in caplog.text


def test_without_a_store_there_is_no_thread():
    from celery.backends.base import DisabledBackend

    keeper = Bookkeeper(SimpleNamespace(backend=DisabledBackend.__new__(DisabledBackend)))
    keeper.start()

    assert keeper._thread is None
