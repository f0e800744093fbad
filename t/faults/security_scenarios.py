"""F34, F35, F35-flood: what an intruder sends who can write to the broker and to the store, but has no key."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from datetime import datetime
from typing import Any

from actors import QUICK_START, Worker
from forging import Forger, Kit, attacks, flipped, settings
from messages import envelope, new_id
from scenario import Stage, scenario
from servers import OwnRedis, wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
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
    worker = stage.worker(env, *QUICK_START, "-Q", "celery,other")
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
    """Garbage and forged commands change nothing; good ones are answered, and tasks go on."""
    redis = stage.redis()
    keys = stage.directory / "keys"
    alice, mallory = Forger(keys, "alice"), Forger(keys, "mallory", is_known=False)
    env = stage.env(redis.url, **settings(keys))
    captured = alice.command("shutdown")
    time.sleep(1.5)  # a command from before the worker started
    worker = stage.worker(env, *QUICK_START)
    taken = alice.command("ping")
    publish(redis, taken)
    bad = [*bad_commands(alice, mallory, captured), taken]
    for command in bad:
        publish(redis, command)
    ask_ping(stage, env)
    assert told(worker) == len(bad), f"{told(worker)} lines for {len(bad)} commands; {worker.log}"

    for number in range(stage.times(1_000, 20)):  # answers that nobody waits for
        reply_to = {"exchange": "reply.celery.pidbox", "routing_key": f"nobody-{number}"}
        publish(redis, alice.command("ping", ticket=new_id(), reply_to=reply_to))
    messages = [alice.task() for _ in range(stage.count)]
    for message in messages:
        push(redis, message)
    await_runs(stage, messages)
    ask_ping(stage, env)
    assert worker.is_running()
    assert "Traceback" not in worker.text(), f"a traceback in {worker.log}"
    return {"commands refused": len(bad), "tasks": len(messages)}


@scenario("F35-flood", unprotected="unprotect.intake=off", tasks=4_000, short=0.025)
def flooded_with_commands(stage: Stage) -> dict[str, Any]:
    """A flood of commands leaves tasks their pace; each is dealt with, and good ones are answered in their order."""
    redis = stage.redis()
    keys = stage.directory / "keys"
    alice, mallory = Forger(keys, "alice"), Forger(keys, "mallory", is_known=False)
    worker = stage.worker(stage.env(redis.url, **settings(keys)), *QUICK_START)
    redis.client.sadd("_kombu.binding.reply.celery.pidbox", "\x06\x16".join(("asker", "", "replies")))
    bad = json.dumps(stage.dice.choice(list(bad_commands(alice, mallory, mallory.command("shutdown"))))).encode()
    rounds = 4 if stage.scale >= 0.5 else 1  # in turns with the pace without, as the machine has other things to do
    flood = stage.times(100_000, BURST) // rounds
    count, meanwhile, behind = stage.count // rounds, 0, 0
    paces: tuple[list[float], list[float]] = ([], [])
    for number in range(1, rounds + 1):
        # The same flood past the worker: what it costs the server and the machine is none of the worker's affair.
        tasks = [alice.task() for _ in range(count)]
        send_flood(redis, flood, bad, [], tasks, "/0.nobody")
        paces[0].append(pace_of(stage, tasks))
        tasks, asked = [alice.task() for _ in range(count)], [new_id() for _ in range(GOOD_COMMANDS)]
        pings = [alice.command("ping", ticket=ticket, reply_to=REPLY_TO) for ticket in asked]
        sent_at = send_flood(redis, flood, bad, pings, tasks)
        paces[1].append(pace_of(stage, tasks))
        before = refusals_until(worker, sent_at)
        meanwhile += refusals_until(worker, last_begin(stage, tasks)) - before
        behind += flood * number - before
        check_answers(redis, asked, 60 + flood / 100)
        wait_until(lambda number=number: told(worker) >= flood * number, 60, "the last of the flood")
    assert meanwhile < behind * 0.8, f"{meanwhile} of {behind} commands were dealt with before {count} tasks had begun"
    alone, beside = (sum(each) / rounds for each in paces)
    assert stage.scale < 0.5 or beside >= alone / 2, f"{beside:.0f} tasks/s beside the flood, {alone:.0f} alone"
    assert told(worker) == flood * rounds, f"{told(worker)} lines for {flood * rounds} commands; {worker.log}"
    assert worker.is_running()
    assert "Traceback" not in worker.text(), f"a traceback in {worker.log}"
    return {"flood": flood * rounds, "meanwhile": meanwhile, "tasks/s alone": round(alone), "beside": round(beside)}


#: So many come at once, which is some 10 MB (Redis cuts off who is 32 MiB behind), and then so many a second.
BURST = 8_000
COMMANDS_A_SECOND = 10_000
GOOD_COMMANDS = 20
REPLY_TO = {"exchange": "reply.celery.pidbox", "routing_key": "asker"}


def send_flood(
    redis: OwnRedis,
    size: int,
    bad: bytes,
    good: list[dict[str, Any]],
    tasks: list[dict[str, Any]],
    channel: str = CHANNEL,
) -> float:
    """Publish ``bad`` so often, ``good`` commands evenly among them, and send ``tasks`` early in the burst.

    Returns when the tasks were in the queue, in seconds since 1970.
    """
    began, among = time.monotonic(), {number * size // len(good): each for number, each in enumerate(good)}
    answers: list[Any] = []
    with redis.client.pipeline(transaction=False) as pipe:
        for number in range(size):
            if number == BURST // 4:
                pipe.lpush("celery", *map(json.dumps, tasks))
                pipe.time()
            if number in among:
                pipe.publish(channel, json.dumps(among[number]).encode())
            pipe.publish(channel, bad)
            if number >= BURST and number % 500 == 0:
                answers += pipe.execute()
                time.sleep(max(0.0, began + (number - BURST) / COMMANDS_A_SECOND - time.monotonic()))
        answers += pipe.execute()
    seconds, microseconds = next(answer for answer in answers if isinstance(answer, tuple))
    return float(seconds + microseconds / 1e6)


def check_answers(redis: OwnRedis, asked: list[str], seconds: float) -> None:
    """Check that the commands with these tickets are answered, in this order."""
    wait_until(lambda: redis.client.llen("replies") >= len(asked), seconds, "good commands to be answered")
    answered = [json.loads(reply)["headers"]["ticket"] for reply in reversed(redis.client.lrange("replies", 0, -1))]
    assert answered == asked, "the answers came in another order"
    redis.client.delete("replies")


def pace_of(stage: Stage, tasks: list[dict[str, Any]]) -> float:
    """Wait for ``tasks``; returns how many began in a second, from the first to the last."""
    await_runs(stage, tasks)
    moments = begins(stage, tasks)
    return len(moments) / ((max(moments) - min(moments)) / 1e9)


def last_begin(stage: Stage, tasks: list[dict[str, Any]]) -> float:
    """Return when the last of ``tasks`` began, in seconds since 1970."""
    return time.time() - time.monotonic() + max(begins(stage, tasks)) / 1e9


def begins(stage: Stage, tasks: list[dict[str, Any]]) -> list[int]:
    wanted = {task["headers"]["id"] for task in tasks}
    return [runs[0].start for task_id, runs in stage.oracle.executions().items() if task_id in wanted]


def await_runs(stage: Stage, tasks: list[dict[str, Any]]) -> None:
    wanted = {task["headers"]["id"] for task in tasks}
    wait_until(lambda: begun(stage) >= wanted, 60 + len(tasks) / 20, "signed tasks to run")


def told(worker: Worker) -> int:
    """Return how many commands were refused."""
    text = worker.text()
    return text.count("Refused a remote control command") + text.count("Control message cannot be read")


def refusals_until(worker: Worker, moment: float) -> int:
    """Return how many commands were refused before ``moment``, in seconds since 1970."""
    stamp = f"[{datetime.fromtimestamp(moment):%Y-%m-%d %H:%M:%S},{int(moment % 1 * 1000):03}"
    lines = (line for line in worker.text().splitlines() if "Refused a remote" in line or "cannot be read" in line)
    return sum(line < stamp for line in lines)


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
