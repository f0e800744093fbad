"""What `State` makes of events, in whatever order they come."""

from __future__ import annotations

import json
import pickle
import time
from decimal import Decimal
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery import states
from celery.events.nodes import _warn_drift
from celery.events.state import HEARTBEAT_DRIFT_MAX, State, Task, Worker, heartbeat_expires

NOW = 1_900_000_000.0

LIFE = {
    "sent": {"name": "add", "args": "(1,)", "kwargs": "{}", "queue": "celery"},
    "received": {"name": "add", "args": "(1,)", "kwargs": "{}", "eta": None, "retries": 0, "root_id": "t1"},
    "started": {},
    "succeeded": {"result": "3", "runtime": 0.5},
}


def event(kind, clock, uuid="t1", hostname="w1@here", **fields):
    return {
        "type": kind,
        "uuid": uuid,
        "hostname": hostname,
        "pid": 7,
        "clock": clock,
        "timestamp": NOW + clock,
        "local_received": NOW + clock,
        "utcoffset": 0,
        **fields,
    }


def life():
    return [event(f"task-{kind}", clock, **fields) for clock, (kind, fields) in enumerate(LIFE.items(), 1)]


def worker_event(kind, clock, hostname="w1@here", **fields):
    told = event(f"worker-{kind}", clock, hostname=hostname, freq=2, active=1, processed=3, **fields)
    del told["uuid"]
    return told


@pytest.fixture
def state():
    return State()


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=str)
def test_any_order_of_a_life_ends_in_the_same_state(state, order):
    events = life()
    for index in order:
        state.event(dict(events[index]))

    task = state.tasks["t1"]
    assert (task.state, task.ready, task.name, task.result) == (states.SUCCESS, True, "add", "3")
    assert (task.sent, task.received, task.started, task.succeeded) == (NOW + 1, NOW + 2, NOW + 3, NOW + 4)
    assert task.args == "(1,)"


RECORDED = json.loads((Path(__file__).parents[2] / "facts" / "events_state.json").read_text())
TIMES = ("sent", "received", "started", "retried", "failed", "succeeded", "revoked", "rejected")


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: "-".join(recorded[0]))
def test_orders_of_events_end_as_recorded_from_celery(state, recorded):
    kinds, *expected = recorded
    for place, kind in enumerate(kinds):
        fields = {"name": "add", "args": f"a{place}"} if kind in TIMES[:3] else {"result": str(place)}
        state.event(event(f"task-{kind}", place + 1, **fields))

    task = state.tasks["t1"]
    assert [
        task.state,
        task.timestamp - NOW,
        task.name,
        task.args,
        task.result,
        task.clock,
        state.task_count,
        state.event_count,
        [getattr(task, kind) and getattr(task, kind) - NOW for kind in TIMES],
        task.worker and task.worker.hostname,
        task.client,
    ] == expected


@given(st.lists(st.tuples(st.sampled_from(sorted(LIFE)), st.integers(0, 3), st.integers(1, 50)), max_size=30))
@settings(max_examples=100)
def test_no_sequence_of_events_breaks_the_books(sequence):
    state = State(max_tasks_in_memory=3)
    for kind, number, clock in sequence:
        state.event(event(f"task-{kind}", clock, uuid=f"t{number}", **LIFE[kind]))

    assert state.event_count == len(sequence)
    assert state.task_count == sum(kind == "received" for kind, *_ in sequence)
    assert len(state.tasks) <= 3
    heap = list(state._taskheap)
    assert heap == sorted(heap)
    assert len(heap) <= state.heap_multiplier * 3
    told = [uuid for uuid, _ in state.tasks_by_time()]
    assert len(told) == len(set(told))
    assert [uuid for uuid, _ in state.tasks_by_time(reverse=False)][:1] != [] or not told
    assert all(task.state in states.ALL_STATES | {"RECEIVED"} for task in state.tasks.values())


def test_a_retry_comes_after_a_failure_and_before_anything_else(state):
    for clock, kind in enumerate(("received", "started", "retried", "received", "started"), 1):
        state.event(event(f"task-{kind}", clock, name="add"))

    assert state.tasks["t1"].state == states.STARTED
    state.event(event("task-failed", 9, exception="KeyError()", traceback="..."))
    assert state.tasks["t1"].state == states.FAILURE


def test_an_event_of_the_users_own_is_a_state_of_its_own(state):
    state.event(event("task-received", 1, name="add"))
    state.event(event("task-halfway", 2, percent=50))

    assert (state.tasks["t1"].state, state.tasks["t1"].percent) == ("HALFWAY", 50)


def test_what_a_late_event_lacks_takes_nothing_back(state):
    state.event(event("task-succeeded", 3, result="3"))
    state.event(event("task-received", 1, name="add", args="(1,)", retries=0))

    task = state.tasks["t1"]
    assert (task.state, task.result, task.name, task.args) == (states.SUCCESS, "3", "add", "(1,)")


def test_a_worker_is_alive_as_long_as_its_heartbeat_says(state):
    now = time.time()
    (worker, is_new), subject = state.event(
        {**worker_event("online", 1), "timestamp": now, "local_received": now, "freq": 10}
    )
    assert (subject, is_new, worker.alive, worker.status_string) == ("online", True, True, "ONLINE")
    assert list(state.alive_workers()) == [worker]
    assert worker.heartbeat_expires == now + 20

    (gone, is_new), _ = state.event(worker_event("offline", 2))
    assert (gone, is_new, gone.alive) == (worker, False, False)
    assert not state.workers


def test_heartbeats_are_few_and_in_order():
    worker = Worker("w1@here")
    for second in (5, 3, 9, 1, 7):
        worker.event("heartbeat", NOW + second, NOW + second, {"freq": 2})

    assert worker.heartbeats == [NOW + 3, NOW + 5, NOW + 7, NOW + 9]
    assert heartbeat_expires(Decimal("10"), Decimal("2"), Decimal("200")) == 14


def test_a_clock_that_differs_is_told_of_once(caplog):
    _warn_drift.clear()
    worker = Worker("late@here")
    for _ in range(3):
        worker.event("heartbeat", NOW - HEARTBEAT_DRIFT_MAX - 1, NOW, {})

    assert [record.getMessage()[:36] for record in caplog.records] == ["Substantial drift from late@here may"]


def test_nodes_that_come_and_go_are_announced():
    joined, left, seen = [], [], []
    state = State(
        callback=lambda state, event: seen.append(event["type"]), on_node_join=joined.append, on_node_leave=left.append
    )
    for kind in ("online", "heartbeat", "heartbeat", "offline"):
        state.event(worker_event(kind, 1))

    assert [worker.hostname for worker in joined] == ["w1@here"]
    assert [worker.hostname for worker in left] == ["w1@here"]
    assert seen == ["worker-online", "worker-heartbeat", "worker-heartbeat", "worker-offline"]


def test_children_find_their_parents_in_either_order(state):
    state.event(event("task-received", 1, uuid="child", name="b", parent_id="root", root_id="root"))
    state.event(event("task-received", 2, uuid="root", name="a", root_id="root"))
    state.event(event("task-received", 3, uuid="other", name="c", parent_id="root", root_id="root"))

    root = state.tasks["root"]
    assert {child.id for child in root.children} == {"child", "other"}
    assert state.tasks["child"].parent is root
    assert state.tasks["other"].root is root
    assert root.as_dict()["children"]
    assert root.as_dict()["parent"] is None


def test_tasks_are_found_by_name_and_worker(state):
    for number in range(4):
        host = f"w{number % 2}@here"
        state.event(event("task-received", number + 1, uuid=f"t{number}", hostname=host, name=f"n{number // 2}"))

    assert [uuid for uuid, _ in state.tasks_by_type("n0")] == ["t1", "t0"]
    assert [uuid for uuid, _ in state.tasks_by_worker("w1@here", reverse=False)] == ["t1", "t3"]
    assert {task.id for task in state.tasks_by_type["n1"]} == {"t2", "t3"}
    assert [uuid for uuid, _ in state.tasks_by_time(limit=2)] == ["t3", "t2"]
    assert state.task_types() == ["n0", "n1"]
    assert len(list(state.itertasks(limit=3))) == 3


def test_the_oldest_are_forgotten_beyond_the_limits():
    state = State(max_workers_in_memory=2, max_tasks_in_memory=2)
    for number in range(5):
        state.event(worker_event("heartbeat", number, hostname=f"w{number}@here"))
        state.event(event("task-received", number, uuid=f"t{number}", hostname="w4@here", name="add"))

    assert list(state.tasks) == ["t3", "t4"]
    assert len(state.workers) == 2


def test_custom_groups_have_handlers(state):
    state.handlers["tide"] = lambda subject, event: (subject, event["height"])

    assert state.event({"type": "tide-high", "height": 3, "timestamp": NOW}) == (("high", 3), "high")
    assert state.event({"type": "wind-low", "timestamp": NOW}) is None


@pytest.mark.parametrize("missing", ["uuid", "hostname", "timestamp", "clock"])
def test_an_event_without_its_fields_is_passed_over(state, missing):
    told = event("task-received", 1, name="add")
    del told[missing]

    assert state.event(told) == (None, "received")
    assert not state.tasks


def test_a_state_can_be_pickled(state):
    for told in life():
        state.event(told)
    state.event(worker_event("online", 5))
    state.event(event("task-received", 6, uuid="t2", name="mul", parent_id="t1", root_id="t1"))
    copy = pickle.loads(pickle.dumps(state))

    assert [uuid for uuid, _ in copy.tasks_by_time()] == [uuid for uuid, _ in state.tasks_by_time()]
    assert copy.tasks["t1"].as_dict().items() >= {"state": "SUCCESS", "result": "3"}.items()
    assert copy.workers["w1@here"] == state.workers["w1@here"]
    assert [task.id for task in copy.tasks_by_type["add"]] == ["t1"]
    copy.event(event("task-succeeded", 9, uuid="t2", result="x"))
    assert copy.tasks["t2"].state == states.SUCCESS


def test_clearing_keeps_what_goes_on(state):
    for told in life():
        state.event(told)
    state.event(event("task-started", 9, uuid="t2"))
    state.clear(ready=True)
    assert (list(state.tasks), len(state.workers), state.event_count) == (["t2"], 0, 0)
    assert [uuid for uuid, _ in state.tasks_by_time()] == ["t2"]

    state.clear(ready=False)
    assert not state.tasks
    assert not list(state.tasks_by_time())


def test_a_frozen_state_takes_no_events_and_may_be_cleared_after(state):
    for told in life():
        state.event(told)

    def look():
        assert state._mutex.locked()
        return len(state.tasks)

    assert state.freeze_while(look, clear_after=True) == 1
    assert not state.tasks


def test_what_is_known_of_a_task_is_shown_in_short():
    task = Task("t1", name="add", args="(1,)", result="3", runtime=0.5, worker=Worker("w1@here", pid=7))

    assert task.info() == {"args": "(1,)", "result": "3", "runtime": 0.5}
    assert task.info(fields=["name"], extra=["uuid", "eta"]) == {"name": "add", "uuid": "t1"}
    assert (task.origin, repr(task)) == ("w1@here.7", "<Task: add(t1) PENDING clock:0>")


@pytest.mark.parametrize(
    "fields", [{"freq": {}}, {"freq": None}, {"clock": "x"}, {"event": 1}, {"alive": False}, {"heartbeat_max": "x"}]
)
def test_an_event_cannot_spoil_what_is_known_of_its_node(fields):
    worker = Worker("a@b")
    worker.event("heartbeat", time.time(), time.time(), {"hostname": "a@b", "own": 1, **fields})
    worker.event("heartbeat", time.time(), time.time(), {"active": 3})

    assert worker.alive
    assert (worker.own, worker.active, worker.freq, worker.clock) == (1, 3, 60, 0)
