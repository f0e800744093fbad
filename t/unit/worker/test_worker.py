from __future__ import annotations

import dataclasses

import pytest

from celery import _state, signals
from celery.concurrency import solo
from celery.concurrency.base import BasePool
from celery.exceptions import ImproperlyConfigured
from celery.worker import WorkController, state
from celery.worker.worker import DEFAULTS


def test_a_task_is_run_and_its_result_stored(app, running, wait_until):
    @app.task(shared=False, name="add")
    def add(x, y):
        return x + y

    with running():
        result = add.delay(1, 2)
        wait_until(lambda: result.state == "SUCCESS")

    assert result.result == 3
    assert state.requests == {}


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_what_is_queued_before_the_start_is_run(app, running, wait_until, pool):
    ran = []
    task = app.task(shared=False, name="note")(ran.append)
    for number in range(20):
        task.delay(number)

    with running(pool=pool):
        wait_until(lambda: len(ran) == 20)

    assert sorted(ran) == list(range(20))


def test_a_warm_stop_finishes_what_runs_and_gives_back_what_waits(app, running, wait_until):
    import threading

    started, release, ran = threading.Event(), threading.Event(), []

    @app.task(shared=False, name="wait", acks_late=True)
    def wait(number):
        started.set()
        release.wait(10)
        ran.append(number)

    for number in range(4):
        wait.delay(number)
    with running(pool="threads", concurrency=1, prefetch_multiplier=4):
        assert started.wait(10)
        wait_until(lambda: len(state.requests) == 4)
        state.should_stop = 0
        threading.Timer(0.1, release.set).start()

    assert ran == [0]
    with app.connection_for_read() as connection:
        assert connection.default_channel.queue_declare(app.conf.task_default_queue).message_count == 3


def test_beat_is_refused_inside_a_pool_that_cannot_host_it(make):
    class Greenish(BasePool):
        is_green = True

    with pytest.raises(ImproperlyConfigured, match=r"-B does not work with .*celery beat"):
        make(pool=Greenish, beat=True)


def test_the_pool_says_whether_a_task_may_wait_for_a_task(make, monkeypatch):
    class Roomy(solo.TaskPool):
        traits = dataclasses.replace(solo.TaskPool.traits, join_may_deadlock=False)

    monkeypatch.setattr(_state, "joins_may_deadlock", True)
    make(pool=Roomy)
    assert not _state.joins_may_deadlock
    make(pool=solo.TaskPool)
    assert _state.joins_may_deadlock


def test_concurrency_that_is_no_number_is_refused(make):
    with pytest.raises(ImproperlyConfigured, match="at least 1, or `auto`; it is 'many'"):
        make(concurrency="many")


def test_concurrency_of_nothing_is_refused(make):
    with pytest.raises(ImproperlyConfigured, match="at least 1"):
        make(concurrency=0)


def test_an_unknown_queue_is_named_when_queues_may_not_be_made(app, make):
    app.conf.task_create_missing_queues = False

    with pytest.raises(ImproperlyConfigured, match="-Q nope"):
        make(queues="nope")


def test_excluding_a_queue_that_is_not_consumed_is_refused(make):
    with pytest.raises(ImproperlyConfigured, match="-X zzz"):
        make(exclude_queues="zzz")


def test_options_win_over_settings(app, make):
    app.conf.worker_prefetch_multiplier = 7
    app.conf.task_time_limit = 60

    assert make().prefetch_multiplier == 7
    worker = make(prefetch_multiplier=2, time_limit=30)
    assert (worker.prefetch_multiplier, worker.time_limit) == (2, 30)


def test_every_option_is_declared_on_the_class(make):
    worker = make()

    assert DEFAULTS.keys() - WorkController.__annotations__.keys() == {"concurrency"}  # which is set when it is known
    assert all(hasattr(worker, option) for option in DEFAULTS)


def test_the_modules_of_tasks_are_included_for_children(app, make):
    make(include=["json"])

    assert "json" in app.conf.include
    assert "celery.app.builtins" in app.conf.include


def test_signals_of_a_life_come_in_order(app, running):
    seen = []

    def note(signal, sender, **kwargs):
        seen.append(names[signal])

    names = {getattr(signals, name): name for name in ("worker_init", "worker_shutdown")}
    for signal in names:
        signal.connect(note)
    try:
        with running(pool="solo"):
            assert seen == ["worker_init"]
    finally:
        for signal in names:
            signal.disconnect(note)

    assert seen == ["worker_init", "worker_shutdown"]


def test_the_exit_code_of_a_stop_is_kept(app, running):
    with running(pool="solo") as worker:
        state.should_stop = 3

    assert worker.exitcode == 3


def test_steps_of_the_user_start_and_stop_with_the_worker(app, running):
    from celery import bootsteps

    seen = []

    class WorkerStep(bootsteps.StartStopStep):
        requires = {"celery.worker.components:Pool"}

        def start(self, worker):
            seen.append(("start", worker.pool is not None))

        def stop(self, worker):
            seen.append(("stop", True))

    class ConsumerStep(bootsteps.StartStopStep):
        requires = {"celery.worker.consumer:Tasks"}

        def start(self, c):
            seen.append(("consumer", c.task_consumer is not None))

    app.steps["worker"].add(WorkerStep)
    app.steps["consumer"].add(ConsumerStep)
    with running(pool="solo"):
        assert seen == [("start", True), ("consumer", True)]

    assert seen[2:] == [("stop", True)]


def test_a_message_consumer_of_the_user_gets_its_messages(app, running, wait_until):
    from kombu import Consumer, Queue

    from celery import bootsteps

    queue, got = Queue("users-own"), []

    class Listener(bootsteps.ConsumerStep):
        def get_consumers(self, channel):
            return [Consumer(channel, queues=[queue], callbacks=[self.on_message], accept=["json"])]

        def on_message(self, body, message):
            got.append(body)
            message.ack()

    app.steps["consumer"].add(Listener)
    with running(pool="solo"):
        with app.producer_or_acquire() as producer:
            producer.publish({"hello": "world"}, routing_key="users-own", declare=[queue])
        wait_until(lambda: got)

    assert got == [{"hello": "world"}]
