"""What a scenario is: a name, a function, the protection it proves, and its report."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors import Publisher, Worker, environment
from oracle import Oracle
from servers import OwnRabbit, OwnRedis, wait_until

SCENARIOS: dict[str, Scenario] = {}

#: Where figures and logs go, from where the command is run.
FIGURES = Path("build/faults")


class Skipped(Exception):
    """This machine cannot play the scenario; the text says what it lacks."""


@dataclass(frozen=True)
class Scenario:
    """A fault under load, and what must hold after it.

    ``run(stage)`` does it and returns whatever else is worth a line in the report.  ``unprotected`` is the value of
    ``CELERIAC_FAILPOINTS`` that switches the protection off; with it the same scenario must fail.
    """

    id: str
    run: Callable[[Stage], dict[str, Any] | None]
    unprotected: str
    #: Tasks at scale 1.
    tasks: int
    #: Scale of the short form, and of the run that must fail.
    short: float
    broker: str
    #: It takes too long for every change: not among the tests.
    long_only: bool = False

    @property
    def claim(self) -> str:
        return (self.run.__doc__ or "").strip().splitlines()[0]


def scenario(
    id: str,
    unprotected: str = "",
    tasks: int = 10_000,
    short: float = 0.1,
    broker: str = "redis",
    long_only: bool = False,
) -> Callable[[Any], Any]:
    """Enter a function in the table of scenarios."""

    def enter(function: Callable[[Stage], dict[str, Any] | None]) -> Callable[[Stage], dict[str, Any] | None]:
        SCENARIOS[id] = Scenario(id, function, unprotected, tasks, short, broker, long_only)
        return function

    return enter


@dataclass
class Stage:
    """One run of one scenario: its directory, its dice, its servers and actors."""

    scenario: Scenario
    directory: Path
    seed: int
    scale: float
    unprotected: str = ""
    dead: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.oracle = Oracle(self.directory)
        self.house = ExitStack()

    @property
    def count(self) -> int:
        """How many tasks this run sends."""
        return max(20, int(self.scenario.tasks * self.scale))

    def times(self, at_scale_1: int, least: int) -> int:
        """Return how often to do something that is done so often at scale 1."""
        return max(least, round(at_scale_1 * self.scale))

    # -- the cast

    def redis(self, durable: bool = False, options: tuple[str, ...] = (), directory: Path | None = None) -> OwnRedis:
        server = OwnRedis(directory or self.directory, durable, options)
        self.house.callback(server.close)
        return server

    def rabbit(self, config: str = "") -> OwnRabbit:
        server = OwnRabbit(self.directory, config)
        self.house.callback(server.close)
        return server

    def env(
        self, broker: str, backend: str = "", failpoints: str = "", directory: Path | None = None, **conf: Any
    ) -> dict[str, str]:
        """Return the environment of an actor; ``failpoints`` are armed besides what switches the protection off."""
        directory = directory or self.directory
        directory.mkdir(exist_ok=True)
        env = environment(directory, broker, backend, conf)
        armed = ";".join(filter(None, (self.unprotected, failpoints)))
        if armed:
            env["CELERIAC_FAILPOINTS"] = armed
        return env

    def worker(self, env: dict[str, str], *options: str, wait: bool = True, **more: Any) -> Worker:
        worker = Worker(env, Path(env["FAULT_DIR"]), *options, **more)
        self.house.callback(worker.kill_group)
        if wait:
            worker.wait_ready()
        return worker

    def publish(self, env: dict[str, str], task: str, count: int, *arguments: Any, **more: Any) -> Publisher:
        publisher = Publisher(env, Path(env["FAULT_DIR"]), task, count, *arguments, **more)
        self.house.callback(publisher.kill_group)
        return publisher

    # -- the end

    def wait_done(
        self, seconds: float, quiet: float = 8.0, settle: float = 0.0, keep_alive: Worker | None = None
    ) -> None:
        """Wait until every task that was sent is accounted for, then ``settle`` seconds more.

        Gives up after ``seconds``, or when nothing has happened for ``quiet`` seconds: all timers have run out then.
        ``keep_alive`` is started again if a failpoint kills it.
        """
        path = self.directory / "effects"
        if self.unprotected:
            quiet = min(quiet, 4.0)
        last_size, since = -1, time.monotonic()
        deadline = time.monotonic() + seconds
        while time.monotonic() < min(deadline, since + quiet):
            size = path.stat().st_size if path.exists() else 0
            if size != last_size:
                last_size, since = size, time.monotonic()
            if keep_alive is not None and not keep_alive.is_running():
                self.oracle.note_fault("killed by a failpoint")
                keep_alive.restart()
            if time.monotonic() - since > 0.3 and not self.oracle.lost(self.dead):
                break
            time.sleep(0.1)
        time.sleep(settle)

    def check(self, sent: int | None = None, **limits: int) -> dict[str, Any]:
        """Check I1 and I2, and that each named figure is at most what is given; returns the figures.

        ``sent`` is how many publications must have succeeded; all of ``count`` if it is not said.
        """
        figures: dict[str, Any] = self.oracle.numbers(self.dead)
        for name, most in {"lost": 0, "invented": 0, **limits}.items():
            assert figures[name] <= most, f"{name}: {figures[name]} > {most}; {self.where(name)}; {figures}"
        least = self.count if sent is None else sent
        assert figures["sent"] >= least, f"only {figures['sent']} of {least} tasks were sent; {self.where('sent')}"
        return figures

    def check_is_quiet(self, redis: OwnRedis, worker: Worker | None = None, dead: int = 0) -> None:
        """Check what must be left when all is done: nothing (I4); and that no log tells of a bug (I7)."""
        left = {
            "queue": lambda: redis.client.llen("celery"),
            "unacked": lambda: redis.client.hlen("unacked"),
            "unacked_index": lambda: redis.client.zcard("unacked_index"),
        }
        for name, count in left.items():
            deadline = time.monotonic() + 3
            while count() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not count(), f"{count()} left in {name}; {self.where(name)}"
        found = redis.dead_letters()
        assert len(found) == dead, f"{len(found)} dead letters, expected {dead}: {found[:3]}; {self.where('dead')}"
        if worker is not None:
            assert not worker.zombies(), f"zombies: {worker.zombies()}; {self.where('zombies')}"
            assert "Traceback" not in worker.text(), f"a traceback in {worker.log}; seed {self.seed}"

    def where(self, name: str) -> str:
        """Return the first ids behind a figure with their last events, for a failure's message."""
        found = {"lost": self.oracle.lost, "invented": self.oracle.invented, "unexplained": self.oracle.unexplained}
        ids = found[name]()[:5] if name in found else list(self.oracle.extras())[:5] if name == "extra" else []
        return f"{self.oracle.tell(ids)} seed {self.seed}, files in {self.directory}"

    def each(self, cells: Iterable[Any], play: Callable[[Any], str | None], at_once: int = 4) -> list[str]:
        """Play every cell of a table, some at the same time; returns what was wrong."""

        def safely(cell: Any) -> str | None:
            try:
                return play(cell)
            except Exception as error:
                return f"{cell}: {type(error).__name__}: {error}"

        with ThreadPoolExecutor(at_once) as threads:
            return [wrong for wrong in threads.map(safely, cells) if wrong]


def run(
    id: str, seed: int, scale: float, unprotected: bool = False, figures_file: Path | None = FIGURES / "figures.jsonl"
) -> dict[str, Any]:
    """Run one scenario and return its figures; raises `AssertionError` if an invariant does not hold.

    Logs are kept only of a run that failed.
    """
    entry = SCENARIOS[id]
    directory = Path(tempfile.mkdtemp(prefix=f"{id}-{seed}-")).resolve()
    stage = Stage(entry, directory, seed, scale, entry.unprotected if unprotected else "")
    print(f"{id} seed {seed} scale {scale}{' UNPROTECTED' if unprotected else ''}: {directory}", flush=True)
    began = time.monotonic()
    figures: dict[str, Any] = {"scenario": id, "seed": seed, "scale": scale, "unprotected": unprotected}
    try:
        with stage.house:
            figures.update(entry.run(stage) or {})
        figures["result"] = "held"
        shutil.rmtree(directory, ignore_errors=True)
    except Skipped as reason:
        figures["result"] = f"skipped: {reason}"
        shutil.rmtree(directory, ignore_errors=True)
        raise
    except BaseException as error:
        figures["result"] = f"failed: {error}"[:1000]
        if unprotected:
            shutil.rmtree(directory, ignore_errors=True)
        raise
    finally:
        figures["seconds"] = round(time.monotonic() - began, 1)
        if figures_file is not None:
            figures_file.parent.mkdir(parents=True, exist_ok=True)
            with open(figures_file, "a") as file:
                file.write(json.dumps(figures, default=str) + "\n")
    return figures


def is_root() -> bool:
    return os.geteuid() == 0


__all__ = ("SCENARIOS", "Scenario", "Skipped", "Stage", "is_root", "run", "scenario", "wait_until")
