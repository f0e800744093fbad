"""What operators do, and what builds up over time: long tasks, rolling restarts, schedules, revokes, floods, soaking."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from actors import QUICK_START, memory_of, wait_for_progress
from messages import stored_result
from redis_scenarios import LEASE_SECONDS, lease
from scenario import Stage, scenario
from servers import OwnRedis, wait_until

MB = 1 << 20


def run_script(text: str, env: dict[str, str], *arguments: Any, seconds: float = 120) -> str:
    """Run a program beside the fault app and return what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", text, *map(str, arguments)],
        env=env,
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


# -- F03: leases -----------------------------------------------------------------------------------------------------


@scenario("F03", unprotected="unprotect.renew=off", tasks=10_000, short=0.02)
def tasks_run_longer_than_the_lease(stage: Stage) -> dict[str, Any]:
    """Tasks take four times their lease: each runs once, for it is renewed, while children and workers die."""
    is_long = stage.scale >= 0.5
    seconds = 5.0 if is_long else 0.9
    redis = stage.redis()
    env = stage.env(redis.url, **lease(seconds))
    workers = [stage.worker(env, *QUICK_START, name=f"w{number}") for number in range(2)]
    long_tasks = stage.publish(env, "effect", 60 if is_long else 4, 4 * seconds, name="long")
    if not is_long:
        long_tasks.wait(60)
    stage.publish(env, "effect", stage.count, 0.002, name="short").wait(120)
    end = time.monotonic() + (180 if is_long else 0)
    last_kill = time.monotonic()
    while is_long and time.monotonic() < end:
        time.sleep(2)
        worker = stage.dice.choice(workers)
        stage.oracle.note_fault("kill")
        if time.monotonic() - last_kill > 15:
            last_kill = time.monotonic()
            worker.restart()
        elif children := worker.children():
            signal_one(stage.dice.choice(children))
    stage.wait_done(60 + 600 * stage.scale, quiet=4 * seconds + 8, settle=seconds + 0.5)
    figures = stage.check(sent=stage.count, **({"unexplained": 0} if is_long else {"extra": 0}))
    stage.check_is_quiet(redis, workers[0])
    return figures


def signal_one(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


# -- F24: rolling restarts -------------------------------------------------------------------------------------------


@scenario("F24", unprotected="unprotect.return=off", tasks=6_000, short=0.05)
def workers_are_replaced_in_turn(stage: Stage) -> dict[str, Any]:
    """TERM, a grace, KILL for the whole group, and a new worker, as Kubernetes does it: nothing runs twice."""
    is_long = stage.scale >= 0.5
    grace = 5.0
    redis = stage.redis()
    env = stage.env(redis.url, **lease())
    count = 3 if is_long else 2
    workers = [stage.worker(env, *QUICK_START, name=f"w{number}", wait=False) for number in range(count)]
    for worker in workers:
        worker.wait_ready()
    publishers = [stage.publish(env, "effect", stage.count, 0.01)]
    publishers.append(stage.publish(env, "effect", stage.count // 20, 0.5, name="long"))
    slowest = 0.0
    for number in range(stage.times(30, 3)):
        assert wait_for_progress(stage.directory / "effects", 10), "no worker works"
        worker = workers[number % count]
        stage.oracle.note_fault("replaced")
        began = time.monotonic()
        worker.signal(signal.SIGTERM)
        status = worker.wait(grace)
        slowest = max(slowest, time.monotonic() - began)
        assert status == 0, f"{worker.name} ended with {status}; {worker.text()[-1000:]}"
        holders = {tag.rpartition(b":")[0] for tag in redis.client.hkeys("unacked")}
        assert len(holders) < count, f"a worker that stopped still holds messages; {worker.log}"
        worker.kill_group()
        worker.start()
        if is_long:
            time.sleep(8 - min(grace, 8))
    for publisher in publishers:
        publisher.wait(120)
    for worker in workers:
        worker.wait_ready()
    stage.wait_done(60 + 120 * stage.scale, settle=LEASE_SECONDS + 0.5)
    figures = stage.check(extra=0)
    stage.check_is_quiet(redis, workers[0])
    return {**figures, "slowest stop s": round(slowest, 2)}


# -- F27: schedules --------------------------------------------------------------------------------------------------

DELAYED = """
import sys, time, faultapp
count, first, last = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
with faultapp.app.producer_or_acquire() as producer:
    for number in range(count):
        faultapp.effect.apply_async((0,), countdown=first + (last - first) * number / count, producer=producer)
"""


@scenario("F27", unprotected="unprotect.park=off", tasks=1_000_000, short=0.001)
def a_million_are_scheduled(stage: Stage) -> dict[str, Any]:
    """A great many tasks wait for their time: the worker's memory is flat; its death and the broker's lose none."""
    is_long = stage.scale >= 0.5
    redis = stage.redis(options=("--appendonly", "yes", "--appendfsync", "everysec"))
    env = stage.env(redis.url, **lease(30 if is_long else LEASE_SECONDS))
    worker = stage.worker(env, *QUICK_START)
    stage.publish(env, "effect", 100, 0.0).wait(60)
    stage.wait_done(30)
    before = worker.memory()
    count = int(stage.scenario.tasks * stage.scale)
    run_script(DELAYED, env, count, 3600, 3600, seconds=7200)
    wait_until(lambda: redis.client.hlen("celery.delayed") == count, 30 if is_long else 8, f"{count} to be parked")
    grown = (worker.memory() - before) / MB
    assert grown < 20, f"the worker grew by {grown:.0f} MB with {count} delayed tasks"
    soon = 10_000 if is_long else 100
    first, last = (30.0, 90.0) if is_long else (5.0, 7.0)
    publisher = stage.publish({**env, "FAULT_COUNTDOWN": f"{first},{last}"}, "effect", soon, 0.0, name="soon")
    publisher.wait(300)
    wait_until(lambda: redis.client.hlen("celery.delayed") >= count + soon * 0.9, 60, "those to be parked, too")
    stage.oracle.note_fault("kill group, restart the server")
    worker.kill_group()
    time.sleep(1.1)  # what was written is on disk
    redis.kill()
    redis.start()
    worker.start()
    worker.wait_ready(60)
    ready = time.monotonic()
    stage.wait_done(60 + last, quiet=last + 5)
    figures = stage.check(sent=soon)
    early, late = punctuality(stage, ready + 0.5)
    assert early <= 0.0, f"a task began {early:.3f} s too early"
    assert late <= 1.0, f"{late:.2f} s late (p99)"
    began = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.wait(5) == 0
    stopped = time.monotonic() - began
    assert redis.client.hlen("celery.delayed") == count, "what is delayed is not all there"
    return {
        **figures,
        "delayed": count,
        "grown MB": round(grown, 1),
        "p99 late s": round(late, 3),
        "stop s": round(stopped, 2),
    }


def punctuality(stage: Stage, since: float) -> tuple[float, float]:
    """Return by how many seconds the earliest task was early, and how late 99 % of those due after ``since`` were."""
    runs = stage.oracle.executions()
    lines = (line.split() for line in (stage.directory / "due").read_text().splitlines())
    lateness = {task_id: (runs[task_id][0].start / 1e9 - float(due), float(due)) for task_id, due in lines}
    late = sorted(seconds for seconds, due in lateness.values() if due > since)
    assert late, "no task was due after the restart"
    return -min(seconds for seconds, _ in lateness.values()), late[math.ceil(len(late) * 0.99) - 1]


# -- F38: revokes ----------------------------------------------------------------------------------------------------

QUEUE_AND_REVOKE = """
import json, sys, faultapp
results = [faultapp.effect.delay(0.0) for _ in range(int(sys.argv[1]))]
ids = [result.id for result in results]
faultapp.app.control.revoke(ids[::2])
print(json.dumps(ids))
"""


@scenario("F38", unprotected="unprotect.revokes=off", tasks=10_000, short=0.04)
def tasks_are_revoked_while_nobody_works(stage: Stage) -> dict[str, Any]:
    """Half of the queue is revoked while all workers are down: none of that runs, however often they restart."""
    redis = stage.redis()
    env = stage.env(redis.url, redis.url, **lease(1))
    ids = json.loads(run_script(QUEUE_AND_REVOKE, env, stage.count))
    revoked, wanted = set(ids[::2]), set(ids[1::2])
    worker = stage.worker(env, *QUICK_START)
    for _ in range(2):
        time.sleep(0.1)
        stage.oracle.note_fault("restart")
        worker.restart()
        worker.wait_ready()
    deadline = time.monotonic() + 60
    while not wanted <= stage.oracle.done() and time.monotonic() < deadline:
        time.sleep(0.1)
    stage.check_is_quiet(redis, worker)
    ran = set(stage.oracle.executions())
    assert wanted <= ran, f"{len(wanted - ran)} others did not run"
    assert not ran & revoked, f"{len(ran & revoked)} revoked tasks ran"
    states = {(stored_result(redis.client, task_id) or {}).get("status") for task_id in revoked}
    assert states == {"REVOKED"}, f"states of the revoked: {states}"
    return {"revoked": len(revoked), "ran": len(ran)}


# -- F29: fairness and floods ----------------------------------------------------------------------------------------


@scenario("F29", unprotected="unprotect.fair=off", tasks=1_800_000, short=0.0003)
def a_long_task_among_short_ones(stage: Stage) -> dict[str, Any]:
    """One long task among short ones keeps none of them waiting; a flood leaves the worker's memory alone."""
    redis = stage.redis()
    grown, waiting = (flooded if stage.scale >= 0.5 else crowded)(stage, redis)
    stage.wait_done(60 + 7200 * stage.scale, quiet=20)
    figures = stage.check(sent=stage.count, extra=0)
    assert grown < 10 * MB, f"the worker grew by {grown / MB:.0f} MB with {waiting} messages waiting"
    return {**figures, "waiting": waiting, "grown MB": round(grown / MB, 1)}


def flooded(stage: Stage, redis: OwnRedis) -> tuple[int, int]:
    """Send 3,000 a second to a worker that does 300; return by how much it grew and how many waited then."""
    env = stage.env(redis.url, **lease())
    stage.publish(env, "effect", 200, 0.0, name="known to be short").wait(60)
    stage.publish(env, "waits", 1, 60.0, name="long").wait(60)
    worker = stage.worker(env, *QUICK_START)
    before = worker.memory()
    stage.publish(env, "effect", stage.count, 0.0066, name="flood").wait(1800)
    return worker.memory() - before, redis.client.llen("celery")


def crowded(stage: Stage, redis: OwnRedis) -> tuple[int, int]:
    """Have short tasks wait behind a long one in its child, and see them run before it ends; return as `flooded` does.

    Which these are is left to no chance: while they are dealt out the children stand still, and nobody is taken for slow.
    """
    env = stage.env(redis.url, failpoints="pool.all_are_short=off", **lease())
    worker = stage.worker(env, *QUICK_START)
    before = worker.memory()
    children = worker.children()
    for child in children:
        os.kill(child, signal.SIGSTOP)
    stage.publish(env, "waits", 1, 60.0, name="long").wait(60)
    stage.publish(env, "effect", stage.count, 0.0, name="behind it").wait(60)
    waiting = redis.client.llen("celery")
    wait_until(lambda: worker.text().count(" received") >= 8, 10, "the worker to take as many as it may")
    time.sleep(0.3)  # it deals them out in the same turn
    for child in children:
        os.kill(child, signal.SIGCONT)
    delayed = still_waiting(stage)
    assert not delayed, f"{delayed} short tasks wait for the long one, beside an idle child"
    (stage.directory / "go on").touch()
    return worker.memory() - before, waiting


def still_waiting(stage: Stage) -> int:
    """Return how many tasks have not begun when nothing has gone on for a while."""

    def waiting() -> int:
        return len(set(stage.oracle.ids("sent")) - stage.oracle.executions().keys())

    while waiting() and wait_for_progress(stage.directory / "effects", 3 if stage.unprotected else 10):
        pass
    return waiting()


# -- F30: soaking ----------------------------------------------------------------------------------------------------

#: Growth of the resident memory that is allowed: bytes a task once the worker is warm, and what comes and goes.
SLOPE, TIDE = 10.0, 4 * MB

#: A round of a client: most tasks go well, some fail, are tried again, run into a limit, are revoked, are not known.
MIXTURE = """
import os, sys, faultapp
from faultapp import app, effect, fails, retries, sleeps
sent = open(os.path.join(faultapp.DIRECTORY, "sent"), "a")
for number in range(int(sys.argv[1])):
    queue = "second" if number % 2 else "celery"
    if number % 100 == 2:
        sleeps.apply_async(queue=queue, soft_time_limit=0.05)
    elif number % 100 == 4:
        app.send_task("no.such.task", queue=queue)
    elif number % 50 == 6:
        app.control.revoke(effect.apply_async((0.0,), countdown=1, queue=queue).id)
    else:
        task = fails if number % 20 == 0 else retries if number % 20 == 1 else effect
        arguments = (65536 if number % 40 else 10,) if task is fails else (0.0,)
        print(task.apply_async(arguments, queue=queue).id, file=sent)
"""

QUEUES = ("celery", "second")


@scenario("F30", tasks=500_000, short=0.003, long_only=True)
def everything_for_a_long_time(stage: Stage) -> dict[str, Any]:
    """Tasks that end in every way, on two queues, over lost connections: memory and descriptors stay as they are.

    ``SOAK_SECONDS`` in the environment says for how long to go on.
    """
    redis = stage.redis()
    env = stage.env(redis.url, redis.url, result_expires=60, worker_send_task_events=True, **lease())
    worker = stage.worker(env, *QUICK_START, "-Q", ",".join(QUEUES), "-E")
    rounds = stage.times(50, 4)
    per_round = stage.count // rounds
    figures: dict[str, list[int]] = {"parent": [], "children": [], "descriptors": []}
    until = time.monotonic() + float(os.environ.get("SOAK_SECONDS", 0))
    while len(figures["parent"]) < rounds or time.monotonic() < until:
        run_script(MIXTURE, env, per_round, seconds=900)
        wait_until(lambda: all_idle(redis), 900, "this round to be done")
        figures["parent"].append(worker.memory())
        figures["children"].append(sum(map(memory_of, worker.children())))
        figures["descriptors"].append(worker.descriptors())
        redis.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert worker.is_running(), f"the worker ended; {worker.log}"
    lost = stage.oracle.lost()
    assert not lost, f"{len(lost)} tasks were lost: {stage.oracle.tell(lost[:5])}"
    check_flat(figures, per_round)
    unknown = sum(len(redis.dead_letters(queue)) for queue in QUEUES)
    return {
        "tasks": per_round * len(figures["parent"]),
        "unknown": unknown,
        "parent MB": [value // MB for value in figures["parent"]],
        "children MB": [value // MB for value in figures["children"]],
        "descriptors": figures["descriptors"],
    }


def all_idle(redis: OwnRedis) -> bool:
    client = redis.client
    return not any(
        (*map(client.llen, QUEUES), client.hlen("unacked"), *(client.hlen(f"{queue}.delayed") for queue in QUEUES))
    )


def check_flat(figures: dict[str, list[int]], per_round: int) -> None:
    """Check that memory does not grow from the end of the first third on, and that descriptors are the same."""
    for name in ("parent", "children"):
        warm = figures[name][len(figures[name]) // 3 :]
        most = SLOPE * per_round * (len(warm) - 1) + TIDE
        grown = warm[-1] - min(warm[:2])
        assert grown <= most, f"the {name} grew by {grown / MB:.1f} MB: {[value // MB for value in figures[name]]}"
    descriptors = figures["descriptors"]
    assert max(descriptors[1:]) <= descriptors[0] + 2, f"descriptors: {descriptors}"
