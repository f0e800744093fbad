"""How a child process becomes one of an app's, and what is told of it."""

from __future__ import annotations

import os
import signal

import pytest

from celery import Celery, signals
from celery.concurrency import prefork


@pytest.fixture
def app():
    app = Celery("children", broker="memory://", set_as_current=False)

    @app.task(name="noop")
    def noop(): ...

    return app


@pytest.fixture
def pool(app):
    pool = prefork.TaskPool(1, initializer=prefork.process_initializer, initargs=(app, "node@host"))
    yield pool
    pool.terminate()


@pytest.fixture
def told(tmp_path):
    """Note what receivers, here and in children, are told; returns a function that reads it."""
    path = tmp_path / "told"
    connected = []

    def note(signal, *, sender, **fields):
        name = next(name for name, value in vars(signals).items() if value is signal)
        shown = {key: fields[key] for key in ("pid", "exitcode") if key in fields}
        with path.open("a") as file:
            file.write(f"{name} {sender if isinstance(sender, str) else type(sender).__name__} {shown}\n")

    for name in ("worker_before_create_process", "worker_process_init", "worker_process_shutdown"):
        signal = getattr(signals, name)
        signal.connect(note, weak=False)
        connected.append(signal)
    yield lambda: path.read_text().splitlines()
    for signal in connected:
        signal.disconnect(note)


def test_a_process_is_announced_set_up_and_seen_off(pool, told):
    pool.start()
    (pid,) = pool.info["processes"]
    pool.stop()

    assert told() == [
        "worker_before_create_process Supervisor {}",
        "worker_process_init node@host {}",
        f"worker_process_shutdown node@host {{'pid': {pid}, 'exitcode': 0}}",
    ]


def current_app_in_child():
    from billiard import current_process

    from celery import current_app

    return current_app.main, "noop" in current_app.tasks, current_process().name, os.getpid()


def test_the_app_is_current_in_a_child_and_knows_its_tasks(pool):
    pool.start()
    main, has_task, name, pid = pool.apply_async(current_app_in_child).get(10)

    assert (main, has_task, pid) == ("children", True, pool.info["processes"][0])
    assert name.startswith("ForkPoolWorker-")


def test_writes_show_how_evenly_jobs_were_given_out():
    stats = prefork._write_stats([1, 1], active=0)

    assert stats == {
        "total": 2,
        "avg": "0.50",
        "all": "0.50, 0.50",
        "raw": "1, 1",
        "strategy": "fair",
        "inqueues": {"total": 2, "active": 0},
    }


def test_a_pool_that_was_not_started_refuses_work():
    with pytest.raises(RuntimeError, match="not been started"):
        prefork.TaskPool(1).submit(object())


class Short:
    """A job of a name that is known to be short."""

    id, name, hard_limit, soft_limit = "1", "short", None, None

    def frame(self):
        return b""

    def __getattr__(self, name):
        return lambda *args: None


@pytest.mark.parametrize(("strategy", "given"), [("fair", 1), ("default", 3)])
def test_fair_never_gives_a_busy_child_a_second_job(app, strategy, given):
    pool = prefork.TaskPool(
        1, initializer=prefork.process_initializer, initargs=(app, "node@host"), sched_strategy=strategy
    )
    pool.start()
    try:
        pool.apply_async(os.getpid).get(10)  # the child is up
        (child,) = pool._pool.children.values()
        os.kill(child.pid, signal.SIGSTOP)  # what it is given, it keeps
        pool._pool.pace.note("short", 0.00001)
        for _ in range(3):
            pool.submit(Short())
        pool._pool.dispatch()

        assert len(child.flights) == given
    finally:
        os.kill(child.pid, signal.SIGCONT)
        pool.terminate()
