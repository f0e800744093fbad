"""A worker's life on Redis and RabbitMQ: work, stop, be killed, be cut off."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

POOLS = ["prefork", "threads", "solo"]


@pytest.mark.parametrize("pool", POOLS)
def test_tasks_run_and_results_are_read(scene, pool):
    results = [scene.send("add", number, number) for number in range(20)]
    worker = scene.start(pool=pool)

    assert [result.get(timeout=20) for result in results] == [2 * number for number in range(20)]
    assert worker.stop() == 0
    scene.wait_for_waiting(0)


@pytest.mark.parametrize("pool", POOLS)
def test_a_warm_stop_ends_what_runs_and_returns_the_rest(scene, pool):
    worker = scene.start(pool=pool, concurrency=1)
    for tag in "abcd":
        scene.send("late", tag, 1.0)
    scene.wait_for_notes("start", ["a"])

    assert worker.stop() == 0
    ended = scene.noted("end")
    assert set(scene.noted("start")) == set(ended)
    scene.wait_for_waiting(4 - len(ended))
    assert set(ended.values()) == {1}


def test_a_cold_stop_returns_late_tasks(scene):
    worker = scene.start(pool="prefork", concurrency=2)
    for tag in "abc":
        scene.send("late", tag, 60)
    scene.wait_for_notes("start", ["a", "b"])
    start = time.monotonic()

    assert worker.stop(signal.SIGQUIT) == 0
    assert time.monotonic() - start < 8
    scene.wait_for_waiting(3)
    assert not scene.noted("end")


def test_a_stop_while_idle_is_quick(scene):
    worker = scene.start()
    time.sleep(0.5)
    start = time.monotonic()

    assert worker.stop() == 0
    assert time.monotonic() - start < 3


def test_an_idle_worker_sleeps(scene):
    """What it costs is for the bench, which compares: processors differ.  How often it wakes does not."""
    worker = scene.start(concurrency=1)
    pid = worker.process.pid
    time.sleep(1)
    wakes, seconds = wakes_of(pid), cpu_seconds(pid)
    time.sleep(4)

    assert wakes_of(pid) - wakes < 40  # 8 to 20 were seen; a look every tenth of a second would add 40
    assert cpu_seconds(pid) - seconds < seconds / 5  # so it is by the processor's own measure: what the start took


def wakes_of(pid):
    """Return how often the threads of a process have been switched to."""
    statuses = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/status")]
    return sum(int(count) for status in statuses for count in re.findall(r"voluntary_ctxt_switches:\s+(\d+)", status))


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_remote_control_reaches_it(scene):
    scene.start(hostname="w9@it")
    control = scene.app.control

    assert control.ping(timeout=5, destination=["w9@it"]) == [{"w9@it": {"ok": "pong"}}]
    assert "add" in control.inspect(["w9@it"], timeout=5).registered()["w9@it"]
    worker = scene.workers[0]
    control.shutdown(destination=["w9@it"])
    assert worker.process.wait(10) == 0


def test_two_workers_of_one_name_both_run(scene):
    first = scene.start(hostname="same@it")
    second = scene.start(hostname="same@it")
    results = [scene.send("add", number, 1) for number in range(20)]

    assert [result.get(timeout=20) for result in results] == [number + 1 for number in range(20)]
    assert (first.stop(), second.stop()) == (0, 0)
