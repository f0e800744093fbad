"""F23 beside a broker that has stopped answering (SIGSTOP): a worker ends all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

from actors import Worker, wait_for_progress
from oracle import Oracle
from pools import COLD, IDLE, POOLS, PREFETCHED, QUICK, RUNNING, WARM
from scenario import Stage, scenario
from servers import OwnRabbit, OwnRedis, wait_until

RUN_SECONDS = 1.0
#: What a stop may take beyond the tasks that run.
GRACE = 2.0
WAITING = 20
#: What it has was delivered before, to a worker that was killed: then it may ask the broker about that, too.
AGAIN = "redelivered"
SIGNALS = {"TERM": (signal.SIGTERM, WARM), "QUIT": (signal.SIGQUIT, COLD)}


class Cell(NamedTuple):
    """A pool, what it does just then, and what it is told."""

    pool: str
    state: str
    signal: str

    def __str__(self) -> str:
        return f"{self.pool}, {self.state}, {self.signal}"

    @property
    def queue(self) -> str:
        return f"{self.pool}-{self.state}-{self.signal}"

    @property
    def count(self) -> int:
        return {IDLE: 0, RUNNING: 1 if self.pool == "solo" else 2, PREFETCHED: WAITING, AGAIN: WAITING}[self.state]


@scenario("F23-hung", unprotected="unprotect.impatience=off", tasks=18, short=0.2)
def beside_a_hung_redis(stage: Stage) -> dict[str, Any]:
    """A worker stops in time beside a Redis that does not answer, and loses nothing."""
    redis = stage.redis()

    def left(cell: Cell) -> int:
        return redis.client.llen(cell.queue) + redis.client.hlen(f"{cell.queue}-unacked")

    return stops_beside(stage, redis, left)


@scenario("F23-hung-rabbitmq", tasks=18, short=0.2, broker="rabbitmq")
def beside_a_hung_rabbitmq(stage: Stage) -> dict[str, Any]:
    """A worker stops in time beside a RabbitMQ that does not answer, and loses nothing."""
    rabbit = stage.rabbit()

    def left(cell: Cell) -> int:
        lines = rabbit.ctl("list_queues", "name", "messages_ready", "--no-table-headers").split("\n")
        return sum(int(count) for name, count in map(str.split, filter(None, lines)) if name == cell.queue)

    return stops_beside(stage, rabbit, left)


def stops_beside(stage: Stage, server: OwnRedis | OwnRabbit, left: Any) -> dict[str, Any]:
    """Play some cells at once; ``left`` counts the messages that the broker has of a cell."""
    cells = [Cell(pool, state, name) for pool in POOLS for state in (IDLE, RUNNING, PREFETCHED) for name in SIGNALS]
    sure = [cell for cell in cells if cell.pool == "prefork" and cell.signal == "TERM"]
    if isinstance(server, OwnRabbit):  # which alone is asked about what was delivered before
        sure += [Cell("prefork", AGAIN, "QUIT"), Cell("solo", AGAIN, "TERM")]
    others = [cell for cell in cells if cell not in sure]
    chosen = sure + stage.dice.sample(others, min(len(others), max(2, round(len(others) * (stage.scale - 0.15)))))
    workers = {cell: begin(stage, server, cell) for cell in chosen}
    freeze(server, signal.SIGSTOP)
    try:
        time.sleep(0.3)
        took = end_all(workers)
    finally:
        freeze(server, signal.SIGCONT)
    wrong = [f"{cell}: {wrong}; {workers[cell].log}" for cell in chosen if (wrong := judge(cell, took[cell]))]
    for cell in chosen:
        done = sum(any(run.end for run in each) for each in Oracle(directory_of(stage, cell)).executions().values())
        wait_until(lambda cell=cell, done=done: done + left(cell) >= cell.count, 20, f"what is left of {cell}")
    assert not wrong, f"{len(wrong)} of {len(chosen)}:\n" + "\n".join(wrong) + f"\nseed {stage.seed}"
    slowest = max(
        seconds - RUN_SECONDS * (cell.state != IDLE and cell.signal == "TERM") for cell, seconds in took.items()
    )
    return {"cells": len(chosen), "slowest stop after the last task s": round(slowest, 2)}


def directory_of(stage: Stage, cell: Cell) -> Path:
    return stage.directory / cell.queue


def begin(stage: Stage, server: OwnRedis | OwnRabbit, cell: Cell) -> Worker:
    """Start a worker and bring it into the state."""
    options = {"unacked_key": f"{cell.queue}-unacked", "unacked_index_key": f"{cell.queue}-index", "lease_ttl": 30}
    conf: dict[str, Any] = {"task_default_queue": cell.queue, "worker_prefetch_multiplier": 8}
    if isinstance(server, OwnRedis):
        conf["broker_transport_options"] = options
    env = stage.env(server.url, "", directory=directory_of(stage, cell), **conf)
    worker = stage.worker(env, *QUICK, "-P", cell.pool, "-c", "2", name=cell.queue)
    if cell.count:
        code = f"import faultapp\nfor _ in range({cell.count}): faultapp.effect.delay({RUN_SECONDS})"
        subprocess.run([worker.command[0], "-c", code], env=env, cwd=worker.cwd, check=True, timeout=30)
        wait_until((directory_of(stage, cell) / "effects").exists, 10, f"the first task of {cell}")
    if cell.state == AGAIN:
        worker.restart()
        worker.wait_ready()
        assert wait_for_progress(directory_of(stage, cell) / "effects", 10), f"nothing runs again of {cell}"
    return worker


def freeze(server: OwnRedis | OwnRabbit, signum: int) -> None:
    assert server.process is not None
    os.killpg(server.process.pid, signum)  # each has a group of its own


def end_all(workers: dict[Cell, Worker]) -> dict[Cell, float]:
    """Send the signals; return the seconds until each had ended, as far as they did."""
    began, took = time.monotonic(), dict.fromkeys(workers, 0.0)
    for cell, worker in workers.items():
        worker.signal(SIGNALS[cell.signal][0])
    running = dict(workers)
    while running and time.monotonic() - began < RUN_SECONDS + GRACE + 1:
        for cell in [cell for cell, worker in running.items() if not worker.is_running()]:
            took[cell] = time.monotonic() - began
            del running[cell]
        time.sleep(0.02)
    for cell in running:
        took[cell] = float("inf")
    return took


def judge(cell: Cell, seconds: float) -> str | None:
    most = GRACE + (RUN_SECONDS if cell.state != IDLE else 0.0)
    return f"{seconds:.1f} s to stop" if seconds > most else None
