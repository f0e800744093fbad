"""Chords and chains while members, processes and the result store fail: each ends, and its body is sent once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from actors import HERE, QUICK_START, Worker
from operations import run_script
from redis_scenarios import lease
from scenario import Stage, scenario
from servers import OwnRedis, wait_until

#: Seconds after which a chord without any progress is given up.
PATIENCE_SECONDS = 10


def conf(**more: Any) -> dict[str, Any]:
    return {
        "imports": ["canvastasks"],
        "task_ignore_result": False,
        "result_chord_join_timeout": 1,
        "result_backend_transport_options": {"chord_sweep_interval": 1},
        **lease(1),
        **more,
    }


def start_client(env: dict[str, str], verb: str, *numbers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "chordclient.py", verb, *map(str, numbers)]
    env = {name: value for name, value in env.items() if name != "CELERIAC_FAILPOINTS"}
    return subprocess.Popen(command, env=env, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answer(client: subprocess.Popen[str], seconds: float = 110) -> dict[str, Any]:
    """Return what the client says at its end."""
    try:
        out, errors = client.communicate(timeout=seconds)
    finally:
        client.kill()
    assert client.returncode == 0, errors[-2000:]
    figures: dict[str, Any] = json.loads(out.splitlines()[-1])
    return figures


def lines(directory: Path, name: str) -> dict[str, list[list[str]]]:
    """Return the words behind each label that was noted in the file ``name``."""
    found: dict[str, list[list[str]]] = defaultdict(list)
    path = directory / name
    for line in path.read_text().splitlines() if path.exists() else ():
        label, task_id, word = line.rsplit(" ", 2)
        found[label].append([task_id, word])
    return found


@scenario("F26", unprotected="unprotect.chord_claim=off", tasks=10_000, short=0.05)
def chords_with_killed_and_repeated_members(stage: Stage) -> dict[str, Any]:
    """Children die and members are delivered twice: every body is sent once, under one id."""
    redis = stage.redis()
    failpoints = f"child.after_effect=kill,p={20 / max(stage.count, 200)}"  # counted, not acknowledged: comes again
    env = stage.env(redis.url, redis.url, failpoints=failpoints, **conf(**lease(1, max_redeliveries=20)))
    worker = stage.worker(env, *QUICK_START)
    figures: dict[str, Any] = {}
    count, size = stage.times(200, 10), 50 if stage.scale >= 0.5 else 10
    links = stage.times(10, 3)
    for verb, numbers in {"large": (stage.count,), "many": (count, size), "chained": (links, links)}.items():
        client = start_client(env, verb, *numbers)
        kills = 0
        while client.poll() is None:
            time.sleep(stage.dice.uniform(0.2, 0.6))
            children = worker.children()
            if kills < 5 and children and client.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(stage.dice.choice(children), signal.SIGKILL)
                stage.oracle.note_fault("kill child")
                kills += 1
        figures |= {f"{verb}: {name}": round(value, 2) for name, value in answer(client).items()}
    seconds = figures["large: seconds"]
    assert seconds <= 60, f"a chord of {stage.count} took {seconds} s; seed {stage.seed}"
    wait_until(
        lambda: not redis.client.llen("celery") and not redis.client.hlen("unacked"), 20, "the queue to be empty"
    )
    bodies = lines(stage.directory, "bodies")
    check_released_once(stage, bodies, count + links + 5)
    assert not lines(stage.directory, "errbacks"), lines(stage.directory, "errbacks")
    check_nothing_left(redis)
    return {**figures, "bodies": len(bodies), "kills": len(stage.oracle.faults), "again": redeliveries(stage)}


def check_released_once(stage: Stage, bodies: dict[str, list[list[str]]], expected: int) -> None:
    assert len(bodies) == expected, f"{len(bodies)} bodies ran of {expected}"
    several = {label: runs for label, runs in bodies.items() if len({task_id for task_id, _ in runs}) > 1}
    assert not several, f"bodies with more than one id: {several}; seed {stage.seed}"
    again = {label: runs for label, runs in bodies.items() if [word for _, word in runs].count("False") > 1}
    # Who dies between sending the body and noting that leaves it to another, who sends it under the same id.
    assert len(again) <= len(stage.oracle.faults) // 5, f"bodies that were sent twice: {again}; seed {stage.seed}"


def check_nothing_left(redis: OwnRedis) -> None:
    """Check that no chord is open, and that nothing but results and marks of ended chords remains."""
    names = Counter(key.decode().rpartition(".")[2] for key in redis.client.keys("celery-taskset-meta-*.?"))
    assert set(names) <= {"c", "d", "j"}, f"left behind: {names}"  # d and j by members that came again after the end
    assert not redis.client.zcard("celery-taskset-meta-celeriac-open-chords"), "chords that are still open"


def redeliveries(stage: Stage) -> int:
    return sum(word == "True" for runs in lines(stage.directory, "bodies").values() for _, word in runs)


@scenario("F26c", tasks=200)
def chords_while_the_store_restarts(stage: Stage) -> dict[str, Any]:
    """The store that counts the members is killed and comes back, again and again: every body is sent once."""
    broker = stage.redis(directory=stage.directory / "broker")
    store = stage.redis(durable=True, directory=stage.directory / "store")
    env = stage.env(broker.url, store.url, **conf())
    stage.worker(env, *QUICK_START)
    count = max(20, stage.count)
    client = start_client(env, "many", count, 10)
    restarts = 0
    while client.poll() is None and restarts < stage.times(20, 3):
        time.sleep(stage.dice.uniform(0.3, 0.6))
        store.kill()
        time.sleep(0.2)
        store.start()
        stage.oracle.note_fault("restart of the store")
        restarts += 1
    seconds = answer(client)["seconds"]
    bodies = lines(stage.directory, "bodies")
    check_released_once(stage, bodies, count)
    assert not lines(stage.directory, "errbacks"), lines(stage.directory, "errbacks")
    check_nothing_left(store)
    return {"bodies": len(bodies), "restarts": restarts, "seconds of it": round(seconds, 1)}


@scenario("F26b", unprotected="unprotect.begun=off;unprotect.chord_sweep=off", tasks=100)
def every_chord_ends(stage: Stage) -> dict[str, Any]:
    """Members fail, expire, are revoked, lost with their process or worker, never delivered: each errback runs once."""
    redis = stage.redis()
    env = stage.env(redis.url, redis.url, **conf(result_chord_expires=PATIENCE_SECONDS))
    worker = stage.worker(env, "--without-gossip")  # with mingle: who starts again learns what was revoked
    other = stage.worker(env, "--without-gossip", name="w2")  # one of them sees that the other is gone
    client = start_client(env, "troubled")
    corrupt(redis, "unreadable")
    wait_for_client(client, (worker, other))
    started = answer(client)["started"]
    began = time.monotonic()

    def have_all_ended() -> bool:
        restart(worker, other)
        return set(lines(stage.directory, "errbacks")) >= set(started)

    try:
        wait_until(have_all_ended, 15 if stage.unprotected else 45, "the errbacks of all chords")
    except TimeoutError as error:
        missing = sorted(set(started) - set(lines(stage.directory, "errbacks")))
        raise AssertionError(f"chords that never end: {missing}; seed {stage.seed}, {stage.directory}") from error
    slowest = time.monotonic() - began
    time.sleep(2.5)  # for what should not come
    ended = lines(stage.directory, "errbacks")
    twice = {label: runs for label, runs in ended.items() if len(runs) != 1}
    assert not twice, f"errbacks that ran more than once: {twice}; seed {stage.seed}"
    bodies = lines(stage.directory, "bodies")
    assert not bodies, f"bodies that ran although a member did not: {bodies}"
    return {"chords": len(started), "slowest s": round(slowest, 1)}


def restart(*workers: Worker) -> None:
    for worker in workers:
        if not worker.is_running():
            worker.restart()


def wait_for_client(client: subprocess.Popen[str], workers: tuple[Worker, ...]) -> None:
    while client.poll() is None:
        restart(*workers)
        time.sleep(0.05)


def corrupt(redis: OwnRedis, task_id: str) -> None:
    """Take the message of ``task_id`` from the queue ``unread``, spoil its body, and let a worker have it."""
    wait_until(lambda: redis.client.llen("unread"), 20, "the message that is to be spoiled")
    message = json.loads(redis.client.rpop("unread"))
    assert message["headers"]["id"] == task_id
    redis.client.lpush("celery", json.dumps({**message, "body": "bm8ganNvbg=="}))


SEND_CHAINS = """
import json, sys, faultapp
from celery import chain
ids = [chain(*[faultapp.effect.si(0)] * 3).apply_async().id for _ in range(int(sys.argv[1]))]
print(json.dumps(ids))
"""


@scenario("F26-steps", unprotected="unprotect.successor=off", tasks=200, short=0.05)
def steps_are_delivered_again(stage: Stage) -> dict[str, Any]:
    """A step of a chain dies after it has sent the next; it is delivered again, known to be done: no chain breaks."""
    redis = stage.redis()
    failpoints = "chain.between=kill,p=0.3"
    settings = conf(**lease(1, max_redeliveries=50), worker_deduplicate_successful_tasks=True)
    env = stage.env(redis.url, redis.url, failpoints=failpoints, **settings)
    worker = stage.worker(env, *QUICK_START)
    plain = {name: value for name, value in env.items() if name != "CELERIAC_FAILPOINTS"}
    last = json.loads(run_script(SEND_CHAINS, plain, stage.count))
    ended = stage.oracle.executions

    def have_all_ended() -> bool:
        return all(any(run.end for run in ended().get(each, ())) for each in last)

    try:
        wait_until(have_all_ended, 6 if stage.unprotected else 60 * max(1, stage.scale * 4), "the ends of all chains")
    except TimeoutError as error:
        broken = [each for each in last if each not in ended()]
        raise AssertionError(f"chains that broke off: {broken}; seed {stage.seed}, {worker.log}") from error
    kills = worker.text().count("WorkerLostError") or worker.text().count("signal 9")
    return {"chains": len(last), "mentions of kills": kills}


MEASURE = """
import json, os, faultapp
from celery import chain, group
from redis import Redis
client, ping = Redis.from_url(os.environ["FAULT_BROKER"]), faultapp.ping
def bytes_for(chords, size):
    parts = [part for _ in range(chords) for part in (group(ping.si() for _ in range(size)), ping.si())]
    chain(*parts).apply_async()
    messages = client.lrange("celery", 0, -1)
    client.delete("celery")
    assert len(messages) == size
    return sum(map(len, messages))
print(json.dumps([bytes_for(*each) for each in ((2, 10), (4, 10), (2, 100))]))
"""


@scenario("F26-size", unprotected="unprotect.body_once=off", tasks=20, short=1)
def messages_do_not_explode(stage: Stage) -> dict[str, Any]:
    """A chain of chords: twice as many make twice as large a message, and ten times the members ten times as many."""
    redis = stage.redis()
    env = stage.env(redis.url, redis.url, **conf())
    short, longer, wider = json.loads(run_script(MEASURE, env))
    assert longer < 3 * short, f"4 chords of 10 take {longer} bytes, 2 take {short}"
    assert wider < 110 * short, f"2 chords of 100 take {wider} bytes, of 10 {short}"
    return {"2 of 10": short, "4 of 10": longer, "2 of 100": wider}
