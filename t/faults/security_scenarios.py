"""F34, F35: what an intruder sends who can write to the broker and to the store, but has no key."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from typing import Any

from actors import Worker
from forging import Forger, Kit, attacks, flipped, settings
from messages import envelope, new_id
from scenario import Stage, scenario
from servers import OwnRedis, wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
QUICK = ("--without-mingle", "--without-gossip")
CANARY = "/tmp/celeriac-was-here"

#: A certificate that is taken out of the store is known so long.
FORGOTTEN_SECONDS = 5.0


def push(redis: OwnRedis, message: Any, queue: str = "celery") -> None:
    redis.client.lpush(queue, message if isinstance(message, bytes) else json.dumps(message).encode())


def refused(worker: Worker, what: str = "a message") -> int:
    return worker.text().count(f"Refused {what}")


def client(env: dict[str, str], code: str, seconds: float = 90) -> str:
    """Run ``code`` with the fault app as a client, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", f"from faultapp import app\n{code}"],
        env=env,
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


@scenario("F34", unprotected="unprotect.signing=off", tasks=2_000, short=0.05)
def forged_messages(stage: Stage) -> dict[str, Any]:
    """With signing on, nothing runs that a known key has not signed, for this queue, in this form, once."""
    remove_canary()
    redis = stage.redis()
    keys = stage.directory / "keys"
    kit = {name: Forger(keys, name) for name in ("alice", "bob")}
    kit["mallory"] = Forger(keys, "mallory", is_known=False)
    kit["old"] = Forger(keys, "old", is_known=False, days=(-10, -5))
    env = stage.env(redis.url, redis.url + "/1", **settings(keys))
    worker = stage.worker(env, *QUICK, "-Q", "celery,other")
    # From here on bob's key is gone, and one that has expired is there.
    kit["bob"].identity.certificate.unlink()
    os.replace(kit["old"].identity.certificate, keys / "store" / "old.pem")
    removed_at = time.monotonic()

    good = [kit["alice"].task() for _ in range(10)]
    running = kit["alice"].task(args=(600,))
    for message in (*good, running):
        push(redis, message)
    expected = {message["headers"]["id"] for message in (*good, running)}
    wait_until(lambda: begun(stage) >= expected, 20, "the good messages to begin")
    wait_until(lambda: redis.client.hlen("unacked") == 1, 20, "them to be acknowledged")
    time.sleep(max(0.0, removed_at + FORGOTTEN_SECONDS + 0.5 - time.monotonic()))

    tries = list(attacks(Kit(**kit, done=good[0], running=running)))
    stage.dice.shuffle(tries)
    for attack in tries:
        push(redis, attack.message, attack.queue)
    spoilt = [flipped(stage.dice, kit["alice"].task()) for _ in range(stage.count)]
    for message in spoilt:
        push(redis, message)
    fresh = kit["alice"].task()
    push(redis, fresh)
    expected.add(fresh["headers"]["id"])
    patience = 8 if stage.unprotected else 30
    wait_until(
        lambda: fresh["headers"]["id"] in begun(stage), patience + stage.count / 20, "the good message behind them"
    )
    wait_until(lambda: redis.client.hlen("unacked") == 1, 10, "everything else to be settled")

    runs = [line.split()[1] for line in effects(stage) if line.startswith("begin")]
    assert sorted(runs) == sorted(expected), f"{len(runs)} runs of {len(expected)}; {worker.log}"
    count = len(tries) + len(spoilt)
    aside = [each for queue in ("celery", "other") for each in redis.dead_letters(queue)]
    assert len(aside) == refused(worker) == count, f"{len(aside)} aside, {refused(worker)} told, of {count}"
    assert all(each["reason"].startswith("refused: ") for each in aside)
    said_to_be_redelivered(redis, good[0])
    wait_until(lambda: redis.client.hlen("unacked") == 1, 10, "that to be acknowledged")
    runs = [line for line in effects(stage) if line.startswith("begin")]
    assert len(runs) == len(expected), "a copy that was said to be delivered again did run"
    (keys / "store" / "old.pem").unlink()  # nothing starts with such a store
    forged_results(redis, env, kit["alice"])
    assert not os.path.exists(CANARY), "something ran that no task is"
    assert "Traceback" not in worker.text(), f"a traceback in {worker.log}"
    assert worker.is_running()
    return {"attacks": len(tries), "flipped": len(spoilt), "refused": refused(worker), "ran": len(runs)}


def said_to_be_redelivered(redis: OwnRedis, done: dict[str, Any]) -> None:
    copy = json.loads(json.dumps(done))
    copy["headers"]["redelivered"] = copy["properties"]["delivery_info"]["redelivered"] = True
    push(redis, copy)


def forged_results(redis: OwnRedis, env: dict[str, str], alice: Forger) -> None:
    """Let a client read results that name ``os.system``, written by an intruder and even by a friend."""
    store = redis.database(1)
    call = {"exc_type": "system", "exc_module": "os", "exc_message": [f"touch {CANARY}"]}
    nested = {"exc_type": "path.exists", "exc_module": "os", "exc_message": [CANARY]}
    for exception in (call, nested):
        meta = {"status": "FAILURE", "result": exception, "traceback": None, "children": []}
        records = {
            "unsigned": json.dumps(meta | {"task_id": "unsigned"}).encode(),
            "pickled": pickle.dumps(meta | {"task_id": "pickled"}),
            "signed": alice.serializer.serialize(meta | {"task_id": "signed"}).encode(),
        }
        for task_id, record in records.items():
            store.set(f"celery-task-meta-{task_id}", record)
        code = f"""
for task_id in {list(records)}:
    try:
        print("VALUE", app.AsyncResult(task_id).get(timeout=5))
    except Exception as error:
        print(type(error).__name__)
"""
        lines = client(env, code).splitlines()
        assert len(lines) == len(records), lines
        assert not any(line.startswith("VALUE") for line in lines), lines
        assert lines[-1] == "SecurityError", lines


def begun(stage: Stage) -> set[str]:
    return {line.split()[1] for line in effects(stage) if line.startswith("begin")}


def effects(stage: Stage) -> list[str]:
    path = stage.directory / "effects"
    return path.read_text().splitlines() if path.exists() else []


def remove_canary() -> None:
    if os.path.exists(CANARY):
        os.unlink(CANARY)


# -- F35: remote control

CHANNEL = "/0.celery.pidbox"


@scenario("F35", unprotected="unprotect.signing=off", tasks=4_000, short=0.05)
def forged_commands(stage: Stage) -> dict[str, Any]:
    """Garbage and forged commands, in a flood, change nothing; good ones are answered, and tasks go on."""
    redis = stage.redis()
    keys = stage.directory / "keys"
    alice, mallory = Forger(keys, "alice"), Forger(keys, "mallory", is_known=False)
    env = stage.env(redis.url, **settings(keys))
    captured = alice.command("shutdown")
    time.sleep(1.5)  # a command from before the worker started
    worker = stage.worker(env, *QUICK)
    bad = list(bad_commands(alice, mallory, captured))
    for command in bad:
        publish(redis, command)
    ask_ping(stage, env)
    told = worker.text().count("Refused a remote control command") + worker.text().count(
        "Control message cannot be read"
    )
    assert told == len(bad), f"{told} lines for {len(bad)} commands; {worker.log}"

    alone = drain(stage, redis, alice)
    for number in range(stage.times(1_000, 20)):  # answers that nobody waits for
        reply_to = {"exchange": "reply.celery.pidbox", "routing_key": f"nobody-{number}"}
        publish(redis, alice.command("ping", ticket=new_id(), reply_to=reply_to))
    flood = stage.times(100_000, 5_000)
    payload = json.dumps(stage.dice.choice(bad)).encode()
    with redis.client.pipeline(transaction=False) as pipe:
        for _ in range(flood):
            pipe.publish(CHANNEL, payload)
        pipe.execute()
    beside = drain(stage, redis, alice)
    ask_ping(stage, env)
    assert stage.scale < 0.5 or beside >= alone / 2, f"{beside:.0f} tasks/s beside the flood, {alone:.0f} alone"
    assert worker.is_running()
    assert "Traceback" not in worker.text(), f"a traceback in {worker.log}"
    return {"commands refused": len(bad), "flood": flood, "tasks/s alone": round(alone), "beside": round(beside)}


def bad_commands(alice: Forger, mallory: Forger, captured: dict[str, Any]) -> Any:
    """Yield commands that must not run; ``shutdown`` would show."""
    from celery.security.document import SIGNATURE

    yield captured
    ping = alice.command("ping")
    body_only = alice.command("shutdown")
    del body_only["headers"][SIGNATURE]
    yield body_only
    yield mallory.command("shutdown")
    plain = envelope(json.dumps({"method": "shutdown", "arguments": {}}).encode(), {"clock": 1, "expires": 0}, "")
    plain["properties"]["delivery_info"] = {"exchange": "celery.pidbox", "routing_key": ""}
    yield plain
    yield {**alice.command("shutdown"), "headers": ping["headers"]}
    yield {**plain, "content-type": "application/data"}
    yield {**plain, "body": "", "content-type": "application/data"}
    task = alice.task()
    task["properties"]["delivery_info"] = {"exchange": "celery.pidbox", "routing_key": ""}
    yield task


def publish(redis: OwnRedis, command: dict[str, Any]) -> None:
    redis.client.publish(CHANNEL, json.dumps(command).encode())


def ask_ping(stage: Stage, env: dict[str, str]) -> None:
    patience = 4 if stage.unprotected else 60
    answer = client(env, f"print(app.control.ping(timeout={patience}, limit=1))", 90)
    assert "pong" in answer, answer


def drain(stage: Stage, redis: OwnRedis, alice: Forger) -> float:
    """Have signed tasks run; returns how many a second."""
    messages = [alice.task() for _ in range(stage.count)]
    wanted = {message["headers"]["id"] for message in messages}
    began = time.monotonic()
    for message in messages:
        push(redis, message)
    wait_until(lambda: begun(stage) >= wanted, 60 + stage.count / 20, "signed tasks to run")
    return len(messages) / (time.monotonic() - began)
