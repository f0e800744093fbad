"""The words that workers exchange when one of them starts."""

from __future__ import annotations

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
