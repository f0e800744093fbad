"""Remote control and events: each side's client sees, asks and steers the other side's worker."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from interop_kit import HERE, PAIRS, PYTHONS, wait_until

pytestmark = [pytest.mark.redis, pytest.mark.rabbitmq]
each_pair = pytest.mark.parametrize("pair", PAIRS, indirect=True, ids="-to-".join)
each_broker = pytest.mark.parametrize("scene", ["redis", "rabbitmq"], indirect=True)

#: What every worker says of one of its requests.
REQUEST_FIELDS = {
    "id",
    "name",
    "args",
    "kwargs",
    "type",
    "hostname",
    "time_start",
    "acknowledged",
    "delivery_info",
    "worker_pid",
}
#: What an event tells of a task message.
RECEIVED = ["args", "eta", "expires", "kwargs", "name", "parent_id", "retries", "root_id", "uuid"]


@each_pair
@each_broker
def test_a_worker_tells_the_other_client_what_it_does(pair):
    found = pair.do("control", pair.worker, pair.scene.queue(pair.worker_side))
    first, second, later = found["ids"]

    assert found["ping"] == {"ok": "pong"}
    assert {request["id"] for request in found["active"]} == {first, second}
    assert all(set(request) >= REQUEST_FIELDS for request in found["active"])
    assert all(request["hostname"] == pair.worker for request in found["active"])
    (scheduled,) = (entry for entry in found["scheduled"] if entry["request"]["id"] == later)
    assert set(scheduled) == {"eta", "priority", "request"}
    assert {"interopapp.add", "interopapp.noting"} <= {name.split(" ")[0] for name in found["registered"]}
    assert pair.scene.queue(pair.worker_side) in [queue["name"] for queue in found["active_queues"]]
    assert {"broker", "clock", "pid", "pool", "prefetch_count", "rusage", "total", "uptime"} <= set(found["stats"])
    assert found["stats"]["pool"]["max-concurrency"] == 2
    assert len(found["stats"]["pool"]["processes"]) == 2
    assert found["query_task"][first][0] == "active"
    assert found["clock"]["clock"] > 0
    assert found["conf"]["task_send_sent_event"] is True
    assert found["report"]["ok"]
    assert {first, second, later} <= set(found["revoked"])
    assert "interop" not in json.dumps(found["reserved"])


@each_pair
@each_broker
def test_a_worker_does_what_the_other_client_says(pair):
    found = pair.do("commands", pair.worker)

    assert "ok" in found["add_consumer"]
    assert found["on_the_new_queue"] == 9
    assert (found["queues"], found["is_gone"]) == (True, True)
    for name in ("cancel_consumer", "rate_limit", "rate_limit_off", "time_limit", "pool_grow", "pool_shrink"):
        assert list(found[name]) == ["ok"], name
    assert "error" in found["rate_limit_unknown"]
    assert found["heartbeat"] is None
    assert "error" in found["unknown"]
    assert found["ping_pattern"] == [{pair.worker: {"ok": "pong"}}]
    assert found["still_works"] == 2


@each_pair
@each_broker
def test_celery_inspect_on_the_command_line_reaches_it(pair):
    options = ["--json", "--timeout", "5", "--destination", pair.worker]
    running = {
        command: subprocess.Popen(
            [PYTHONS[pair.client_side], "-m", "celery", "-A", "interopapp", "inspect", *options, command],
            cwd=HERE,
            env=pair.scene.environment(pair.client_side, "celery"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in ("ping", "registered", "stats", "active")
    }
    answers = {}
    for command, process in running.items():
        output, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
        answers[command] = json.loads(output)[pair.worker]

    assert answers["ping"] == {"ok": "pong"}
    assert "interopapp.add" in answers["registered"]
    assert answers["stats"]["pool"]["max-concurrency"] == 2
    assert answers["active"] == []


@each_pair
@each_broker
def test_events_tell_the_other_client_of_every_task(pair):
    found = pair.do("events", pair.worker)
    good, bad, again, over = found["kinds"]

    assert good == ["task-received", "task-sent", "task-started", "task-succeeded"]
    assert bad == ["task-failed", "task-received", "task-sent", "task-started"]
    assert [kind for kind in again if kind in ("task-retried", "task-succeeded")] == ["task-retried", "task-succeeded"]
    assert again.count("task-sent") == 2
    assert over == ["task-revoked", "task-sent"]
    assert found["state"] == ["SUCCESS", "interopapp.add", "(2, 3)", "5", pair.worker]
    assert found["alive"] is True
    assert found["error"] == ["Trouble('seen', 42)", True]
    name, version, system = found["system"]
    assert (name, version.partition("+")[0], system) == ("py-celery", "5.7.0", os.uname().sysname)
    common = {"clock", "hostname", "local_received", "pid", "timestamp", "type", "utcoffset"}
    own = {kind: set(fields) - common for kind, fields in found["fields"].items()}
    assert {kind: sorted(fields) for kind, fields in own.items()} == {
        "task-sent": sorted([*RECEIVED, "exchange", "queue", "routing_key"]),
        "task-received": RECEIVED,
        "task-started": ["uuid"],
        "task-succeeded": ["result", "runtime", "uuid"],
        "task-failed": ["exception", "traceback", "uuid"],
        "worker-heartbeat": ["active", "freq", "loadavg", "processed", "sw_ident", "sw_sys", "sw_ver"],
    }


@each_pair
@each_broker
def test_a_worker_is_heard_from_its_start_to_its_end(pair, new_worker):
    name = f"{pair.scene.name}-short-{pair.worker_side}@interop"
    pair.client.start("listen_for", name)
    signal = pair.scene.directory / f"notes.listening-for-{name}"
    wait_until(signal.exists)
    worker = new_worker(pair.worker_side, name, f"{pair.scene.name}-short")
    worker.wait_until_ready()

    assert worker.stop() == 0
    first, last, kinds = pair.client.answer()
    assert (first, last) == ("worker-online", "worker-offline")
    assert set(kinds) <= {"worker-online", "worker-heartbeat", "worker-offline"}


@each_broker
def test_workers_of_both_kinds_meet_at_their_start(scene, new_worker):
    for worker in scene.workers.values():
        worker.wait_until_ready()
    late = [new_worker(side, f"{scene.name}-late-{side}@interop", f"{scene.name}-late") for side in scene.workers]
    for worker in late:
        worker.wait_until_ready()
        wait_until(lambda log=worker.log: "mingle: sync complete" in log(), 5, tell=worker.log)
        for older in scene.workers.values():
            wait_until(lambda log=older.log, name=worker.name: f"sync with {name}" in log(), 5, tell=older.log)
