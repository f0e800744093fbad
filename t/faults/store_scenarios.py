"""The result store fails while tasks run: consumption goes on, and no result is missing in the end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from actors import HERE, wait_for_progress
from canvas_scenarios import conf
from messages import stored_result
from redis_scenarios import QUICK_START
from scenario import Stage, scenario
from servers import OwnRedis, wait_until

#: How long the store is away at scale 1, and at least.
OUTAGE_SECONDS, SHORTEST_SECONDS = 60, 3


@contextmanager
def killed(store: OwnRedis) -> Iterator[None]:
    store.kill()
    yield
    store.start()


@contextmanager
def stopped(store: OwnRedis) -> Iterator[None]:
    store.signal(signal.SIGSTOP)
    yield
    store.signal(signal.SIGCONT)


@contextmanager
def full(store: OwnRedis) -> Iterator[None]:
    store.command("config", "set", "maxmemory", "1")
    yield
    store.command("config", "set", "maxmemory", "0")


@contextmanager
def locked(store: OwnRedis) -> Iterator[None]:
    store.command("config", "set", "requirepass", "other")
    store.command("-a", "other", "client", "kill", "type", "normal")
    yield
    store.command("-a", "other", "config", "set", "requirepass", "")


@contextmanager
def handed_over(store: OwnRedis) -> Iterator[None]:
    """Another server takes over in good order, with all that there is; this one is its replica, which refuses to write."""
    heir = OwnRedis(store.directory.parent / "heir", options=("--replicaof", "127.0.0.1", str(store.port)))
    try:
        hand_over(store, heir)
        yield
        hand_over(heir, store)
    finally:
        heir.close()


def hand_over(master: OwnRedis, replica: OwnRedis) -> None:
    wait_until(lambda: "state=online" in master.command("info", "replication"), 15, "the replica to have it all")
    master.command("failover", "to", "127.0.0.1", str(replica.port))
    wait_until(lambda: "master_link_status:up" in master.command("info", "replication"), 15, "the roles to change")


OUTAGES: dict[str, Callable[[OwnRedis], Any]] = {
    "killed": killed,
    "stopped": stopped,
    "full": full,
    "locked": locked,
    "handed over": handed_over,
}


@scenario("F25", unprotected="unprotect.store=off", tasks=2_000, short=0.05)
def result_store_is_away(stage: Stage) -> dict[str, Any]:
    """The store of results is killed, stopped, full, locked or a replica; afterwards every task has run and has its result."""
    figures: dict[str, Any] = {}
    cells = [(name, is_late) for name in OUTAGES for is_late in (False, True)]
    if stage.unprotected:
        cells = [("full", False), ("killed", False)]
    elif stage.scale < 0.5:
        cells = [("killed", False), ("stopped", True), ("full", True), ("locked", False), ("handed over", True)]
    wrong = stage.each(cells, lambda cell: one_outage(stage, *cell, figures), at_once=5 if stage.scale < 1 else 1)
    assert not wrong, "\n".join(wrong)
    return figures


def one_outage(stage: Stage, outage: str, is_late: bool, figures: dict[str, Any]) -> str | None:
    """Run tasks, acknowledged late or early, through one outage; returns what is wrong then."""
    name = f"{outage}-{'late' if is_late else 'early'}"
    seconds = max(SHORTEST_SECONDS, OUTAGE_SECONDS * stage.scale)
    directory = stage.directory / name
    directory.mkdir()
    broker = stage.redis(directory=directory / "broker")
    store = stage.redis(durable=True, directory=directory / "store")
    env = stage.env(broker.url, store.url, directory=directory, **conf(redis_socket_timeout=1, task_acks_late=is_late))
    worker = stage.worker(env, *QUICK_START)
    count = max(50, stage.count // 8)
    publisher = stage.publish({**env, "FAULT_PACE": str(seconds * 1.5 / count)}, "effect", count, 0.001)
    effects = directory / "effects"
    wait_for_progress(effects, 10)
    with OUTAGES[outage](store):
        began, size = time.monotonic(), effects.stat().st_size
        waited = get_in_time(env)
        time.sleep(max(0.0, seconds - (time.monotonic() - began)))
        done_meanwhile = (effects.stat().st_size - size) // 100
    publisher.wait(120)
    ids = (directory / "sent").read_text().split()
    missing: list[str] = []

    def all_have_results() -> bool:
        missing[:] = [each for each in ids if (stored_result(store.client, each) or {}).get("status") != "SUCCESS"]
        return not missing

    try:
        wait_until(all_have_results, 15 if stage.unprotected else 60, "the results")
    except TimeoutError:
        return f"{name}: {len(missing)} of {len(ids)} tasks have no result, such as {missing[:2]}; {worker.log}"
    figures[name] = {"tasks": len(ids), "lines meanwhile": done_meanwhile, "get(timeout=1) s": round(waited, 2)}
    if not worker.is_running() or len(ids) != count:
        return f"{name}: the worker ended, or only {len(ids)} of {count} were sent; {worker.log}"
    if waited > 4:
        return f"{name}: get(timeout=1) took {waited:.1f} s"
    if "exited with" in worker.text() or "Traceback" in worker.text():
        return f"{name}: a child ended; {worker.log}"
    if done_meanwhile < 3 and not is_late:  # late ones are not done before their results are safe
        return f"{name}: tasks did not go on, only {done_meanwhile} were done; {worker.log}"
    return None


def get_in_time(env: dict[str, str]) -> float:
    """Return how long ``get(timeout=1)`` of a result that is not there takes, in a process that begins now."""
    code = (
        "import faultapp, time; r = faultapp.app.AsyncResult('never'); began = time.monotonic()\n"
        "try: r.get(timeout=1)\nexcept Exception: pass\nprint(time.monotonic() - began)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=HERE, capture_output=True, text=True, timeout=60, check=True
    )
    return float(done.stdout)
