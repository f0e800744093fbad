"""What the monitor for terminals shows, as text."""

from __future__ import annotations

import time

import pytest

from celery.events.display import Pace, details, lines_of, row, sparkline, task_columns, totals, worker_row
from celery.events.state import State


@pytest.fixture
def state():
    state = State()
    now = time.time()
    common = {"hostname": "w1@here", "pid": 1, "timestamp": now, "local_received": now, "utcoffset": 0}
    state.event({**common, "type": "worker-heartbeat", "clock": 1, "active": 2, "processed": 30, "freq": 2,
                 "loadavg": [1, 0.5, 0.25], "sw_ident": "py-celery", "sw_ver": "5.7.0"})  # fmt: skip
    for number, kind in enumerate(("received", "failed"), 2):
        state.event({**common, "type": f"task-{kind}", "clock": number, "uuid": "id-1", "name": "proj.add",
                     "args": "(1,)", "traceback": "line 1\nline 2" if kind == "failed" else None})  # fmt: skip
    return state


@pytest.mark.parametrize("width", range(1, 200, 7))
def test_a_line_is_never_wider_than_the_screen(width, state):
    columns = task_columns(width)
    line = row(
        columns, "e0833e3c-94ec-46e2-aff1-df29de1cd4db", "a.long.package.name.task", "w1@here", "10:00:00", "X" * 9
    )

    assert width < 8 or len(line) <= width
    assert len(worker_row(state.workers["w1@here"], width, time.time())) <= width


def test_what_matters_most_is_left_on_a_narrow_screen():
    wide, narrow = task_columns(130), task_columns(40)

    assert all(wide)
    assert (narrow.uuid, narrow.worker, narrow.time) == (0, 0, 0)
    assert narrow.task > 20
    assert narrow.state


def test_a_worker_tells_its_load_and_when_it_was_seen(state):
    line = worker_row(state.workers["w1@here"], 130, time.time() + 3)

    assert line.split() == ["w1@here", "ONLINE", "2", "30", "3s", "ago", "1.00", "0.50", "0.25", "py-celery", "5.7.0"]


def test_states_are_counted_in_their_order(state):
    assert list(totals(state.tasks.values())) == [("FAILURE", "1 failed")]


def test_details_begin_with_what_the_task_is_and_end_with_the_traceback(state):
    found = dict(details(state.tasks["id-1"]))

    assert list(found)[:3] == ["name", "uuid", "state"]
    assert list(found)[-1] == "traceback"
    assert found["worker"] == "w1@here"
    assert lines_of([("a", "one\ntwo"), ("b", "x" * 12)], 10) == [
        ("a", "one"),
        ("", "two"),
        ("b", "x" * 10),
        ("", "xx"),
    ]


def test_bars_are_as_high_as_the_numbers():
    assert sparkline([0, 1, 4, 8]) == " ▁▄█"
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "  "


def test_a_pace_counts_by_the_second():
    now = 100.0
    pace = Pace(seconds=5, clock=lambda: now)
    for second, number in ((100.1, 2), (101.0, 1), (103.9, 4)):
        now = second
        pace.count(number)
    now = 104.2

    assert pace.last(4) == [2, 1, 0, 4]
    assert pace.per_second(4) == 7 / 4
    now = 200.0
    assert pace.last(4) == [0, 0, 0, 0]
