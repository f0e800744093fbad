"""The words that workers exchange when one of them starts."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from celery.worker import state
from celery.worker.consumer.mingle import Mingle


@pytest.fixture
def said(app, monkeypatch):
    """What is said to the others; nobody answers."""
    said = []
    inspect = SimpleNamespace(hello=lambda *arguments: said.append(arguments))
    monkeypatch.setattr(app.control, "inspect", lambda **options: inspect)
    return said


@pytest.mark.parametrize("ids", [[], ["id-1", "id-2"]])
def test_a_starting_worker_names_its_revoked_ids_in_a_list(app, said, ids):
    state.reset_state()
    state.revoked.update(ids)
    consumer = SimpleNamespace(app=app, hostname="w1@test", restart_count=0)
    Mingle(consumer).start(consumer)
    state.reset_state()

    assert said == [("w1@test", ids)]


def test_after_reconnects_in_quick_succession_it_asks_one_at_a_time_and_once_more_at_the_end(app, monkeypatch):
    asked, may_answer = threading.Semaphore(0), threading.Semaphore(0)
    at_once, most = [], []

    def hello(*arguments):
        at_once.append(1)
        most.append(len(at_once))
        asked.release()
        assert may_answer.acquire(timeout=10)
        at_once.pop()

    monkeypatch.setattr(app.control, "inspect", lambda **options: SimpleNamespace(hello=hello))
    consumer = SimpleNamespace(app=app, hostname="w1@test", restart_count=1)
    mingle = Mingle(consumer)
    for _ in range(4):
        mingle.start(consumer)
    for _ in range(2):
        assert asked.acquire(timeout=10)
        may_answer.release()
    for thread in [each for each in threading.enumerate() if each.name == "mingle"]:
        thread.join(10)
    assert most == [1, 1]

    mingle.start(consumer)
    assert asked.acquire(timeout=10)
    may_answer.release()
