"""Entries and the scheduler, with a clock that the test turns."""

from __future__ import annotations

import pickle
from datetime import timedelta

import pytest

from celery.beat import BeatLazyFunc, ScheduleEntry, Scheduler, SchedulingError
from celery.schedules import crontab, schedule


class Recording(Scheduler):
    """Writes down what it would send, and when."""

    producer = None

    def setup_schedule(self):
        self.sent = []
        super().setup_schedule()

    def send_task(self, name, args, kwargs, **options):
        self.sent.append((name, *args))


def every(clock, seconds, task, **fields):
    return {"task": task, "schedule": schedule(seconds, nowfun=clock), **fields}


def run(scheduler, clock, seconds):
    """Let beat run for a while: it sleeps as long as it says."""
    end = clock.time + timedelta(seconds=seconds)
    while True:
        wait = max(scheduler.tick(), 0)
        if clock.time + timedelta(seconds=wait) > end:
            clock.time = end
            return
        clock.time += timedelta(seconds=wait or 0.001)


def test_each_entry_is_sent_when_it_is_due(app, clock):
    app.conf.beat_schedule = {"a": every(clock, 10, "a"), "b": every(clock, 25, "b", args=(1,))}
    scheduler = Recording(app)
    run(scheduler, clock, 61)
    assert [name for name, *_ in scheduler.sent].count("a") == 6
    assert scheduler.sent.count(("b", 1)) == 2


def test_an_entry_that_is_never_due_holds_up_no_other(app, clock):
    class Never(schedule):
        def is_due(self, last_run_at):
            return False, 100000

    scheduler = Recording(app, max_interval=300)
    scheduler.schedule = {
        "never": ScheduleEntry("never", "never", clock(), schedule=Never(1, nowfun=clock), app=app),
        "often": ScheduleEntry("often", "often", clock(), schedule=schedule(10, nowfun=clock), app=app),
    }
    scheduler.populate_heap()
    scheduler._heap.sort(key=lambda event: event.entry.name)  # the one that is never due first
    scheduler.old_schedulers = dict(scheduler.schedule)
    scheduler._heap[0] = scheduler._heap[0]._replace(time=0)
    run(scheduler, clock, 35)
    assert scheduler.sent == [("often",)] * 3


def test_an_entry_that_came_later_is_seen(app, clock):
    scheduler = Recording(app)
    assert scheduler.tick() == scheduler.max_interval
    scheduler.add(name="new", task="new", schedule=schedule(5, nowfun=clock), last_run_at=clock())
    run(scheduler, clock, 6)
    assert scheduler.sent == [("new",)]


def test_what_cannot_be_sent_is_told_and_stops_nothing(app, clock, caplog):
    class Broken(Recording):
        def send_task(self, name, *args, **kwargs):
            if name == "bad":
                raise OSError("no broker")
            super().send_task(name, *args, **kwargs)

    app.conf.beat_schedule = {"bad": every(clock, 10, "bad"), "good": every(clock, 10, "good")}
    scheduler = Broken(app)
    run(scheduler, clock, 11)
    assert scheduler.sent == [("good",)]
    assert "Couldn't apply scheduled task bad: no broker" in caplog.text
    with pytest.raises(SchedulingError):
        scheduler.apply_async(scheduler.schedule["bad"])


def test_registered_tasks_are_sent_as_themselves(app, clock):
    @app.task(name="add")
    def add(x, y):
        return x + y

    app.conf.task_always_eager = True
    scheduler = Recording(app)
    entry = scheduler.add(name="add", task="add", args=(1, BeatLazyFunc(lambda: 2)), schedule=schedule(1, nowfun=clock))
    assert scheduler.apply_async(entry).get() == 3
    assert scheduler.schedule["add"].total_run_count == 1


def test_settings_that_changed_keep_the_counts(app, clock):
    app.conf.beat_schedule = {"a": every(clock, 10, "a"), "gone": every(clock, 10, "gone")}
    scheduler = Recording(app)
    run(scheduler, clock, 11)
    last_run = scheduler.schedule["a"].last_run_at
    scheduler.merge_inplace({"a": every(clock, 99, "a2"), "new": every(clock, 5, "new")})
    assert set(scheduler.schedule) == {"a", "new"}
    kept = scheduler.schedule["a"]
    assert (kept.task, kept.schedule.seconds, kept.total_run_count, kept.last_run_at) == ("a2", 99, 1, last_run)


def test_expired_results_are_cleaned_where_the_store_does_not(app):
    assert "celery.backend_cleanup" not in Recording(app).schedule
    app.backend.supports_autoexpire = False
    entry = Recording(app).schedule["celery.backend_cleanup"]
    assert entry.schedule == crontab("0", "4", "*")
    assert entry.options == {"expires": 43200}


def test_entries_copy_compare_pickle_and_show(app, clock):
    entry = ScheduleEntry("n", "add", clock(), 3, 30, (1,), {"y": 2}, {"queue": "q"}, app=app)
    copy = pickle.loads(pickle.dumps(entry))
    assert copy == entry
    assert (copy.total_run_count, copy.last_run_at) == (3, clock())
    assert type(copy).__module__ == "celery.beat"
    assert next(entry).total_run_count == 4
    assert repr(entry) == "<ScheduleEntry: n add(1, y=2) <freq: 30.00 seconds>>"
    changed = ScheduleEntry(**{**dict(entry), "args": (5,)})
    assert changed != entry
    entry.update(changed)
    assert entry.args == (5,)
