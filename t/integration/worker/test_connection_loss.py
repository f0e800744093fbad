"""The broker goes, or cuts the worker off: nothing is lost, nothing runs twice, nobody lends a hand."""

from __future__ import annotations

import time

import pytest
import redis


@pytest.mark.rabbitmq
@pytest.mark.parametrize("task", ["late", "effect"])
def test_rabbitmq_closing_every_connection_runs_nothing_twice(rabbitmq_scene, ctl, task):
    scene = rabbitmq_scene
    scene.start(concurrency=2)
    tags = [f"t{number}" for number in range(30)]
    for tag in tags:
        scene.send(task, tag, 0.3)
    for _ in range(4):
        time.sleep(1.0)
        ctl("close_all_connections", "-p", scene.vhost, "test")
    scene.wait_for_notes("end", tags, 60)

    assert scene.noted("end") == dict.fromkeys(tags, 1)
    assert scene.workers[0].stop() == 0
    scene.wait_for_waiting(0)


@pytest.mark.redis
@pytest.mark.parametrize("task", ["late", "effect"])
def test_redis_killing_its_clients_runs_nothing_twice(redis_scene, task):
    scene = redis_scene
    server = redis.Redis.from_url(scene.broker)
    scene.start(concurrency=2)
    tags = [f"t{number}" for number in range(30)]
    for tag in tags:
        scene.send(task, tag, 0.3)
    for _ in range(4):
        time.sleep(1.0)
        for client in server.client_list(_type="normal") + server.client_list(_type="pubsub"):
            if client["db"] == "13" and client["id"] != str(server.client_id()):
                server.client_kill_filter(_id=client["id"])
    scene.wait_for_notes("end", tags, 60)

    assert scene.noted("end") == dict.fromkeys(tags, 1)
    assert scene.workers[0].stop() == 0
    scene.wait_for_waiting(0)


@pytest.mark.rabbitmq
def test_a_stop_while_the_broker_is_away_does_not_hang(rabbitmq_scene, ctl):
    scene = rabbitmq_scene
    worker = scene.start(concurrency=1)
    scene.send("late", "a", 1.0)
    scene.wait_for_notes("start", ["a"])
    ctl("close_all_connections", "-p", scene.vhost, "test")

    assert worker.stop(seconds=10) == 0
    assert scene.noted("end") == {"a": 1}
