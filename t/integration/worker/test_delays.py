"""Tasks with a time of their own, and tasks that are revoked, in real workers on both brokers."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from redis import Redis

HOUR = 3600


def memory_of(pid):
    """Resident memory in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def scheduled(scene):
    answers = scene.app.control.inspect(timeout=20, limit=1).scheduled() or {}
    return [entry for entries in answers.values() for entry in entries]


def broker_of(scene):
    return Redis.from_url(scene.broker)


def delayed(scene):
    return broker_of(scene).hlen(f"{scene.queue}.delayed")


def test_tasks_run_at_their_time_and_once(scene):
    worker = scene.start()
    began = time.time()
    waits = {"soon": 0.5, "now": -5, "short": 1.5, "long": 2.6, "longer": 3.5}
    results = {tag: scene.send("effect", tag, countdown=wait) for tag, wait in waits.items()}
    for tag, result in results.items():
        result.get(timeout=30)
        assert result.date_done.timestamp() >= began + waits[tag], f"{tag} ran early"

    assert scene.noted("start") == dict.fromkeys(waits, 1)
    assert worker.log().count("received") == len(waits)
    assert worker.stop() == 0
    scene.wait_for_waiting(0)


def test_the_worker_that_parked_may_die(scene, wait_until):
    first = scene.start()
    results = [scene.send("effect", tag, countdown=4.5) for tag in "abc"]
    wait_until(lambda: first.log().count("received") == 3, tell=first.log)
    time.sleep(0.3)
    first.kill()
    scene.start()
    for result in results:
        result.get(timeout=30)

    assert scene.noted("start") == dict.fromkeys("abc", 1)


def test_a_retry_with_a_countdown_waits_too(scene):
    scene.start()
    result = scene.send("again", "tag", 3)
    began = time.time()

    assert result.get(timeout=30) == 1
    assert time.time() - began >= 3


@pytest.mark.redis
def test_what_is_far_away_takes_no_memory_and_no_time_at_the_end(redis_scene, wait_until):
    scene, count = redis_scene, 2000
    worker = scene.start()
    for number in range(300):
        scene.send("effect", number, ignore_result=True)
    scene.wait_for_notes("end", range(300))
    before = memory_of(worker.process.pid)
    with scene.app.pool.acquire(block=True) as connection, scene.app.amqp.Producer(connection) as producer:
        for number in range(count):
            scene.app.send_task("effect", (number,), countdown=HOUR, ignore_result=True, producer=producer)
    wait_until(lambda: delayed(scene) == count, 60, tell=lambda: f"{delayed(scene)} parked")

    assert memory_of(worker.process.pid) - before < 5
    assert len(scheduled(scene)) == 100
    assert worker.stop() == 0
    assert delayed(scene) == count
    assert scene.app.control.purge() == count


@pytest.mark.rabbitmq
def test_what_is_far_away_waits_in_queues_of_the_broker(rabbitmq_scene, wait_until):
    scene = rabbitmq_scene
    worker = scene.start()
    for number in range(50):
        scene.send("effect", number, countdown=HOUR, ignore_result=True)

    def waiting():
        with scene.app.connection_for_read() as connection:
            try:  # 3600 seconds are 2048 first, and then others
                return connection.channel().queue_declare("celeriac_celery_delayed_11", passive=True).message_count
            except connection.channel_errors:
                return 0

    wait_until(lambda: waiting() == 50, 30, tell=worker.log)
    assert worker.stop() == 0
    assert scene.waiting() == 0  # nothing was given back


@pytest.mark.rabbitmq
@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_queue_of_either_kind_gets_it_back(rabbitmq_scene, kind):
    scene = rabbitmq_scene
    scene.conf |= {"task_default_queue_type": kind, "task_default_queue": f"{scene.queue}.{kind}"}
    if kind == "quorum":
        scene.conf["task_default_exchange_type"] = "topic"
    scene.start()
    began = time.time()
    result = scene.send("where", countdown=3)

    assert result.get(timeout=30) == f"{scene.queue}.{kind}"
    assert result.date_done.timestamp() - began >= 3


@pytest.mark.redis
def test_parked_tasks_are_shown_found_and_revoked(redis_scene, wait_until):
    scene = redis_scene
    worker = scene.start()
    result = scene.send("effect", "x", countdown=HOUR, priority=3)
    wait_until(lambda: delayed(scene) == 1, tell=worker.log)
    inspect = scene.app.control.inspect(timeout=20, limit=1)
    ((entry,),) = inspect.scheduled().values()

    assert entry["request"]["id"] == result.id
    assert entry["request"]["args"] == ["x"]
    eta = datetime.fromisoformat(entry["eta"])
    assert abs(eta - datetime.now(timezone.utc) - timedelta(seconds=HOUR)) < timedelta(minutes=1)
    ((stage, request),) = (answer[result.id] for answer in inspect.query_task(result.id).values())
    assert (stage, request["name"]) == ("scheduled", "effect")
    scene.app.control.revoke(result.id)
    wait_until(lambda: result.state == "REVOKED", tell=worker.log)
    wait_until(lambda: "Discarding revoked task" in worker.log(), tell=worker.log)
    assert delayed(scene) == 0


@pytest.mark.redis
def test_what_expires_before_it_is_due_does_not_run(redis_scene, wait_until):
    scene = redis_scene
    worker = scene.start()
    result = scene.send("effect", "x", countdown=3, expires=2.5)
    wait_until(lambda: result.state == "REVOKED", tell=worker.log)

    assert not scene.noted("start")


def test_tasks_that_were_revoked_while_no_worker_ran_do_not_run(scene, wait_until):
    scene.conf["task_acks_late"] = True
    results = {tag: scene.send("effect", tag) for tag in range(40)}
    parked = scene.send("effect", "parked", eta=datetime.now(timezone.utc) + timedelta(seconds=3))
    scene.app.control.revoke([results[tag].id for tag in range(0, 40, 2)] + [parked.id])
    stamped = scene.send("effect", "stamped", headers={"stamped_headers": ["team"], "stamps": {"team": "red"}})
    scene.app.control.revoke_by_stamped_headers({"team": "red"})
    for _ in range(2):
        worker = scene.start()
        wait_until(lambda: scene.waiting() == 0, tell=worker.log)
        assert worker.stop() == 0
    scene.send("effect", "last")
    scene.start()
    scene.wait_for_notes("end", [*range(1, 40, 2), "last"])
    revoked = [results[tag] for tag in range(0, 40, 2)] + [parked, stamped]
    wait_until(lambda: all(result.state == "REVOKED" for result in revoked), tell=scene.workers[-1].log)

    assert not set(scene.noted("start")) & {*map(str, range(0, 40, 2)), "parked", "stamped"}
