"""F22 and F23: time limits and shutdown, for every pool that comes with the worker."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

from actors import Worker
from messages import stored_result, task_message
from oracle import Oracle
from scenario import Stage, scenario
from servers import OwnRedis, wait_until

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

#: Pools that a process has to be patched for.
GREEN_POOLS = tuple(name for name in ("gevent", "eventlet") if importlib.util.find_spec(name) is not None)

#: Task → what becomes of it: prefork, threads, solo, gevent and eventlet.
LIMITS: dict[str, tuple[str, str, str, str]] = {
    "loops": (SOFT_ENDS, SOFT_ENDS, SOFT_ENDS, HARD_ENDS),  # a green one never waits: both are over when it ends
    "sleeps": (SOFT_ENDS, HARD_ENDS, SOFT_ENDS, SOFT_ENDS),  # nothing wakes a thread; it is given up
    "blocks": (HARD_ENDS, HARD_ENDS, HARD_ENDS, HARD_ENDS),
    "swallows": (HARD_ENDS, HARD_ENDS, HARD_ENDS, HARD_ENDS),
    "ignores_term": (HARD_ENDS, "ValueError", HARD_ENDS, HARD_ENDS),  # only the main thread may set signals
    "raises_unpicklable": (WRAPPED, WRAPPED, WRAPPED, WRAPPED),
    "exits": (LOST, LOST, LOST, LOST),
    "leaves_thread": (SUCCESS, SUCCESS, SUCCESS, SUCCESS),
    "exits_hard": (LOST, WORKER_ENDS, WORKER_ENDS, WORKER_ENDS),
}


@scenario("F22", unprotected="unprotect.limits=off", tasks=60, short=0.1)
def time_limits(stage: Stage) -> dict[str, Any]:
    """Every pool keeps its time limits; every task gets its state, and keeps it; the next one starts soon."""
    redis = stage.redis()
    slowest: dict[str, float] = {}
    pools = [*POOLS, *GREEN_POOLS]

    def play(pool: str) -> str | None:
        number = pools.index(pool)
        url = f"{redis.url}/{number}"
        env = stage.env(url, url, directory=stage.directory / pool, task_acks_late=False)
        env["FAULT_SECONDS"] = "4" if pool == "prefork" else "2.5"
        worker = stage.worker(env, *QUICK, "-P", pool, "-c", "1")
        client = redis.database(number)
        states: dict[str, str] = {}
        for name, expected in LIMITS.items():
            wrong = play_limit(client, worker, name, expected[min(number, 3)], slowest, pool, states)
            if wrong:
                return f"{pool}, {name}: {wrong}; {worker.log}"
        changed = [task_id for task_id, state in states.items() if state_of(stored_result(client, task_id)) != state]
        return f"{pool}: {len(changed)} states were overwritten later; {worker.log}" if changed else None

    wrong = stage.each(pools, play, at_once=3)
    assert not wrong, "\n".join(wrong)
    return {"cells": len(LIMITS) * len(pools), "slowest next task s": slowest}


def state_of(record: dict[str, Any] | None) -> str:
    """Return the state of a stored record, for a failure the exception's name."""
    if record is None:
        return "nothing"
    return str(record["result"]["exc_type"] if record["status"] == "FAILURE" else record["status"])


def play_limit(
    client: Any,
    worker: Worker,
    name: str,
    expected: str,
    slowest: dict[str, float],
    pool: str,
    states: dict[str, str],
) -> str | None:
    """Run one task against its limits and a ping behind it; notes the task's state in ``states``."""
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
    found = states[task_id] = state_of(record)
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
BROKER_DOWN, BACKEND_DOWN = "broker down", "backend down"
#: Tasks sent, of which two slots times this multiplier are prefetched.
WAITING, MULTIPLIER = 110, 50
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
    pools = (*POOLS, *GREEN_POOLS)
    stops = [
        Stop(pool, state, name, True)
        for pool in pools
        for state in (IDLE, RUNNING, PREFETCHED, BROKER_DOWN, BACKEND_DOWN)
        for name in STOPS
        if state != IDLE or len(STOPS[name][0]) == 1  # the second would meet an interpreter that ends already
        if state != BROKER_DOWN or name != "HUP"  # nobody gets ready without a broker
    ]
    # What was acknowledged and is ended by force is lost, as everybody knows who asks for that; so warm stops only.
    early = [Stop(pool, state, "TERM", False) for pool in pools for state in (RUNNING, PREFETCHED)]
    return stops + early


@scenario("F23", unprotected="unprotect.return=off", tasks=60, short=0.07)
def shutdown(stage: Stage) -> dict[str, Any]:
    """Every pool, whatever it does, stops in time and with the right status; nothing is lost, nothing done twice."""
    redis = stage.redis(options=("--databases", "400"))
    numbers = iter(range(400))
    slowest: dict[str, float] = {}

    def play(stop: Stop) -> str | None:
        number = next(numbers)
        directory = stage.directory / f"cell-{number}"
        with ExitStack() as house:
            broker, backend, client = f"{redis.url}/{number}", "", redis.database(number)
            fault = None
            if stop.state in (BROKER_DOWN, BACKEND_DOWN):
                own = house.enter_context(closing(OwnRedis(directory, durable=True)))
                fault = own
                if stop.state == BROKER_DOWN:
                    broker, client = own.url, own.client
                else:
                    backend = own.url
            conf = {
                "broker_transport_options": {"lease_ttl": 30},
                "worker_prefetch_multiplier": MULTIPLIER,
                "task_acks_late": stop.late,
            }
            env = stage.env(broker, backend, directory=directory, **conf)
            worker = stage.worker(env, *QUICK, "-P", stop.pool, "-c", "2")
            house.callback(worker.kill_group)
            wrong = play_stop(client, worker, stop, slowest, fault)
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


def play_stop(
    client: Any, worker: Worker, stop: Stop, slowest: dict[str, float], victim: OwnRedis | None = None
) -> str | None:
    """Bring the worker into the state, kill ``victim``, send the signals, and account for every task."""
    directory = Path(worker.env["FAULT_DIR"])
    count = {IDLE: 0, PREFETCHED: WAITING}.get(stop.state, 1 if stop.pool == "solo" else 2)
    sent = [task_message("faultapp.effect", [RUN_SECONDS]) for _ in range(count)]
    if sent:
        client.lpush("celery", *(payload for _, payload in sent))
        wait_until(lambda: (directory / "effects").exists(), 5, "the first task")
        time.sleep(0.2)
    if victim is not None:
        victim.kill()
        time.sleep(0.3)
    signals, kind = STOPS[stop.signals]
    began, mark = time.monotonic(), len(worker.text())
    for number, signum in enumerate(signals):
        if number:
            time.sleep(0.2)
        worker.signal(signum)
    most = GRACE + (RUN_SECONDS if kind != COLD or stop.pool == "solo" else 0.0)
    if victim is not None:
        most += 1.0  # what is away is asked once more
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
    if status != (1 if kind == COLD or stop.signals == "INT" else 0):
        return f"exit status {status}"
    ids = {task_id for task_id, _ in sent}
    if stop.state == BROKER_DOWN:
        assert victim is not None
        victim.start()
        return look_for_lost(client, directory, ids)
    return account_for(client, directory, ids, kind, may_run_again=stop.state == BACKEND_DOWN)


def look_for_lost(client: Any, directory: Path, sent: set[str]) -> str | None:
    """Return what is wrong after a stop that the broker could not be told of: it still has what was not done."""
    runs = Oracle(directory).executions()
    done = {task_id for task_id, each in runs.items() if any(run.end for run in each)}
    held = [json.loads(record)[0] for record in client.hvals("unacked")]
    waiting = [json.loads(payload) for payload in client.lrange("celery", 0, -1)]
    lost = sent - done - {message["headers"]["id"] for message in (*held, *waiting)}
    return f"{len(lost)} of {len(sent)} lost" if lost else None


def account_for(client: Any, directory: Path, sent: set[str], kind: str, may_run_again: bool = False) -> str | None:
    """Return what is wrong: each task is done, or back in the queue, and never both.

    With ``may_run_again`` both may be: its result could not be stored.
    """
    runs = Oracle(directory).executions()
    done = {task_id for task_id, each in runs.items() if any(run.end for run in each)}
    back = [json.loads(payload)["headers"]["id"] for payload in client.lrange("celery", 0, -1)]
    if client.hlen("unacked"):
        return f"{client.hlen('unacked')} still held"
    if len(back) != len(set(back)):
        return "put back twice"
    if done & set(back) and not may_run_again:
        return f"{len(done & set(back))} done and put back"
    if sent - done - set(back):
        return f"{len(sent - done - set(back))} of {len(sent)} lost"
    cut = [task_id for task_id, each in runs.items() if task_id not in done]
    if kind == WARM and cut:
        return f"{len(cut)} cut off by a warm stop"
    twice = [task_id for task_id, each in runs.items() if len(each) > 1]
    return f"{len(twice)} begun twice" if twice and kind != RESTART else None
