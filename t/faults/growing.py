"""F39: children that come and go, by autoscaling and by recycling, take no task with them."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from actors import QUICK_START, wait_for_progress
from messages import task_message
from redis_scenarios import lease
from scenario import Stage, scenario
from servers import wait_until


@scenario("F39", unprotected="unprotect.redispatch=off", tasks=2_000, short=0.1)
def children_come_and_go(stage: Stage) -> dict[str, Any]:
    """``--autoscale 4,1`` with one task a child, in bursts: nothing lost, nothing twice; then with kills, as explained."""
    redis = stage.redis()
    trap = stage.directory / "sprung"
    trap.touch()
    failpoints = f"child.before_start=kill,once={trap}"
    env = stage.env(redis.url, redis.url, failpoints, **lease(), worker_prefetch_multiplier=4)
    env["AUTOSCALE_KEEPALIVE"] = "1"
    options = (*QUICK_START, "--autoscale", "4,1", "--max-tasks-per-child", "1")
    worker = stage.worker(env, *options, "-c", "1")
    sizes: set[int] = set()
    bursts = 4
    sent: list[str] = []
    for number in range(bursts):
        has_kills = number >= bursts // 2
        burst = [task_message("faultapp.effect", [0.01]) for _ in range(max(stage.count // bursts, 10))]
        if has_kills:  # the first of these tasks is in a child's hand, not begun, when the child dies
            stage.oracle.note_fault("kill child before a start")
            trap.unlink()
        redis.client.lpush("celery", *(payload for _, payload in burst))
        sent += [task_id for task_id, _ in burst]
        with open(stage.directory / "sent", "a") as file:
            file.writelines(f"{task_id}\n" for task_id, _ in burst)
        if has_kills:
            wait_until(trap.exists, 10, "a child to die before a start")
            stage.oracle.note_struck()
        wait_for_progress(stage.directory / "effects", 10)
        if has_kills:
            for _ in range(stage.times(10, 3)):
                kill_a_child(stage, worker)
        deadline = time.monotonic() + (4 if stage.unprotected else 40 + 60 * stage.scale)
        while not stage.oracle.done() >= set(sent) and time.monotonic() < deadline:
            sizes.add(len(worker.children()))
            time.sleep(0.05)
        if number == bursts // 2 - 1:
            figures = stage.oracle.numbers()
            assert figures["extra"] == 0, f"{figures['extra']} ran twice without a fault; {stage.where('extra')}"
    figures = stage.check(sent=len(sent), unexplained=0)
    assert max(sizes) > 1, f"it never grew: {sizes}"
    wait_until(lambda: len(worker.children()) <= 2, 30, "the pool to shrink")
    stage.check_is_quiet(redis, worker)
    assert "WorkerLostError" not in before_kills(stage, worker.text()), f"a finished task was called lost; {worker.log}"
    return {**figures, "sizes": sorted(sizes)}


def kill_a_child(stage: Stage, worker: Any) -> None:
    time.sleep(stage.dice.uniform(0.05, 0.3))
    children = worker.children()
    if children:
        stage.oracle.note_fault("kill child")
        try:
            os.kill(stage.dice.choice(children), signal.SIGKILL)
        except ProcessLookupError:  # it had run its one task
            pass
        stage.oracle.note_struck()


def before_kills(stage: Stage, log: str) -> str:
    """Return the log up to the first task of the second half."""
    ids = stage.oracle.ids("sent")
    return log.partition(ids[len(ids) // 2])[0]
