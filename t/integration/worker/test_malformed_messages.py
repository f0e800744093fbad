"""What lies in a broker's queue and is no task message: the worker goes on, and it is kept with the reason."""

from __future__ import annotations

import json

import pytest
import redis

GOOD = {"lang": "py", "task": "add", "id": "id-1", "retries": 0, "argsrepr": "()", "kwargsrepr": "{}"}
BODY = '[[1, 2], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'

#: (body, headers, content type, content encoding)
MESSAGES = [
    ('{"hello": 1}', {}, "application/json", "utf-8"),
    ("", {}, None, None),
    ("garbage", {}, "text/plain", "utf-8"),
    (BODY, {"task": "add"}, "application/json", "utf-8"),
    (BODY, {**GOOD, "id": 5}, "application/json", "utf-8"),
    (BODY, {**GOOD, "task": "nobody.knows"}, "application/json", "utf-8"),
    (BODY, {**GOOD, "eta": "tomorrow"}, "application/json", "utf-8"),
    (BODY, {**GOOD, "timelimit": "soon"}, "application/json", "utf-8"),
    (BODY, GOOD, "application/x-nothing", "utf-8"),
    ("{", GOOD, "application/json", "utf-8"),
    ("[[], {}]", GOOD, "application/json", "utf-8"),
    ("[5, {}, {}]", GOOD, "application/json", "utf-8"),
    (b"\x80\x04N.", GOOD, "application/x-python-serialize", "binary"),
    (b"\xff\xfe\x00", GOOD, "application/json", "utf-8"),
    (BODY, {**GOOD, "compression": "application/x-nothing"}, "application/json", "utf-8"),
    (b"not gzip", {**GOOD, "compression": "application/x-gzip"}, "application/json", "utf-8"),
]

#: What only a Redis list can hold.
RAW = [
    b"",
    b"garbage",
    b"\xff\xfe\x00",
    b"[]",
    b"5",
    b"null",
    b"{}",
    b'{"body": "x"}',
    json.dumps({"body": 5, "headers": [], "properties": {}, "content-type": 5}).encode(),
    json.dumps({"body": "e30=", "headers": {}, "properties": {"delivery_info": 5, "body_encoding": "base64"}}).encode(),
    json.dumps(
        {
            "body": "%%%",
            "headers": GOOD,
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "properties": {
                "body_encoding": "base64",
                "delivery_info": {"exchange": "", "routing_key": "q"},
                "delivery_tag": "1",
            },
        }
    ).encode(),
]


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_no_message_ends_or_wedges_the_worker(scene, wait_until, pool):
    worker = scene.start(pool=pool)
    with scene.app.connection_for_write() as connection:
        producer = connection.Producer()
        for body, headers, content_type, encoding in MESSAGES:
            body = body.encode() if isinstance(body, str) else body
            producer.publish(
                body, routing_key=scene.queue, headers=headers, content_type=content_type, content_encoding=encoding
            )
    result = scene.send("add", 1, 2)

    assert result.get(timeout=20) == 3
    wait_until(lambda: worker.log().count("aside") >= len(MESSAGES), tell=worker.log)
    assert worker.stop() == 0
    scene.wait_for_waiting(0)


@pytest.mark.redis
def test_nothing_in_a_redis_list_ends_the_worker(redis_scene, wait_until):
    scene = redis_scene
    server = redis.Redis.from_url(scene.broker)
    worker = scene.start(pool="prefork")
    for raw in RAW:
        server.lpush(scene.queue, raw)
    result = scene.send("add", 1, 2)

    assert result.get(timeout=20) == 3
    wait_until(lambda: server.llen(f"{scene.queue}.dead") == len(RAW), tell=worker.log)
    assert all(
        "x-celeriac-reason" in json.loads(kept)["headers"] for kept in server.lrange(f"{scene.queue}.dead", 0, -1)
    )
    assert worker.stop() == 0
    scene.wait_for_waiting(0)
