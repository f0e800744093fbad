"""The pool that runs tasks in the worker's own thread: what its loop cannot show."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from celery.concurrency.solo import TaskPool


class Runner:
    """Keeps results until it is told to store them."""

    kept, stored = (), ()

    def run(self, frame):
        self.kept += (frame,)
        return b""

    def flush(self):
        self.stored, self.kept = self.stored + self.kept, ()


def job(frame):
    ignored = dict.fromkeys(
        ("on_started", "on_finished", "on_dropped", "on_soft_limit", "on_hard_limit", "on_lost"), lambda *args: None
    )
    return SimpleNamespace(id=frame, name=frame, frame=lambda: frame, soft_limit=None, hard_limit=None, **ignored)


@pytest.mark.parametrize("end", ["stop", "terminate"])
def test_the_result_of_the_last_job_is_stored_though_others_waited_behind_it(end):
    runner = Runner()
    pool = TaskPool(1, runner=lambda: runner)
    pool.start()
    pool.submit(job("first"))
    pool.submit(job("second"))
    pool.maintain_pool()
    assert runner.kept == ("first",)
    getattr(pool, end)()

    assert runner.stored == ("first",)
