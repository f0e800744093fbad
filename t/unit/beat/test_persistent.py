"""What beat knows after a restart."""

from __future__ import annotations

import dbm.dumb
import os
import pickle
import shelve
import sqlite3
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from celery.beat import ScheduleEntry, shelf
from celery.schedules import crontab


def run(scheduler, clock, seconds):
    """Let beat run for a while: it sleeps as long as it says."""
    end = clock.time + timedelta(seconds=seconds)
    while True:
        wait = max(scheduler.tick(), 0)
        if clock.time + timedelta(seconds=wait) > end:
            clock.time = end
            return
        clock.time += timedelta(seconds=wait or 0.001)


def kill(scheduler):
    """End a scheduler without a word to its file."""
    os.close(scheduler._file._fd)
    scheduler._file._fd = scheduler._file = None


def test_what_was_sent_is_known_after_a_kill(app, clock, every, kept):
    app.conf.beat_schedule = {"a": every(10), "never": every(3600)}
    first = kept()
    run(first, clock, 35)
    kill(first)

    clock.turn(seconds=1)
    second = kept()
    entry = second.schedule["a"]
    assert (entry.total_run_count, entry.last_run_at) == (3, datetime(2026, 11, 20, 10, 30, 30, tzinfo=timezone.utc))
    run(second, clock, 3)
    assert second.sent == []
    run(second, clock, 1.1)
    assert second.sent == ["a"]


def test_of_the_runs_that_were_missed_one_is_made_up_for(app, clock, every, kept, caplog):
    app.conf.beat_schedule = {"a": every(10), "c": {"task": "c", "schedule": crontab(nowfun=clock, app=app)}}
    kill(kept())
    clock.turn(minutes=30, seconds=5)
    second = kept()
    run(second, clock, 1)
    assert sorted(second.sent) == ["a", "c"]
    run(second, clock, 4.1)
    assert second.sent[2:] == ["a"]  # in step with the times before
    told = [record.getMessage() for record in caplog.records if "Missed" in record.getMessage()]
    assert told == ["beat: Missed 179 run(s) of 'a'; the one that is sent now stands for them."]


def test_an_entry_that_never_ran_does_not_start_anew_with_each_restart(app, clock, every, kept):
    app.conf.beat_schedule = {"weekly": every(7 * 86400)}
    for _ in range(3):
        kill(kept())
        clock.turn(days=2)
    last = kept()
    run(last, clock, 86400 + 1)
    assert last.sent == ["a"]


def test_settings_decide_what_is_sent(app, clock, every, kept):
    app.conf.beat_schedule = {"a": every(10), "gone": every(10)}
    kept().close()
    app.conf.beat_schedule = {"a": every(20, "renamed"), "new": every(30)}
    scheduler = kept()
    assert set(scheduler.schedule) == {"a", "new"}
    assert scheduler.schedule["a"].task == "renamed"
    scheduler.close()
    assert set(kept()._file.runs) == {"a", "new"}


def test_a_schedule_that_changes_while_beat_runs_is_followed(app, clock, every, kept):
    app.conf.beat_schedule = {"a": every(10)}
    scheduler = kept()
    run(scheduler, clock, 5)
    app.conf.beat_schedule["b"] = every(2, "b")
    scheduler.standby()
    run(scheduler, clock, 5.1)
    assert scheduler.sent == ["b", "b", "a"]


def test_a_second_beat_stands_by_until_the_first_ends(app, clock, every, kept, caplog):
    app.conf.beat_schedule = {"a": every(10)}
    first, second = kept(), kept()
    assert first.standby() is None
    assert second.standby() > 0
    assert "Another beat is using the schedule file" in caplog.text
    run(first, clock, 10)
    kill(first)
    second._next_look = 0
    assert second.standby() is None
    run(second, clock, 1)
    assert second.sent == []
    assert second.schedule["a"].total_run_count == 1


def test_a_damaged_file_is_told_and_replaced(app, clock, every, kept, tmp_path, caplog):
    app.conf.beat_schedule = {"a": every(10)}
    first = kept()
    run(first, clock, 10)
    first.close()
    os.truncate(tmp_path / "schedule", 540)
    second = kept()
    assert "is damaged" in caplog.text
    assert (tmp_path / "schedule.damaged").exists()
    run(second, clock, 1)
    assert second.sent == []


def test_a_file_that_cannot_be_written_is_told_once_and_stops_nothing(app, clock, every, kept, monkeypatch, caplog):
    app.conf.beat_schedule = {"a": every(10)}
    scheduler = kept()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("celery.beat.store.os.pwrite", full)
    monkeypatch.setattr("celery.beat.store._write_all", full)
    run(scheduler, clock, 35)
    assert scheduler.sent == ["a"] * 3
    assert caplog.text.count("No space left on device") == 1
    monkeypatch.undo()
    scheduler.close()  # there is room again
    assert kept().schedule["a"].total_run_count == 3


def test_the_store_is_as_subclasses_know_it(app, clock, every, kept):
    app.conf.beat_schedule = {"a": every(10)}
    scheduler = kept()
    assert set(scheduler._store) == {"entries", "__version__", "tz", "utc_enabled"}
    assert scheduler._store["entries"] is scheduler.schedule
    scheduler.schedule = {"b": ScheduleEntry("b", "b", clock(), schedule=5, app=app)}
    assert list(scheduler.schedule) == ["b"]
    scheduler._store.sync()
    assert list(scheduler._file.runs) == ["b"]
    assert scheduler.info == f"    . db -> {scheduler.schedule_filename}"


def test_a_clock_that_was_in_the_future_silences_nothing(app, clock, every, kept):
    app.conf.beat_schedule = {"a": every(10), "c": {"task": "c", "schedule": crontab("0", "10", nowfun=clock, app=app)}}
    clock.turn(days=365)
    kill(kept())
    clock.turn(days=-365)
    scheduler = kept()
    assert [entry.last_run_at for entry in scheduler.schedule.values()] == [clock()] * 2


# -- what Celery has left


def celery_entries(moment):
    return {
        "a": ScheduleEntry("a", "a", moment, 7, 10),
        "naive": ScheduleEntry("naive", "a", moment.replace(tzinfo=None), 3, crontab("0", "4")),
    }


MOMENTS = [
    datetime(2026, 11, 20, 10, 29, 57, 5, tzinfo=timezone.utc),
    datetime(2026, 11, 20, 11, 29, 57, 5, tzinfo=ZoneInfo("Europe/Berlin")),
]


@pytest.mark.parametrize("protocol", [2, 3, 5])
@pytest.mark.parametrize("moment", MOMENTS, ids=["utc", "berlin"])
def test_a_shelf_of_celery_is_taken_over(app, clock, every, kept, tmp_path, moment, protocol):
    with shelve.Shelf(dbm.dumb.open(str(tmp_path / "schedule"), "c"), protocol=protocol) as old:
        old["entries"] = celery_entries(moment)
    app.conf.beat_schedule = {"a": every(10), "naive": every(10), "new": every(10)}
    scheduler = kept()
    assert scheduler.schedule["a"].total_run_count == 7
    assert scheduler.schedule["a"].last_run_at == moment
    assert scheduler.schedule["naive"].total_run_count == 3
    assert scheduler.schedule["new"].total_run_count == 0
    assert {file.name for file in tmp_path.iterdir()} >= {"schedule", "schedule.celery.dat", "schedule.celery.dir"}


def test_the_shelf_of_newer_pythons_is_an_sqlite_file(app, clock, every, kept, tmp_path):
    with sqlite3.connect(tmp_path / "schedule") as database:
        database.execute("CREATE TABLE Dict (key BLOB UNIQUE NOT NULL, value BLOB NOT NULL)")
        database.execute("INSERT INTO Dict VALUES (?, ?)", (b"entries", pickle.dumps(celery_entries(MOMENTS[0]))))
    database.close()
    app.conf.beat_schedule = {"a": every(10)}
    assert kept().schedule["a"].total_run_count == 7
    assert (tmp_path / "schedule.celery").exists()


def test_a_shelf_calls_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    with shelve.Shelf(dbm.dumb.open(str(tmp_path / "schedule"), "c")) as old:
        old["entries"] = {"a": ScheduleEntry("a", "a", MOMENTS[0], 1, 10, args=(Evil(),)), "evil": Evil()}
    assert shelf.last_runs(str(tmp_path / "schedule")) == {"a": (MOMENTS[0], 1)}
    assert not (tmp_path / "pwned").exists()


def test_a_shelf_that_cannot_be_read_is_told(app, clock, every, kept, tmp_path, caplog):
    with dbm.dumb.open(str(tmp_path / "schedule"), "c") as old:
        old[b"entries"] = b"\x80\x05garbage"
    app.conf.beat_schedule = {"a": every(10)}
    assert kept().schedule["a"].total_run_count == 0
    assert "cannot be read" in caplog.text
