"""The thread that tells result stores what the main process knows."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from celery.worker.consumer import bookkeeping
from celery.worker.consumer.bookkeeping import Bookkeeper


@pytest.fixture
def keeper():
    sweeps = threading.Semaphore(0)
    backend = SimpleNamespace(sweep_chords=sweeps.release)
    conf = SimpleNamespace(result_backend_transport_options={"chord_sweep_interval": 0.01})
    keeper = Bookkeeper(SimpleNamespace(backend=backend, conf=conf))
    keeper.sweeps = sweeps
    yield keeper
    keeper.stop()


def test_it_sweeps_again_and_again(keeper):
    keeper.start()
    for _ in range(3):
        assert keeper.sweeps.acquire(timeout=10)


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


def test_without_a_store_there_is_no_thread():
    from celery.backends.base import DisabledBackend

    keeper = Bookkeeper(SimpleNamespace(backend=DisabledBackend.__new__(DisabledBackend)))
    keeper.start()

    assert keeper._thread is None
