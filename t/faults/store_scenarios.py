"""The result store fails while tasks run: consumption goes on, and no result is missing in the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from actors import HERE, QUICK_START, wait_for_progress
from canvas_scenarios import conf
from messages import stored_result
from operations import run_script
from proxy import Proxy
from scenario import Skipped, Stage, is_root, scenario
from servers import OwnRedis, wait_until

try:
    import psycopg2
except ImportError:
    psycopg2 = None

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


class Cell(NamedTuple):
    """A store, how it fails, and how its tasks are acknowledged."""

    name: str
    is_late: bool
    url: str
    #: Enter it, and the store is away.
    outage: Callable[[], AbstractContextManager[None]]
    #: Returns those of some ids of which no success is stored.
    missing: Callable[[list[str]], list[str]]
    #: What the error of a client must say, if it gets another than that its time is over.
    says: str = ""
    conf: dict[str, Any] = {}

    def __str__(self) -> str:
        return f"{self.name}-{'late' if self.is_late else 'early'}"


@scenario("F25", unprotected="unprotect.store=off", tasks=2_000, short=0.05)
def result_store_is_away(stage: Stage) -> dict[str, Any]:
    """The store of results is killed, stopped, full, locked or a replica; afterwards every task has run and has its result."""
    chosen = {(name, is_late) for name in OUTAGES for is_late in (False, True)}
    if stage.unprotected:
        chosen = {("full", False), ("killed", False)}
    elif stage.scale < 0.5:
        chosen = {("killed", False), ("stopped", True), ("full", True), ("locked", False), ("handed over", True)}
    return outages(stage, [redis_cell(stage, *each) for each in sorted(chosen)])


def redis_cell(stage: Stage, outage: str, is_late: bool) -> Cell:
    store = stage.redis(durable=True, directory=stage.directory / f"store-{outage}-{is_late}")
    missing = partial(missing_on_redis, store)
    return Cell(outage, is_late, store.url, lambda: OUTAGES[outage](store), missing, conf={"redis_socket_timeout": 1})


def missing_on_redis(store: OwnRedis, ids: list[str]) -> list[str]:
    """Return those of ``ids`` of which no success is stored."""
    return [each for each in ids if (stored_result(store.client, each) or {}).get("status") != "SUCCESS"]


def outages(stage: Stage, cells: list[Cell]) -> dict[str, Any]:
    """Play each cell and return its figures."""
    figures: dict[str, Any] = {}
    wrong = stage.each(cells, lambda cell: one_outage(stage, cell, figures), at_once=5 if stage.scale < 1 else 1)
    assert not wrong, "\n".join(wrong)
    return figures


def one_outage(stage: Stage, cell: Cell, figures: dict[str, Any]) -> str | None:
    """Run tasks, acknowledged late or early, through one outage; returns what is wrong then."""
    seconds = max(SHORTEST_SECONDS, OUTAGE_SECONDS * stage.scale)
    directory = stage.directory / str(cell)
    directory.mkdir()
    broker = stage.redis(directory=directory / "broker")
    env = stage.env(broker.url, cell.url, directory=directory, **conf(task_acks_late=cell.is_late, **cell.conf))
    worker = stage.worker(env, *QUICK_START)
    count = max(50, stage.count // 8)
    publisher = stage.publish({**env, "FAULT_PACE": str(seconds * 1.5 / count)}, "effect", count, 0.001)
    effects = directory / "effects"
    wait_for_progress(effects, 10)
    with cell.outage():
        began, size = time.monotonic(), effects.stat().st_size
        waited, error = get_in_time(env)
        time.sleep(max(0.0, seconds - (time.monotonic() - began)))
        done_meanwhile = (effects.stat().st_size - size) // 100
    publisher.wait(120)
    ids = (directory / "sent").read_text().split()
    missing: list[str] = []

    def all_have_results() -> bool:
        missing[:] = cell.missing(ids)
        return not missing

    try:
        wait_until(all_have_results, 8 if stage.unprotected else 60, "the results")
    except TimeoutError:
        return f"{cell}: {len(missing)} of {len(ids)} tasks have no result, such as {missing[:2]}; {worker.log}"
    figures[str(cell)] = {
        "tasks": len(ids),
        "runs": effects.read_text().count("end "),
        "lines meanwhile": done_meanwhile,
        "get(timeout=1) s": round(waited, 2),
        "error": error[:90],
    }
    if not worker.is_running() or len(ids) != count:
        return f"{cell}: the worker ended, or only {len(ids)} of {count} were sent; {worker.log}"
    if waited > 4:
        return f"{cell}: get(timeout=1) took {waited:.1f} s"
    if not error.startswith("TimeoutError") and cell.says not in error:
        return f"{cell}: get() does not say what is wrong: {error}"
    if "exited with" in worker.text() or "Traceback" in worker.text():
        return f"{cell}: a child ended; {worker.log}"
    if done_meanwhile < 3 and not cell.is_late:  # late ones are not done before their results are safe
        return f"{cell}: tasks did not go on, only {done_meanwhile} were done; {worker.log}"
    return None


# -- databases and directories -----------------------------------------------------------------------------------------

POSTGRES = os.environ.get("TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")


class OwnDatabase:
    """A database of this run on the PostgreSQL that the tests have, behind a proxy."""

    def __init__(self, stage: Stage, name: str) -> None:
        if psycopg2 is None:
            raise Skipped("psycopg2 is not installed")
        self.name = f"faults_{stage.seed}_{os.getpid()}_{name}"
        self._server = urlsplit(POSTGRES)
        try:
            self._admin = self._connect(self._server.path)
        except psycopg2.OperationalError as error:
            if os.environ.get("CI"):
                raise
            raise Skipped(f"no PostgreSQL: {error}") from error
        self.tell(f"CREATE DATABASE {self.name}")
        stage.house.callback(self.close)
        self.proxy = Proxy(self._server.port or 5432)
        stage.house.callback(self.proxy.close)
        self._reader: Any = None

    @property
    def url(self) -> str:
        login = self._server.netloc.rpartition("@")[0]
        return f"db+postgresql+psycopg2://{login}@127.0.0.1:{self.proxy.port}/{self.name}"

    def _connect(self, path: str) -> Any:
        connection = psycopg2.connect(self._server._replace(path=path).geturl(), application_name="harness")
        connection.autocommit = True
        return connection

    def tell(self, statement: str) -> None:
        with self._admin.cursor() as cursor:
            cursor.execute(statement)

    def terminate(self) -> None:
        """End all sessions but our own."""
        self.tell(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{self.name}' AND application_name <> 'harness'"
        )

    def missing(self, ids: list[str]) -> list[str]:
        self._reader = self._reader or self._connect(f"/{self.name}")
        with self._reader.cursor() as cursor:
            cursor.execute("SELECT task_id FROM celery_taskmeta WHERE status = 'SUCCESS'")
            return sorted(set(ids) - {task_id for (task_id,) in cursor.fetchall()})

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self.tell(f"DROP DATABASE {self.name} WITH (FORCE)")
        self._admin.close()


@contextmanager
def terminated(store: OwnDatabase) -> Iterator[None]:
    """Its sessions are ended, again and again."""
    is_over = threading.Event()

    def strike() -> None:
        while not is_over.wait(0.2):
            store.terminate()

    thread = threading.Thread(target=strike)
    thread.start()
    yield
    is_over.set()
    thread.join()


@contextmanager
def refused(store: OwnDatabase) -> Iterator[None]:
    store.proxy.set("reset")
    yield
    store.proxy.pass_new()


@contextmanager
def stalled(store: OwnDatabase) -> Iterator[None]:
    """It is behind a partition: what was open then never answers again."""
    store.proxy.set("stall")
    yield
    store.proxy.pass_new()


@contextmanager
def closed(store: OwnDatabase) -> Iterator[None]:
    """It lets nobody in."""
    store.tell(f"ALTER DATABASE {store.name} ALLOW_CONNECTIONS false")
    store.terminate()
    yield
    store.tell(f"ALTER DATABASE {store.name} ALLOW_CONNECTIONS true")


@contextmanager
def read_only(store: OwnDatabase) -> Iterator[None]:
    """It can be read only, as a standby can."""
    store.tell(f"ALTER DATABASE {store.name} SET default_transaction_read_only = on")
    store.terminate()
    yield
    store.tell(f"ALTER DATABASE {store.name} RESET default_transaction_read_only")
    store.terminate()


#: Outages of a database, and what a client is told meanwhile.
DATABASE_OUTAGES = {
    "terminated": (terminated, "connection"),
    "refused": (refused, "connection"),
    "stalled": (stalled, "timeout expired"),
    "closed": (closed, "not currently accepting connections"),
    "read-only": (read_only, ""),
}


@scenario("F25-sql", unprotected="unprotect.store=off", tasks=2_000, short=0.05)
def result_database_is_away(stage: Stage) -> dict[str, Any]:
    """The database of results ends its sessions, refuses, hangs, lets nobody in, or is read-only: as F25."""
    chosen = {(name, is_late) for name in DATABASE_OUTAGES for is_late in (False, True)}
    if stage.unprotected:
        chosen = {("refused", False)}
    elif stage.scale < 0.5:
        chosen = {("refused", True), ("closed", False)}
    return outages(stage, [database_cell(stage, *each) for each in sorted(chosen)])


def database_cell(stage: Stage, outage: str, is_late: bool) -> Cell:
    store = OwnDatabase(stage, f"{outage.replace('-', '_')}_{is_late}".lower())
    play, says = DATABASE_OUTAGES[outage]
    conf = {
        "database_engine_options": {"connect_args": {"connect_timeout": 2}},
        "result_backend_transport_options": {"socket_timeout": 1},
    }
    return Cell(outage, is_late, store.url, lambda: play(store), store.missing, says, conf)


class OwnDirectory:
    """A directory for results; small, where this machine lets us mount one."""

    def __init__(self, stage: Stage, name: str, is_small: bool = False, parent: Path | None = None) -> None:
        self.path = (parent or stage.directory) / f"results-{name}"
        self.path.mkdir()
        if is_small:
            mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(self.path)]
            if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
                raise Skipped("a small file system cannot be mounted here")
            stage.house.callback(subprocess.run, ["umount", "-l", str(self.path)], check=False)

    def missing(self, ids: list[str]) -> list[str]:
        return [each for each in ids if not self._has_success(each)]

    def _has_success(self, task_id: str) -> bool:
        try:
            record = json.loads((self.path / f"celery-task-meta-{task_id}").read_bytes())
        except FileNotFoundError:
            return False
        return bool(record["status"] == "SUCCESS")


@contextmanager
def gone(store: OwnDirectory) -> Iterator[None]:
    """It is not there, as when a file system is not mounted."""
    elsewhere = store.path.with_name(f"{store.path.name}-elsewhere")
    store.path.rename(elsewhere)
    yield
    elsewhere.rename(store.path)


@contextmanager
def filled(store: OwnDirectory) -> Iterator[None]:
    """No block is free any more."""
    filler = store.path / "filler"
    with suppress(OSError), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    yield
    filler.unlink()


DIRECTORY_OUTAGES = {"gone": (gone, "No such file or directory"), "filled": (filled, "No space left")}


@scenario("F25-file", unprotected="unprotect.store=off", tasks=2_000, short=0.05)
def result_directory_is_away(stage: Stage) -> dict[str, Any]:
    """The directory of results is gone, or its file system is full: as F25."""
    chosen = {("gone", False), ("gone", True)}
    if stage.unprotected:
        chosen = {("gone", False)}
    elif is_root():
        chosen = (
            {("gone", False), ("filled", True)} if stage.scale < 0.5 else chosen | {("filled", False), ("filled", True)}
        )
    cells, figures = [], {}
    for outage, is_late in sorted(chosen):
        try:
            store = OwnDirectory(stage, f"{outage}-{is_late}", is_small=outage == "filled")
        except Skipped as reason:  # what is left is worth playing
            figures[outage] = f"skipped: {reason}"
            continue
        play, says = DIRECTORY_OUTAGES[outage]
        cells.append(
            Cell(
                outage, is_late, f"file://{store.path}", lambda play=play, store=store: play(store), store.missing, says
            )
        )
    return {**outages(stage, cells), **figures}


# -- the main process --------------------------------------------------------------------------------------------------

#: Each of these ends by the worker's main process; then it is asked to answer until ``seconds`` are over.
ENDED_BY_THE_WORKER = """
import json, sys, time, faultapp
from datetime import datetime, timedelta, timezone
control, began = faultapp.app.control, time.monotonic()
ids = {
    "limited FAILURE": faultapp.sleeps.apply_async(time_limit=0.3).id,
    "lost FAILURE": faultapp.poison.delay().id,
    "expired REVOKED": faultapp.effect.apply_async(expires=datetime.now(timezone.utc) - timedelta(minutes=1)).id,
    "revoked ahead REVOKED": faultapp.effect.apply_async(countdown=3600).id,
    "terminated REVOKED": faultapp.sleeps.delay().id,
}
control.revoke(ids["revoked ahead REVOKED"])
time.sleep(1)
control.revoke(ids["terminated REVOKED"], terminate=True)
slowest = 0.0
while time.monotonic() - began < float(sys.argv[1]):
    asked = time.monotonic()
    control.ping(timeout=3, limit=1)
    slowest = max(slowest, time.monotonic() - asked)
    time.sleep(0.1)
print(json.dumps({"ids": ids, "slowest": slowest}))
"""


@scenario("F25-main", unprotected="unprotect.books=off", tasks=1_000, short=0.05)
def the_main_process_does_not_wait(stage: Stage) -> dict[str, Any]:
    """What the worker's main process has to store waits for the store, not the worker: it answers, and tasks go on."""
    figures: dict[str, Any] = {}
    cells = ["killed"] if stage.unprotected else ["killed", "stopped"]
    wrong = stage.each(cells, lambda outage: ends_told_by_the_worker(stage, outage, figures))
    assert not wrong, "\n".join(wrong)
    return figures


def ends_told_by_the_worker(stage: Stage, outage: str, figures: dict[str, Any]) -> str | None:
    """End tasks in all ways that the main process tells of, during one outage; returns what is wrong then."""
    seconds = max(4.0, OUTAGE_SECONDS * stage.scale)
    directory = stage.directory / outage
    directory.mkdir()
    broker = stage.redis(directory=directory / "broker")
    store = stage.redis(durable=True, directory=directory / "store")
    env = stage.env(broker.url, store.url, directory=directory, **conf(redis_socket_timeout=1, task_acks_late=False))
    worker = stage.worker(env, *QUICK_START)
    with OUTAGES[outage](store):
        publisher = stage.publish({**env, "FAULT_PACE": str(seconds / 50)}, "effect", 40, 0.001)
        said = json.loads(run_script(ENDED_BY_THE_WORKER, env, seconds))
        done_meanwhile = (directory / "effects").read_text().count("end ")
    publisher.wait(30)
    if said["slowest"] > 2:
        return f"{outage}: the worker took {said['slowest']:.1f} s to answer; {worker.log}"
    if done_meanwhile < 10:
        return f"{outage}: only {done_meanwhile} tasks ran meanwhile; {worker.log}"

    def missing() -> list[str]:
        states = {name: (stored_result(store.client, id) or {}).get("status") for name, id in said["ids"].items()}
        return [f"{name}, not {state}" for name, state in states.items() if name.rpartition(" ")[2] != state]

    try:
        wait_until(lambda: not missing(), 30, "what the worker had to store")
    except TimeoutError:
        return f"{outage}: {missing()}; {worker.log}"
    figures[outage] = {"slowest answer s": round(said["slowest"], 2), "tasks meanwhile": done_meanwhile}
    return None if worker.is_running() else f"{outage}: the worker ended; {worker.log}"


def get_in_time(env: dict[str, str]) -> tuple[float, str]:
    """Return how long ``get(timeout=1)`` of a result that is not there takes, in a process that begins now; and its error."""
    code = (
        "import faultapp, time\ntry:\n began = time.monotonic(); result = faultapp.app.AsyncResult('never')\n"
        " began = time.monotonic(); result.get(timeout=1)\nexcept Exception as error: said = f'{type(error).__name__}: {error}'\n"
        "print(time.monotonic() - began, ' '.join(said.split()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=HERE, capture_output=True, text=True, timeout=60, check=True
    )
    seconds, _, error = done.stdout.strip().partition(" ")
    return float(seconds), error
