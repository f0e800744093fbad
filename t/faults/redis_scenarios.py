"""Faults with Redis as the broker."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from actors import wait_for_progress
from scenario import Stage, scenario

#: Short, so that a dead worker's messages come back while the test waits.
LEASE_SECONDS = 3


def lease() -> dict[str, Any]:
    return {"broker_transport_options": {"lease_ttl": LEASE_SECONDS}}


@scenario("F01", unprotected="unprotect.lease=off")
def sigkill_of_the_process_group(stage: Stage) -> dict[str, Any]:
    """The worker and its children are killed again and again, at any moment."""
    redis = stage.redis()
    env = stage.env(redis.url, **lease())
    publisher = stage.publish(env, "effect", stage.count)
    worker = stage.worker(env)
    kills = max(4, int(32 * stage.scale))
    for _ in range(kills):
        wait_for_progress(stage.directory / "effects", 10)
        time.sleep(stage.dice.uniform(0.35, 1.05))
        stage.oracle.note_fault("kill group")
        worker.restart()
    publisher.wait(120)
    stage.wait_done(60 + 120 * stage.scale, settle=LEASE_SECONDS + 1)
    figures = stage.check(unexplained=0)
    assert max(stage.oracle.extras_by_fault().values(), default=0) <= 2, "more extras than slots"
    return figures


@scenario("F02", unprotected="unprotect.redispatch=off")
def sigkill_of_a_child(stage: Stage) -> dict[str, Any]:
    """A random child is killed; its parent goes on, and replaces it within a second."""
    redis = stage.redis()
    env = stage.env(redis.url, **lease())
    worker = stage.worker(env)
    parent = worker.pid
    publisher = stage.publish(env, "effect", stage.count)
    slowest = 0.0
    for _ in range(max(5, int(80 * stage.scale))):
        time.sleep(stage.dice.uniform(0.2, 0.5))
        children = worker.children()
        if not children:
            continue
        stage.oracle.note_fault("kill child")
        victim = stage.dice.choice(children)
        os.kill(victim, signal.SIGKILL)
        began = time.monotonic()
        while len(set(worker.children()) - {victim}) < 2 and time.monotonic() - began < 5:
            time.sleep(0.01)
        slowest = max(slowest, time.monotonic() - began)
    publisher.wait(120)
    stage.wait_done(60 + 60 * stage.scale)
    assert worker.is_running(), "the parent ended"
    assert worker.pid == parent
    assert slowest <= 1.0, f"a replacement took {slowest:.1f} s"
    return {**stage.check(unexplained=0), "slowest replacement s": round(slowest, 2)}
