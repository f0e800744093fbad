"""Faults with Redis as the broker: processes, connections and servers that die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from actors import PEER_PYTHON, QUICK_START, Worker, wait_for_progress
from messages import stored_result, task_message
from poisons import check_reasons
from scenario import Skipped, Stage, is_root, scenario
from servers import OwnRedis, wait_until

#: Short, so that a dead worker's messages come back while the test waits.
LEASE_SECONDS = 2


def lease(seconds: float = LEASE_SECONDS, **options: Any) -> dict[str, Any]:
    return {"broker_transport_options": {"lease_ttl": seconds, **options}}


def leased_ids(redis: OwnRedis) -> set[str]:
    """Return the ids of the tasks whose messages somebody holds."""
    return {json.loads(record)[0]["headers"]["id"] for record in redis.client.hvals("unacked")}


def slowest_return(stage: Stage, held: set[str], since: float) -> float:
    """Return how long after ``since`` the last of ``held`` began again (or for the first time)."""
    runs = stage.oracle.executions()
    starts = [min((run.start / 1e9 for run in runs[i] if run.start / 1e9 > since), default=since) for i in held]
    return max(starts, default=since) - since


# -- F01, F02: processes die -----------------------------------------------------------------------------------------


@scenario("F01", unprotected="unprotect.lease=off")
def sigkill_of_the_process_group(stage: Stage) -> dict[str, Any]:
    """The worker and its children are killed again and again, at any moment, once in the midst of recovering."""
    redis = stage.redis()
    env = stage.env(redis.url, failpoints=f"sweep.after_read=kill,once={stage.directory}/swept", **lease())
    publisher = stage.publish(env, "effect", stage.count, 0.005)
    worker = stage.worker(env, *QUICK_START)
    hits = kill_again_and_again(stage, redis, worker, stage.times(32, 5))
    held = leased_ids(redis)
    began = time.monotonic()
    worker.start()
    worker.wait_ready()
    started_in = time.monotonic() - began
    publisher.wait(120)
    stage.wait_done(60 + 120 * stage.scale, settle=LEASE_SECONDS + 0.5, keep_alive=worker)
    figures = stage.check(unexplained=0)
    most = max(stage.oracle.extras_by_fault().values(), default=0)
    assert most <= 2, f"{most} executions cut off by one fault, more than slots; {stage.where('extra')}"
    slowest = slowest_return(stage, held, stage.oracle.faults[-1].when / 1e9)
    most = LEASE_SECONDS + 2 + started_in
    assert slowest <= most, f"{slowest:.1f} s > {most:.1f} s until the last message came back; seed {stage.seed}"
    stage.check_is_quiet(redis, worker)
    return {**figures, "hits": hits, "slowest return s": round(slowest, 2)}


def kill_again_and_again(stage: Stage, redis: OwnRedis, worker: Worker, kills: int, kind: str = "kill group") -> int:
    """Kill and restart ``worker``; the last time it stays dead.  Returns how often it was at work then.

    Ends early when nothing is left to do.
    """
    effects = stage.directory / "effects"
    hits = 0
    for number in range(kills):
        if number:
            worker.start()
        deadline = time.monotonic() + 6
        while worker.is_running() and time.monotonic() < deadline:
            if wait_for_progress(effects, 0.1):
                hits += 1
                time.sleep(stage.dice.uniform(0.02, 0.7))
                break
            if number and not redis.client.llen("celery") and not redis.client.hlen("unacked"):
                number = kills  # nothing is left that could be hit
                break
        stage.oracle.note_fault(kind)
        worker.kill_group()
        stage.oracle.note_struck()
        if number == kills:
            break
    assert hits >= min(3, kills), f"only {hits} of {kills} kills hit a working worker; {stage.where('hits')}"
    return hits


@scenario("F02", unprotected="unprotect.redispatch=off", tasks=50_000)
def sigkill_of_a_child(stage: Stage) -> dict[str, Any]:
    """A random child is killed; its parent goes on, and replaces it within a second."""
    redis = stage.redis()
    env = stage.env(redis.url, **lease())
    worker = stage.worker(env, *QUICK_START)
    before = worker.descriptors()
    publisher = stage.publish(env, "effect", stage.count, 0.0003)
    slowest, hits = 0.0, 0
    for _ in range(stage.times(80, 8)):
        hits += wait_for_progress(stage.directory / "effects", 2)
        time.sleep(stage.dice.uniform(0.05, 0.2))
        children = worker.children()
        if not children:
            continue
        stage.oracle.note_fault("kill child")
        victim = stage.dice.choice(children)
        os.kill(victim, signal.SIGKILL)
        stage.oracle.note_struck()
        began = time.monotonic()
        while len(set(worker.children()) - {victim}) < 2 and time.monotonic() - began < 5:
            time.sleep(0.01)
        slowest = max(slowest, time.monotonic() - began)
    publisher.wait(120)
    stage.wait_done(60 + 60 * stage.scale, quiet=2 * LEASE_SECONDS)
    assert worker.is_running(), f"the parent ended; {worker.log}"
    figures = stage.check(unexplained=0)
    assert hits >= 4, f"only {hits} kills hit a working pool"
    assert slowest <= 1.0, f"a replacement took {slowest:.1f} s"
    stage.check_is_quiet(redis, worker)
    after = worker.descriptors()
    assert after <= before + 2, f"descriptors grew from {before} to {after}"
    return {**figures, "hits": hits, "slowest replacement s": round(slowest, 2)}


# -- F04, F05: connections and servers die ---------------------------------------------------------------------------


@scenario("F04", unprotected="unprotect.confirm=off")
def sigkill_of_the_server(stage: Stage) -> dict[str, Any]:
    """Redis is killed and comes back, while a publisher and a worker use it."""
    redis = stage.redis(durable=True)
    env = stage.env(redis.url, **lease())
    worker = stage.worker(env, *QUICK_START)
    publisher = stage.publish({**env, "FAULT_RETRY": "", "FAULT_PACE": "0.001"}, "effect", stage.count, 0.001)
    slowest = 0.0
    for number in range(stage.times(12, 3)):
        if not wait_for_progress(stage.directory / "effects", 8):
            break
        time.sleep(stage.dice.uniform(0.1, 0.5))
        if number % 2 == 0:  # first it does not answer any more, then it dies
            redis.signal(signal.SIGSTOP)
            time.sleep(0.05)
        stage.oracle.note_fault("kill server")
        redis.kill()
        time.sleep(0.3 if stage.scale < 0.5 else 1.0)
        size = (stage.directory / "effects").stat().st_size
        redis.start()
        began = time.monotonic()
        if publisher.is_running() or stage.oracle.lost():
            wait_for_progress(stage.directory / "effects", 2 if stage.unprotected else 8, size)
            slowest = max(slowest, time.monotonic() - began)
        assert worker.is_running(), f"the worker ended; {worker.log}"
    publisher.wait(180)
    stage.wait_done(60 + 60 * stage.scale, settle=LEASE_SECONDS + 0.5)
    assert worker.is_running(), f"the worker ended; {worker.log}"
    figures = stage.check(sent=int(stage.count * 0.8), unexplained=0)
    assert figures["faults"] >= 2, "the load ended before the faults"
    assert slowest <= 5.0, f"{slowest:.1f} s until the worker worked again"
    stage.check_is_quiet(redis, worker)
    call = float(publisher.text().rpartition("slowest call: ")[2].split()[0])
    assert call <= 15, f"a publication took {call} s"
    return {**figures, "slowest recovery s": round(slowest, 2), "slowest publication s": call}


@scenario("F05", unprotected="unprotect.adoption=off", tasks=5_000)
def connections_are_cut(stage: Stage) -> dict[str, Any]:
    """The server closes connections, all kinds of them; one worker runs nothing twice."""
    redis = stage.redis()
    env = stage.env(redis.url, redis.url, **lease())
    worker = stage.worker(env)
    answers_control_and_results(redis, worker)  # the first answers open connections that stay
    before = worker.open_files()
    once = {**env, "FAULT_RETRY": ""}
    publisher = stage.publish(once, "effect", stage.count, 0.02)
    others = stage.publish(once, "effect", stage.count // 25, 0.4, name="publisher2")  # run on while we reconnect
    hits = 0
    for number in range(stage.times(30, 6)):
        hits += wait_for_progress(stage.directory / "effects", 6)
        time.sleep(stage.dice.uniform(0.02, 0.3) * (3 if stage.scale >= 0.5 else 1))
        stage.oracle.note_fault(cut(redis, number))
        assert worker.is_running(), f"the worker ended; {worker.log}"
    publisher.wait(120)
    others.wait(120)
    stage.wait_done(60 + 60 * stage.scale, settle=LEASE_SECONDS + 0.5)
    figures = stage.check(sent=int(stage.count * 0.8), extra=0)
    assert hits >= 4, f"only {hits} cuts hit a working worker"
    stage.check_is_quiet(redis, worker)
    answers_control_and_results(redis, worker)
    untold = [task_id for task_id in stage.oracle.done() if not is_stored_as(redis, task_id, "SUCCESS")]
    assert not untold, f"{len(untold)} tasks were done and are not SUCCESS: {untold[:5]}; seed {stage.seed}"
    try:
        wait_until(lambda: worker.open_files().total() <= before.total() + 2, 5, "as few open files as before")
    except TimeoutError as error:
        raise AssertionError(f"more files open: {worker.open_files() - before}; {worker.log}") from error
    return {**figures, "hits": hits}


def cut(redis: OwnRedis, number: int) -> str:
    """Cut connections in one of three ways; returns which."""
    if number % 3 == 1:
        redis.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        return "kill pubsub"
    if number % 3 == 2 and is_root():
        others = [c for c in redis.client.client_list() if c["name"] != "harness"]
        if others:
            port = others[number % len(others)]["addr"].rpartition(":")[2]
            command = ["ss", "-K", "dst", "127.0.0.1", "dport", "=", f":{port}"]
            subprocess.run(command, capture_output=True, timeout=10, check=False)
            return "reset one"
    redis.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    return "kill normal"


def is_stored_as(redis: OwnRedis, task_id: str, state: str) -> bool:
    record = stored_result(redis.client, task_id)
    return record is not None and record["status"] == state


def answers_control_and_results(redis: OwnRedis, worker: Worker) -> None:
    """Check that ``inspect ping`` is answered, and that a task's result arrives."""
    assert worker.pings(), f"no answer to a ping; {worker.log}"
    task_id, payload = task_message("faultapp.ping")
    redis.client.lpush("celery", payload)
    record = stored_result(redis.client, task_id, 3)
    assert record is not None, "no result of a task after the faults"
    assert record["result"] == "pong", record


# -- F20: poison -----------------------------------------------------------------------------------------------------


@scenario("F20", unprotected="unprotect.count=off", tasks=10_000)
def poison_is_set_aside(stage: Stage) -> dict[str, Any]:
    """A task that kills what runs it is tried three times, then set aside with the reason; all others finish."""
    redis = stage.redis()
    env = stage.env(redis.url, redis.url, **lease(1))
    worker = stage.worker(env, *QUICK_START)
    group = limited_memory(stage, worker)
    publisher = stage.publish(env, "effect", stage.count, 0.001)
    poisons: dict[str, tuple[str, str]] = {}
    deadline = time.monotonic() + 60

    def send(name: str, args: list[Any], cause: str) -> None:
        task_id, payload = task_message(f"faultapp.{name}", args)
        redis.client.rpush("celery", payload)
        poisons[task_id] = f"{name}{args}", cause

    def wait_for_dead_letters() -> None:
        while len(redis.dead_letters()) < len(poisons) and time.monotonic() < deadline:
            runs = stage.oracle.executions()
            if any(len(runs[task_id]) > 3 for task_id in poisons):
                return  # once too often: that will be found
            if not worker.is_running():
                stage.oracle.note_fault("the worker was killed")
                worker.restart()
            time.sleep(0.02)

    for signum, cause in ((signal.SIGKILL, "signal 9"), (signal.SIGSEGV, "signal 11"), (signal.SIGABRT, "signal 6")):
        send("poison", [int(signum)], cause)
        stage.oracle.note_fault(cause)
        time.sleep(0.1)
    if group:
        send("glutton", [1000], "signal 9")
    wait_for_dead_letters()
    send("poison_group", [], "worker was lost")
    wait_for_dead_letters()
    publisher.wait(60)
    stage.dead = set(poisons)
    stage.wait_done(30)
    # Beside one that kills the worker at once, tasks that run all the while: they are innocent.
    bystanders = [task_message("faultapp.effect", [1.2]) for _ in range(2)]
    redis.client.rpush("celery", *(payload for _, payload in bystanders))
    send("poison_worker", [], "worker was lost")
    wait_for_dead_letters()
    runs = stage.oracle.executions()
    found = {name: len(runs[task_id]) for task_id, (name, _) in poisons.items()}
    assert max(found.values()) <= 3, f"{found}; seed {stage.seed}"
    reasons = {each["headers"]["id"]: each["reason"] for each in redis.dead_letters()}
    check_reasons(poisons, reasons, "3", redis.client)
    stage.dead = set(poisons)
    stage.wait_done(30, settle=1.5)

    def all_came_to_their_end() -> bool:
        runs = stage.oracle.executions()
        return all(any(run.end for run in runs[task_id]) for task_id, _ in bystanders)

    wait_until(all_came_to_their_end, 30, "the end of every bystander")
    runs = stage.oracle.executions()
    figures = {
        "sent": len(stage.oracle.ids("sent")),
        "lost": len(stage.oracle.lost(stage.dead)),
        "unexplained": len(set(stage.oracle.unexplained()) - set(poisons) - {task_id for task_id, _ in bystanders}),
        "deliveries": {name: len(runs[task_id]) for task_id, (name, _) in poisons.items()},
        "memory cgroup": "yes" if group else "skipped: no cgroup v1, or not root",
    }
    assert figures["sent"] == stage.count, f"only {figures['sent']} sent"
    assert figures["lost"] == 0, f"{figures['lost']} lost; {stage.where('lost')}"
    assert figures["unexplained"] == 0, f"{figures['unexplained']} unexplained; {stage.where('unexplained')}"
    stage.check_is_quiet(redis, worker, dead=len(poisons))
    return figures


def limited_memory(stage: Stage, worker: Worker) -> str:
    """Put the worker under a limit of 200 MB; returns the group, or nothing where that cannot be."""
    parent = "/sys/fs/cgroup/memory"
    if not is_root() or not os.path.exists(f"{parent}/memory.limit_in_bytes"):
        return ""
    path = f"{parent}/faults-{os.getpid()}-{stage.seed}"
    try:
        os.mkdir(path)
        Path(f"{path}/memory.limit_in_bytes").write_text(str(200 << 20))
        for pid in (worker.pid, *worker.children()):
            Path(f"{path}/cgroup.procs").write_text(str(pid))
    except OSError:
        return ""

    def remove() -> None:
        wait_until(lambda: not Path(f"{path}/cgroup.procs").read_text(), 5, "the group to be empty")
        os.rmdir(path)

    # The house is left in reverse order, and the worker entered before.
    stage.house.callback(lambda: (worker.kill_group(), remove()))
    return path


# -- F40: a mixed fleet ----------------------------------------------------------------------------------------------


@scenario("F40", unprotected="unprotect.peers=off", tasks=4_000)
def mixed_with_the_incumbent(stage: Stage) -> dict[str, Any]:
    """Celery's clients and workers share a queue with ours while ours are killed; nothing of theirs is handed out."""
    if not PEER_PYTHON:
        raise Skipped("PEER_PYTHON names no interpreter with Celery 5.7")
    redis = stage.redis()
    env = stage.env(redis.url, **lease())
    theirs = stage.env(redis.url)
    peer = stage.worker(theirs, python=PEER_PYTHON, name="peer")
    # What it holds for longer than our leases last.
    slow = [task_message("faultapp.effect", [LEASE_SECONDS * 4]) for _ in range(2)]
    redis.client.lpush("celery", *(payload for _, payload in slow))
    wait_until(lambda: redis.client.hlen("unacked") == 2 and redis.client.llen("celery") == 0, 10, "the peer to take")
    with open(stage.directory / "sent", "a") as sent:
        sent.writelines(f"{task_id}\n" for task_id, _ in slow)
    worker = stage.worker(env, *QUICK_START)
    time.sleep(LEASE_SECONDS)  # it looks for expired leases meanwhile
    ours = stage.publish(env, "effect", stage.count // 2, 0.005)
    publisher = stage.publish(theirs, "effect", stage.count // 2, 0.005, name="peer-publisher", python=PEER_PYTHON)
    hits = kill_again_and_again(stage, redis, worker, stage.times(16, 4))
    worker.start()
    ours.wait(120)
    publisher.wait(120)
    stage.wait_done(60 + 120 * stage.scale, settle=LEASE_SECONDS + 0.5)
    figures = stage.check(sent=stage.count, unexplained=0)
    workers = pids_by_parent(stage, peer)
    assert workers["peer"], "the peer ran nothing"
    assert workers["ours"], "we ran nothing"
    runs = stage.oracle.executions()
    twice = [task_id for task_id, _ in slow if len(runs[task_id]) > 1]
    assert not twice, f"tasks that the peer held were handed out: {twice}"
    stage.check_is_quiet(redis, worker)
    return {**figures, "hits": hits, **workers}


def pids_by_parent(stage: Stage, peer: Worker) -> dict[str, int]:
    """Return how many executions were whose."""
    children = set(peer.children())
    runs = [run for each in stage.oracle.executions().values() for run in each]
    by_peer = sum(run.pid in children for run in runs)
    return {"peer": by_peer, "ours": len(runs) - by_peer}
