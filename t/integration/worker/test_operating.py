"""Limits that operators set and change while a worker runs: how many a second, how many at once, how many in advance."""

from __future__ import annotations

import json
import time

import pytest
from redis import Redis

#: How answers are waited for: until the one worker has sent its own, for as long as it takes.
ONE = {"reply": True, "limit": 1, "timeout": 20}


def control(scene):
    return scene.app.control


def held(scene):
    """How many messages of the scene's queue workers hold."""
    return sum(scene.queue.encode() in record for record in Redis.from_url(scene.broker).hvals("unacked"))


@pytest.mark.redis
def test_a_rate_limit_is_kept_changed_and_lifted_while_tasks_wait(redis_scene, wait_until):
    scene = redis_scene
    scene.start()
    reply = control(scene).rate_limit("stamp", "5/s", **ONE)
    assert [answer["ok"] for node in reply for answer in node.values()] == ["new rate limit set successfully"]
    began = time.monotonic()
    for _ in range(4):
        scene.send("stamp")
    wait_until(lambda: len(scene.noted("at")) == 4)

    # a token each 0.2 s; counted from the beginning, for a note may be late, and the next one in time
    passed = [float(tag) - began for tag in scene.noted("at")]
    assert all(seconds > 0.19 * number for number, seconds in enumerate(sorted(passed)))
    control(scene).rate_limit("stamp", "1/h", **ONE)
    for _ in range(4):
        scene.send("stamp")
    time.sleep(0.5)
    assert len(scene.noted("at")) <= 5
    control(scene).rate_limit("stamp", "0", **ONE)
    wait_until(lambda: len(scene.noted("at")) == 8)


@pytest.mark.redis
def test_without_prefetching_no_more_is_taken_than_can_run(redis_scene, wait_until):
    scene = redis_scene
    scene.conf["worker_disable_prefetch"] = True
    scene.start()
    for number in range(10):
        scene.send("late", number, 15.0)
    scene.wait_for_notes("start", [0, 1])

    assert held(scene) == 2
    assert scene.waiting() == 8


@pytest.mark.redis
def test_the_prefetch_count_follows_the_pool(redis_scene, wait_until):
    scene = redis_scene
    worker = scene.start(concurrency=1)
    for number in range(30):
        scene.send("late", number, 1.0)
    wait_until(lambda: held(scene) == 4, tell=worker.log)
    control(scene).pool_grow(2, **ONE)
    wait_until(lambda: held(scene) == 12, tell=worker.log)
    control(scene).pool_shrink(2, **ONE)
    wait_until(lambda: held(scene) == 4, 30, tell=worker.log)


@pytest.mark.redis
def test_autoscaling_grows_with_the_load_and_shrinks_after_it(redis_scene, wait_until):
    scene = redis_scene
    worker = scene.start(concurrency=None, autoscale=(4, 1))

    def processes():
        stats = control(scene).inspect(timeout=20, limit=1).stats() or {}
        return max((len(node["pool"]["processes"]) for node in stats.values()), default=0)

    assert wait_until(processes, tell=worker.log) == 1
    for number in range(16):
        scene.send("late", number, 0.7)
    wait_until(lambda: processes() == 4, tell=worker.log)
    scene.wait_for_notes("end", range(16), 60)
    assert scene.noted("start") == {str(number): 1 for number in range(16)}


@pytest.mark.redis
def test_a_success_that_is_delivered_again_is_not_run_again(redis_scene):
    scene = redis_scene
    scene.conf["worker_deduplicate_successful_tasks"] = True
    first = scene.send("late", "x")
    client = Redis.from_url(scene.broker)
    message = json.loads(client.lindex(scene.queue, 0))
    message["properties"]["delivery_info"]["redelivered"] = True
    scene.start(concurrency=1)
    first.get(timeout=20)
    client.lpush(scene.queue, json.dumps(message))
    scene.send("late", "last").get(timeout=20)

    assert scene.noted("start") == {"x": 1, "last": 1}


@pytest.mark.rabbitmq
def test_a_worker_learns_at_its_start_what_its_neighbours_have_revoked(rabbitmq_scene, wait_until):
    scene = rabbitmq_scene
    scene.backend = f"file://{scene.directory}"  # which keeps no record of what is revoked
    first = scene.start(without_mingle=False)
    host = f"w0@{scene.queue}"
    control(scene).revoke("gone", destination=[host], reply=True, timeout=5, limit=1)
    late = [scene.start(is_ready=False, without_mingle=silent) for silent in (False, True)]
    wait_until(lambda: all(" ready." in worker.log() for worker in late), tell=late[0].log)

    known = control(scene).inspect(timeout=5, limit=3).revoked()
    assert known == {host: ["gone"], f"w1@{scene.queue}": ["gone"], f"w2@{scene.queue}": []}, first.log()
