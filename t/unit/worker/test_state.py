"""What a worker remembers, in this process and in a file."""

from __future__ import annotations

import pytest
from kombu.clocks import LamportClock

from celery.exceptions import WorkerShutdown, WorkerTerminate
from celery.worker import state

pytestmark = pytest.mark.usefixtures("fresh_state")


class Held:
    def __init__(self, id, name="add"):
        self.id, self.name = id, name


def test_a_request_goes_from_stage_to_stage():
    request = Held("a")
    state.task_scheduled(request)
    assert request in state.scheduled_requests
    state.task_reserved(request)
    assert request not in state.scheduled_requests
    assert request in state.reserved_requests
    state.task_accepted(request)
    assert request in state.active_requests
    assert state.all_total_count == [1]
    state.task_ready(request, successful=True)
    assert not state.requests
    assert request not in state.active_requests
    assert request not in state.reserved_requests


@pytest.mark.parametrize("is_on", [False, True])
def test_ids_of_successes_are_kept_where_somebody_wants_them(monkeypatch, app, make, is_on):
    app.conf.worker_deduplicate_successful_tasks = is_on
    monkeypatch.setattr(state, "keeps_successful", not is_on)
    make()
    state.task_ready(Held("a"), successful=True)
    state.task_ready(Held("b"))
    assert list(state.successful_requests) == (["a"] if is_on else [])


def test_the_end_of_an_old_delivery_leaves_the_new_one_alone():
    old, new = Held("a"), Held("a")
    state.task_reserved(old)
    state.task_reserved(new)
    state.task_ready(old)
    assert state.requests == {"a": new}


@pytest.mark.parametrize(("flag", "error"), [("should_stop", WorkerShutdown), ("should_terminate", WorkerTerminate)])
def test_a_flag_of_a_signal_handler_ends_the_loop_with_its_exit_code(flag, error):
    state.maybe_shutdown()
    setattr(state, flag, 0)
    with pytest.raises(error) as caught:
        state.maybe_shutdown()
    assert caught.value.code == 0


def test_revoked_ids_and_the_clock_outlive_the_process(tmp_path):
    clock = LamportClock(7)
    store = state.Persistent(state, str(tmp_path / "state"), clock)
    state.revoked.add("gone")
    store.save()
    state.reset_state()

    later = LamportClock(1)
    state.Persistent(state, str(tmp_path / "state"), later).close()

    assert "gone" in state.revoked
    assert later.value > 7


def test_other_workers_revokes_are_merged():
    state.merge_revoked(["a", "b"])
    assert "a" in state.revoked
    assert "b" in state.revoked
