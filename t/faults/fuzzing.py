"""F33 for everything that is no plain task: commands, events, results and signed tasks, changed by dice."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from actors import Worker
from corpus import mutated
from forging import Forger, flipped, settings
from messages import envelope, new_id, stored_result, task_message
from scenario import Stage, scenario
from security_scenarios import CANARY, client, push, refused, remove_canary
from servers import OwnRedis, wait_until

#: Messages between two looks at the worker.
BATCH = 25

COMMANDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("ping", {}),
    ("revoke", {"task_id": "x", "terminate": False, "signal": "SIGTERM"}),
    ("revoke_by_stamped_headers", {"headers": {"a": ["b"]}}),
    ("rate_limit", {"task_name": "faultapp.ping", "rate_limit": None}),
    ("time_limit", {"task_name": "faultapp.poison", "hard": 100, "soft": 50}),
    ("query_task", {"ids": ["x"]}),
    ("active", {"safe": None}),
    ("scheduled", {}),
    ("registered", {"taskinfoitems": ["rate_limit"]}),
    ("hello", {"from_node": "other@host", "revoked": {}}),
    ("conf", {"with_defaults": False}),
    ("enable_events", {}),
    ("cancel_consumer", {"queue": "nothing"}),
    ("election", {"id": "x", "topic": "t", "action": None}),
)

EVENTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("worker-online", {"freq": 2.0, "sw_ident": "x", "sw_ver": "1", "sw_sys": "Linux"}),
    ("worker-heartbeat", {"freq": 2.0, "active": 0, "processed": 1, "loadavg": [0, 0, 0]}),
    ("worker-offline", {}),
    ("worker-elect", {"id": "x", "topic": "t", "action": None, "cver": 1}),
    ("worker-elect-ack", {"id": "x"}),
    ("task-received", {"uuid": "x", "name": "faultapp.ping", "args": "()", "kwargs": "{}"}),
    ("task-succeeded", {"uuid": "x", "result": "1", "runtime": 0.1}),
)

#: What a hostile record may name in place of an exception.
CALLABLES = (
    ("os", "system"),
    ("os", "path.exists"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("subprocess", "Popen"),
    ("pickle", "loads"),
    ("celery.app.base", "Celery"),
    ("importlib", "import_module"),
    ("builtins", "SystemExit"),
    ("builtins", "KeyboardInterrupt"),
    ("this", "x"),
    ("", ""),
    (None, "ValueError"),
    (5, 5),
)


@scenario("F33-all", unprotected="unprotect.revive=off", tasks=10_000, short=0.05)
def changed_by_dice(stage: Stage) -> dict[str, Any]:
    """Commands, events, results and signed tasks, changed at random: a line at most for each, and nothing foreign runs."""
    remove_canary()
    redis = stage.redis()
    quarter = stage.count // 4
    figures = {"each": quarter}
    env = stage.env(redis.url, redis.url + "/1")
    if not stage.unprotected:
        worker = stage.worker(env, "-E", "--without-mingle")
        for name, cases in (("commands", commands), ("events", events)):
            figures[name] = broadcast(stage, redis, worker, cases(stage.dice, quarter))
        wait_until(lambda: not redis.client.hlen("unacked"), 10, "everything to be settled")
        worker.kill_group()
        figures["signed tasks"] = signed_tasks(stage, redis, quarter)
    figures["results"] = results(stage, redis, env, quarter)
    assert not os.path.exists(CANARY), "something ran that no task is"
    return figures


def commands(dice: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield channel and payload of changed commands."""
    for _ in range(count):
        method, arguments = dice.choice(COMMANDS)
        command = {"method": method, "arguments": arguments, "destination": None, "pattern": None, "matcher": None}
        if dice.random() < 0.5:
            reply_to = {"exchange": "reply.celery.pidbox", "routing_key": new_id()}
            command.update(ticket=new_id(), reply_to=reply_to)
        yield "/0.celery.pidbox", changed(dice, command, "celery.pidbox", "", {"clock": 1, "expires": 0})


def events(dice: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield channel and payload of changed events."""
    for _ in range(count):
        type, fields = dice.choice(EVENTS)
        event = {
            "hostname": "other@host",
            "utcoffset": 0,
            "pid": 1,
            "clock": 1,
            "timestamp": time.time(),
            "type": type,
            **fields,
        }
        body = [event, event] if type.startswith("task") else event
        routing_key = type.replace("-", ".", 1)
        yield f"/0.celeryev/{routing_key}", changed(dice, body, "celeryev", routing_key, {"hostname": "other@host"})


def changed(dice: random.Random, body: Any, exchange: str, routing_key: str, headers: dict[str, Any]) -> bytes:
    """Return a message with ``body``, something in it or around it changed."""
    if dice.random() < 0.6:  # inside
        holder = {"body": deepcopy(body[0] if isinstance(body, list) else body)}
        payload = mutated(dice, holder, dice.choice(("value", "value", "drop")), b"")
        message = envelope(json.dumps(json.loads(payload).get("body")).encode(), headers, "")
        message["properties"]["delivery_info"] = {"exchange": exchange, "routing_key": routing_key}
        return json.dumps(message).encode()
    encoded = json.dumps(body).encode()
    message = envelope(encoded, headers, "")
    message["properties"]["delivery_info"] = {"exchange": exchange, "routing_key": routing_key}
    return mutated(dice, message, dice.choice(("value", "drop", "bytes", "cut", "body", "swap")), encoded)


def broadcast(stage: Stage, redis: OwnRedis, worker: Worker, cases: Iterator[tuple[str, bytes]]) -> int:
    """Publish all ``cases``; returns how many lines the worker has complained in."""
    before, count = complaints(worker), 0
    for channel, payload in cases:
        redis.client.publish(channel, payload)
        count += 1
        if count % BATCH == 0:
            answer(stage, redis, worker, payload)
    answer(stage, redis, worker, b"the last")
    told = complaints(worker) - before
    assert told <= count, f"{told} complaints about {count} messages; {worker.log}"
    assert "Traceback" not in worker.text(), f"a traceback in {worker.log}; seed {stage.seed}"
    return told


def complaints(worker: Worker) -> int:
    text = worker.text()
    return sum(text.count(f": {level}/") for level in ("WARNING", "ERROR", "CRITICAL"))


def answer(stage: Stage, redis: OwnRedis, worker: Worker, last: bytes) -> None:
    """Wait until a task behind what was published has run."""
    task_id, payload = task_message("faultapp.ping")
    redis.client.lpush("celery", payload)
    record = stored_result(redis.database(1), task_id, 20.0)
    assert worker.is_running(), f"the worker ended, seed {stage.seed}:\n{worker.text()[-3000:]}"
    assert record is not None, f"no answer after {last!r:.500}, seed {stage.seed}; {worker.log}"


def signed_tasks(stage: Stage, redis: OwnRedis, count: int) -> int:
    """Give a worker that knows signatures changed tasks; returns how many it refused."""
    keys = stage.directory / "keys"
    alice = Forger(keys, "alice")
    env = stage.env(redis.url, redis.url + "/1", directory=stage.directory / "signed", **settings(keys))
    worker = stage.worker(env, "--without-mingle", "--without-gossip")
    for _ in range(count):
        push(redis, flipped(stage.dice, alice.task()))
    wait_until(lambda: refused(worker) >= count, 30 + count / 20, "each to be refused")
    wait_until(lambda: not redis.client.hlen("unacked"), 10, "all to be settled")
    assert refused(worker) == count
    assert not (stage.directory / "signed" / "effects").exists(), "a changed message did run"
    assert "Traceback" not in worker.text(), f"a traceback in {worker.log}; seed {stage.seed}"
    worker.kill_group()
    return refused(worker)


def results(stage: Stage, redis: OwnRedis, env: dict[str, str], count: int) -> int:
    """Let a client read changed records of results; returns how many of them were an error."""
    store = redis.database(1)
    ids = [f"fuzz-{number}" for number in range(count)]
    store.set(f"celery-task-meta-{ids[0]}", json.dumps(hostile_meta(ids[0], "os", "system", [f"touch {CANARY}"])))
    for task_id in ids[1:]:
        store.set(f"celery-task-meta-{task_id}", record(stage.dice, task_id))
    code = f"""
import traceback
for task_id in {ids}:
    try:
        value = app.AsyncResult(task_id).get(timeout=0.001)
        print("VALUE", repr(value)[:50].replace("\\n", " "))
    except Exception as error:
        print("ERROR", type(error).__name__)
"""
    lines = client(env, code, 60 + count / 20).splitlines()
    assert len(lines) == count, f"{len(lines)} lines for {count} records; seed {stage.seed}: {lines[-3:]}"
    return sum(line.startswith("ERROR") for line in lines)


def plain_meta(task_id: str) -> dict[str, Any]:
    """Return the record of a success."""
    return {
        "status": "SUCCESS",
        "result": {"a": [1, None]},
        "traceback": None,
        "children": [],
        "date_done": "2026-01-01T00:00:00+00:00",
        "task_id": task_id,
    }


def hostile_meta(task_id: str, module: Any, name: str, message: Any, status: str = "FAILURE") -> dict[str, Any]:
    """Return the record of a failure that names something to call where an exception belongs."""
    result = {"exc_type": name, "exc_module": module, "exc_message": message}
    return {**plain_meta(task_id), "status": status, "traceback": "Traceback…", "result": result}


def record(dice: random.Random, task_id: str) -> bytes:
    """Return a result's record, changed or hostile."""
    meta = plain_meta(task_id)
    if dice.random() < 0.5:
        module, name = dice.choice(CALLABLES)
        message = dice.choice(([f"touch {CANARY}"], f"touch {CANARY}", [f"open('{CANARY}', 'w')"], [], None, {"a": 1}))
        meta = hostile_meta(task_id, module, name, message, dice.choice(("FAILURE", "RETRY", "REVOKED")))
    holder = {"record": meta}
    kind = dice.choice(("none", "value", "value", "drop", "bytes", "cut", "swap"))
    if kind in ("none", "value", "drop"):
        payload = json.loads(mutated(dice, holder, kind, b""))
        return json.dumps(payload.get("record")).encode()
    return mutated(dice, meta, kind, b"")
