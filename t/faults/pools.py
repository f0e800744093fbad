"""F22 and F23: time limits and shutdown, for every pool that comes with the worker."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

from actors import Worker
from messages import stored_result, task_message
from oracle import Oracle
from scenario import Stage, scenario
from servers import wait_until

POOLS = ("prefork", "threads", "solo")
QUICK = ("--without-mingle", "--without-gossip", "--without-heartbeat")

# -- F22 -------------------------------------------------------------------------------------------------------------

#: Seconds: the soft limit, the hard one, and how long the next task may take to start after it.
SOFT, HARD, NEXT_TASK = 0.5, 1.0, 2.0
SOFT_ENDS, HARD_ENDS, LOST = "SoftTimeLimitExceeded", "TimeLimitExceeded", "WorkerLostError"
SUCCESS = "SUCCESS"
#: Upstream: what cannot be pickled is stored as this, with its own name and text in it.
WRAPPED = "UnpickleableExceptionWrapper"
#: The worker itself ends, for the task runs in its process.
WORKER_ENDS = "the worker ends"

#: Task → what becomes of it: prefork, threads, solo.  Where a limit cannot be kept, the worker says so beforehand.
LIMITS: dict[str, tuple[str, str, str]] = {
    "loops": (SOFT_ENDS, SUCCESS, SOFT_ENDS),
    "sleeps": (SOFT_ENDS, SUCCESS, SOFT_ENDS),
    "blocks": (HARD_ENDS, SUCCESS, SOFT_ENDS),
    "swallows": (HARD_ENDS, SUCCESS, SUCCESS),
    "ignores_term": (HARD_ENDS, "ValueError", SUCCESS),  # only the main thread may set signals
    "raises_unpicklable": (WRAPPED, WRAPPED, WRAPPED),
    "exits": (LOST, LOST, LOST),
    "leaves_thread": (SUCCESS, SUCCESS, SUCCESS),
    "exits_hard": (LOST, WORKER_ENDS, WORKER_ENDS),
}


@scenario("F22", unprotected="unprotect.limits=off", tasks=60, short=0.1)
def time_limits(stage: Stage) -> dict[str, Any]:
    """Every pool keeps its time limits or says that it cannot; every task gets its state; the next one starts soon."""
    redis = stage.redis()
    slowest: dict[str, float] = {}

    def play(pool: str) -> str | None:
        number = POOLS.index(pool)
        url = f"{redis.url}/{number}"
        env = stage.env(url, url, directory=stage.directory / pool, task_acks_late=False)
        env["FAULT_SECONDS"] = "4" if pool == "prefork" else "1.5"
        worker = stage.worker(env, *QUICK, "-P", pool, "-c", "1")
        client = redis.database(number)
        for name, expected in LIMITS.items():
            wrong = play_limit(client, worker, name, expected[number], slowest, pool)
            if wrong:
                return f"{pool}, {name}: {wrong}; {worker.log}"
        if pool != "prefork" and "cannot enforce" not in worker.text():
            return f"{pool}: no word about limits that it cannot keep"
        return None

    wrong = stage.each(POOLS, play, at_once=3)
    assert not wrong, "\n".join(wrong)
    return {"tasks": len(LIMITS) * len(POOLS), "slowest next task s": slowest}


def play_limit(
    client: Any, worker: Worker, name: str, expected: str, slowest: dict[str, float], pool: str
) -> str | None:
    """Run one task against its limits and a ping behind it."""
    task_id, payload = task_message(f"faultapp.{name}", timelimit=[HARD, SOFT])
    client.lpush("celery", payload)
    if expected == WORKER_ENDS:
        status = worker.wait(10)
        worker.restart()
        worker.wait_ready()
        return None if status == 3 else f"exit status {status}"
    record = stored_result(client, task_id, 8)
    ended = time.monotonic()
    if record is None:
        return "no state"
    found = record["result"]["exc_type"] if record["status"] == "FAILURE" else record["status"]
    if found != expected:
        return f"{found} instead of {expected}"
    ping_id, payload = task_message("faultapp.ping")
    client.lpush("celery", payload)
    if stored_result(client, ping_id, 6) is None:
        return "no next task"
    took = time.monotonic() - ended
    slowest[pool] = max(slowest.get(pool, 0), round(took, 2))
    return None if took <= NEXT_TASK else f"{took:.1f} s until the next task"


# -- F23 -------------------------------------------------------------------------------------------------------------

RUN_SECONDS, GRACE = 1.0, 2.0
IDLE, RUNNING, PREFETCHED = "idle", "running", "prefetched"
WAITING = 20
WARM, COLD, RESTART = "warm", "cold", "restart"
#: Signals sent, and the kind of stop that they ask for.
STOPS = {
    "TERM": ((signal.SIGTERM,), WARM),
    "INT": ((signal.SIGINT,), WARM),
    "TERM TERM": ((signal.SIGTERM, signal.SIGTERM), WARM),
    "QUIT": ((signal.SIGQUIT,), COLD),
    "INT INT": ((signal.SIGINT, signal.SIGINT), COLD),
    "HUP": ((signal.SIGHUP,), RESTART),
}


class Stop(NamedTuple):
    """One cell: a pool, what it does just then, what it is told, and when it acknowledges."""

    pool: str
    state: str
    signals: str
    late: bool

    def __str__(self) -> str:
        return f"{self.pool}, {self.state}, {self.signals}, {'late' if self.late else 'early'} acknowledgement"


def all_stops() -> list[Stop]:
    stops = [
        Stop(pool, state, name, True)
        for pool in POOLS
        for state in (IDLE, RUNNING, PREFETCHED)
        for name in STOPS
        if state != IDLE or len(STOPS[name][0]) == 1  # the second would meet an interpreter that ends already
    ]
    # What was acknowledged and is ended by force is lost, as everybody knows who asks for that; so warm stops only.
    early = [Stop(pool, state, "TERM", False) for pool in POOLS for state in (RUNNING, PREFETCHED)]
    return stops + early


@scenario("F23", unprotected="unprotect.return=off", tasks=60, short=0.12)
def shutdown(stage: Stage) -> dict[str, Any]:
    """Every pool, whatever it does, stops in time and with the right status; nothing is lost, nothing done twice."""
    redis = stage.redis(options=("--databases", "200"))
    numbers = iter(range(200))
    slowest: dict[str, float] = {}

    def play(stop: Stop) -> str | None:
        number = next(numbers)
        url = f"{redis.url}/{number}"
        conf = {
            "broker_transport_options": {"lease_ttl": 30},
            "worker_prefetch_multiplier": 8,
            "task_acks_late": stop.late,
        }
        env = stage.env(url, "", directory=stage.directory / f"cell-{number}", **conf)
        worker = stage.worker(env, *QUICK, "-P", stop.pool, "-c", "2")
        wrong = play_stop(redis.database(number), worker, stop, slowest)
        worker.kill_group()
        return f"{stop}: {wrong}; {worker.log}" if wrong else None

    everything = all_stops()
    # These show most; the others of a short run are the dice's.
    chosen = [stop for stop in everything if stop[1:] == (PREFETCHED, "TERM", True)]
    others = [stop for stop in everything if stop not in chosen]
    many = max(4, int(len(others) * stage.scale))
    chosen += others if stage.scale >= 1 else stage.dice.sample(others, many)
    wrong = stage.each(chosen, play, at_once=4)
    assert not wrong, f"{len(wrong)} of {len(chosen)}:\n" + "\n".join(wrong) + f"\nseed {stage.seed}"
    return {"cells": len(chosen), "slowest stop after the last task s": slowest}


def play_stop(client: Any, worker: Worker, stop: Stop, slowest: dict[str, float]) -> str | None:
    """Bring the worker into the state, send the signals, and account for every task."""
    directory = Path(worker.env["FAULT_DIR"])
    count = {IDLE: 0, RUNNING: 1 if stop.pool == "solo" else 2, PREFETCHED: WAITING}[stop.state]
    sent = [task_message("faultapp.effect", [RUN_SECONDS]) for _ in range(count)]
    if sent:
        client.lpush("celery", *(payload for _, payload in sent))
        wait_until(lambda: (directory / "effects").exists(), 5, "the first task")
        time.sleep(0.2)
    signals, kind = STOPS[stop.signals]
    began, mark = time.monotonic(), len(worker.text())
    for number, signum in enumerate(signals):
        if number:
            time.sleep(0.2)
        worker.signal(signum)
    most = GRACE + (RUN_SECONDS if kind != COLD or stop.pool == "solo" else 0.0)
    if kind == RESTART:
        worker.mark = mark
        worker.wait_ready(most + 10)
        worker.signal(signal.SIGTERM)
        most += 10
    try:
        status = worker.wait(most + 2)
    except subprocess.TimeoutExpired:
        return f"still there after {most + 2} s"
    took = time.monotonic() - began
    if took > most:
        return f"{took:.1f} s to stop"
    if kind != RESTART:
        slowest[stop.pool] = max(slowest.get(stop.pool, 0.0), round(took - (most - GRACE), 2))
    # Upstream: a warm stop that a second signal makes cold may end with either.
    if status not in ((0, 1) if stop.signals == "INT INT" else (1,) if kind == COLD else (0,)):
        return f"exit status {status}"
    return account_for(client, directory, {task_id for task_id, _ in sent}, kind)


def account_for(client: Any, directory: Path, sent: set[str], kind: str) -> str | None:
    """Return what is wrong: each task is done, or back in the queue, and never both."""
    runs = Oracle(directory).executions()
    done = {task_id for task_id, each in runs.items() if any(run.end for run in each)}
    back = [json.loads(payload)["headers"]["id"] for payload in client.lrange("celery", 0, -1)]
    if client.hlen("unacked"):
        return f"{client.hlen('unacked')} still held"
    if len(back) != len(set(back)):
        return "put back twice"
    if done & set(back):
        return f"{len(done & set(back))} done and put back"
    if sent - done - set(back):
        return f"{len(sent - done - set(back))} of {len(sent)} lost"
    cut = [task_id for task_id, each in runs.items() if task_id not in done]
    if kind == WARM and cut:
        return f"{len(cut)} cut off by a warm stop"
    twice = [task_id for task_id, each in runs.items() if len(each) > 1]
    return f"{len(twice)} begun twice" if twice and kind != RESTART else None
