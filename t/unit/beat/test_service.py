"""The service: life, signals, the clock; and what beat does while the broker is away."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta, timezone

import pytest
from kombu.exceptions import OperationalError

from celery import shared_task, signals
from celery.beat import EmbeddedService, PersistentScheduler, ScheduleEntry, Scheduler, Service
from celery.beat.clock import ClockWatch
from celery.exceptions import ImproperlyConfigured
from celery.schedules import crontab, schedule


@shared_task(name="beat.told")
def told():
    """A task, where its name is needed."""


@pytest.fixture
def service(app, tmp_path):
    return Service(app, schedule_filename=str(tmp_path / "schedule"))


def until(claim):
    deadline = time.monotonic() + 30
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("as_process", [False, True])
def test_it_tells_of_its_start_and_ends_when_asked(service, as_process):
    told = []

    def on_init(sender, signal, **kwargs):
        told.append(signal.name)
        service.ask_to_stop()

    signals.beat_init.connect(on_init)
    signals.beat_embedded_init.connect(on_init)
    service.start(embedded_process=as_process)
    assert told == ["beat_init"] + ["beat_embedded_init"] * as_process
    assert service._is_stopped.is_set()
    assert not service.scheduler._file


def test_it_stops_within_a_long_sleep(service):
    thread = threading.Thread(target=service.start)
    thread.start()
    until(lambda: service._last_tick is not None)
    service.stop(wait=True)
    thread.join(30)
    assert not thread.is_alive()
    assert service.effective_max_interval == 300


def test_an_embedded_thread_sends(app, tmp_path):
    app.conf.beat_schedule = {"a": {"task": "a", "schedule": 0.05}}
    beat = EmbeddedService(app, thread=True, schedule_filename=str(tmp_path / "schedule"))
    assert beat.service.max_interval == 1
    beat.start()
    until(lambda: beat.service._last_tick and beat.service.scheduler.schedule["a"].total_run_count > 2)
    beat.stop()
    beat.join(30)
    with app.connection_for_read() as connection:
        assert connection.SimpleQueue("celery").qsize() > 2


def test_schedulers_have_paths(app, tmp_path):
    assert Service(app, scheduler_cls="celery.beat:Scheduler").get_scheduler().__class__ is Scheduler
    lazy = Service(app, schedule_filename=str(tmp_path / "s")).get_scheduler(lazy=True)
    assert type(lazy) is PersistentScheduler
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"task": "x", "schedule": "every day"}, "is no schedule"),
        ({"task": "x", "schedule": 3, "foo": 1}, "foo"),
        ({"schedule": 3}, "names no `task`"),
        ({"task": "x"}, "has no `schedule`"),
        ({"task": "x", "schedule": None}, "has no `schedule`"),
        ({"task": "x", "schedule": schedule("5")}, "seconds or a timedelta, not '5'"),
        ({"task": "x", "schedule": crontab}, r"instance is needed, such as crontab\(\.\.\.\)"),
        ({"task": "x", "schedule": float("inf")}, "infinity"),
        ({"task": "x", "schedule": 0}, "must be more than 0 seconds, not 0"),
        ({"task": "x", "schedule": -5}, "must be more than 0 seconds, not -5"),
        ({"task": "x", "schedule": timedelta(0)}, "must be more than 0 seconds, not 0"),
        ({"task": "x", "schedule": schedule(0)}, "must be more than 0 seconds, not 0"),
        ({"task": told, "schedule": 3}, "must be a name, such as 'beat.told'"),
        ({"task": "x", "schedule": 3, "options": "low"}, "`options` must be a dictionary, not 'low'"),
        ({"task": "x", "schedule": 3, "kwargs": [1]}, r"`kwargs` must be a dictionary, not \[1\]"),
        (5, "a dictionary of fields, not 5"),
    ],
)
def test_an_entry_that_is_wrong_is_named(app, fields, reason):
    app.conf.beat_schedule = {"wrong": fields}
    with pytest.raises(ImproperlyConfigured, match=f"entry 'wrong'.*{reason}"):
        Scheduler(app)


def test_a_ready_made_entry_that_would_be_sent_without_end_is_named(app):
    app.conf.beat_schedule = {"wrong": ScheduleEntry("wrong", "x", schedule=schedule(0, app=app), app=app)}
    with pytest.raises(ImproperlyConfigured, match=r"entry 'wrong'.*more than 0 seconds"):
        Scheduler(app)


def test_an_interval_of_ages_is_a_long_wait_and_no_error(app, clock, every, caplog):
    app.conf.beat_schedule = {"a": every(1e12)}
    assert Scheduler(app).tick() == 300
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# -- the broker is away


class Flaky(Scheduler):
    """A broker that refuses the first messages."""

    refusals = 2
    producer = None

    def setup_schedule(self):
        self.sent, self.waits, self.ids = [], 0, []
        super().setup_schedule()

    def send_task(self, name, *args, **kwargs):
        self.ids.append(kwargs["task_id"])
        if self.refusals:
            self.refusals -= 1
            raise OperationalError("gone")
        self.sent.append(name)

    def _ensure_connected(self, connection=None):
        self.waits += 1


def test_what_the_broker_refuses_is_sent_when_it_is_back(app, clock, every):
    app.conf.beat_schedule = {"a": every(10)}
    scheduler = Flaky(app)
    clock.turn(seconds=10)
    scheduler.tick()
    assert (scheduler.sent, scheduler.waits) == (["a"], 2)
    assert len(scheduler.ids) == 3
    assert len(set(scheduler.ids)) == 1


def test_what_a_broker_that_answers_keeps_refusing_is_told_and_let_go(app, clock, every, caplog):
    app.conf.beat_schedule = {"a": every(10)}
    scheduler = Flaky(app)
    scheduler.refusals = 3
    clock.turn(seconds=10)
    scheduler.tick()
    assert scheduler.sent == []
    assert "Message Error: Couldn't apply scheduled task a: gone" in caplog.text


def test_a_run_is_due_still_when_beat_is_stopped_while_it_waits(app, clock, every):
    from celery.beat.scheduler import Interrupted

    class Stopped(Flaky):
        def _ensure_connected(self, connection=None):
            raise Interrupted

    app.conf.beat_schedule = {"a": every(10)}
    scheduler = Stopped(app)
    clock.turn(seconds=10)
    with pytest.raises(Interrupted):
        scheduler.tick()
    assert scheduler.schedule["a"].is_due().is_due


def test_a_schedule_that_raises_holds_up_no_other(app, clock, every, caplog):
    class Broken(schedule):
        def is_due(self, last_run_at):
            raise ValueError("boom")

    app.conf.beat_schedule = {"bad": {"task": "bad", "schedule": Broken(1, nowfun=clock)}, "a": every(10)}
    scheduler = Flaky(app)
    scheduler.refusals = 0
    clock.turn(seconds=10)
    scheduler.tick()
    assert scheduler.sent == ["a"]
    assert "Cannot calculate the next run of 'bad', trying again in 5.00 minutes." in caplog.text


# -- the clock on the wall


def test_small_steps_of_the_clock_are_no_jump(monkeypatch):
    ahead = 0.0
    monkeypatch.setattr("celery.beat.clock.time.time", lambda: time.monotonic() + ahead)
    monkeypatch.setattr("celery.beat.clock.elapsed_seconds", time.monotonic)
    watch = ClockWatch()
    ahead = 0.3
    assert not watch.has_jumped()
    assert watch.jump() == 0.0
    ahead = -7200.0
    assert watch.has_jumped()
    assert watch.jump() == pytest.approx(-7200.3, abs=0.1)
    assert watch.jump() == 0.0


NOW = datetime(2026, 11, 20, 10, 30, tzinfo=timezone.utc)


@pytest.mark.parametrize("hours", [1, -2, 24, -24])
def test_intervals_go_by_the_time_that_passes(app, hours, monkeypatch):
    monkeypatch.setattr(app, "now", lambda: NOW + timedelta(hours=hours))
    app.conf.beat_schedule = {"a": {"task": "a", "schedule": 60}}
    scheduler = Scheduler(app)
    scheduler.schedule["a"].last_run_at = NOW - timedelta(seconds=40)
    scheduler.clock_was_set(hours * 3600)
    assert scheduler.schedule["a"].is_due().next == pytest.approx(20)


@pytest.mark.parametrize(
    ("hours", "fields", "runs_again_in"),
    [
        (-2, {"minute": "*/10"}, 10 * 60),  # every hour: by real time
        (-2, {"minute": 30, "hour": 10}, 26 * 3600),  # ran already, by the clock
        (-24, {"minute": 30, "hour": 10}, 24 * 3600),  # no season does that
    ],
)
def test_a_clock_put_back_repeats_no_hour(app, hours, fields, runs_again_in, monkeypatch):
    app.conf.timezone = "UTC"
    monkeypatch.setattr(app, "now", lambda: NOW + timedelta(hours=hours))
    app.conf.beat_schedule = {"c": {"task": "c", "schedule": crontab(**fields)}}
    scheduler = Scheduler(app)
    scheduler.schedule["c"].last_run_at = NOW
    scheduler.clock_was_set(hours * 3600)
    is_due, seconds = scheduler.schedule["c"].is_due()
    assert (is_due, seconds) == (False, runs_again_in)


def test_what_a_clock_put_forward_leaps_over_runs_once(app, monkeypatch):
    monkeypatch.setattr(app, "now", lambda: NOW + timedelta(hours=24))
    app.conf.beat_schedule = {"c": {"task": "c", "schedule": crontab(0)}}
    scheduler = Scheduler(app)
    scheduler.schedule["c"].last_run_at = NOW
    scheduler.clock_was_set(24 * 3600)
    assert scheduler.schedule["c"].is_due() == (True, 1800)


# -- many entries


def test_a_tick_looks_at_one_entry_however_many_there_are(app, clock, kept):
    looks = 0

    class Counting(schedule):
        def is_due(self, last_run_at):
            nonlocal looks
            looks += 1
            return super().is_due(last_run_at)

    app.conf.beat_schedule = {
        f"e{number}": {"task": "t", "schedule": Counting(1000 + number, nowfun=clock)} for number in range(2000)
    }
    scheduler = kept()
    scheduler.tick()
    assert looks == 2001
    clock.turn(seconds=1005)
    looks = 0
    for _ in range(6):
        scheduler.tick()
    assert (len(scheduler.sent), looks) == (6, 6)
