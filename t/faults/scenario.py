"""What a scenario is: a name, a function, the protection it proves, and its report."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors import Publisher, Worker, environment
from oracle import Oracle
from servers import OwnRabbit, OwnRedis, wait_until

SCENARIOS: dict[str, Scenario] = {}


@dataclass(frozen=True)
class Scenario:
    """A fault under load, and what must hold after it.

    ``run(stage)`` does it and returns whatever else is worth a line in the report.  ``unprotected`` is the value of
    ``CELERIAC_FAILPOINTS`` that switches the protection off; with it the same scenario must fail.
    """

    id: str
    run: Callable[[Stage], dict[str, Any] | None]
    unprotected: str = ""
    #: Tasks at scale 1; pytest runs a tenth.
    tasks: int = 10_000


def scenario(id: str, unprotected: str = "", tasks: int = 10_000) -> Callable[[Any], Any]:
    """Enter a function in the table of scenarios."""

    def enter(function: Callable[[Stage], dict[str, Any] | None]) -> Callable[[Stage], dict[str, Any] | None]:
        SCENARIOS[id] = Scenario(id, function, unprotected, tasks)
        return function

    return enter


@dataclass
class Stage:
    """One run of one scenario: its directory, its dice, its servers and actors."""

    scenario: Scenario
    directory: Path
    seed: int
    scale: float
    failpoints: str = ""
    dead: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.oracle = Oracle(self.directory)
        self.house = ExitStack()

    @property
    def count(self) -> int:
        """How many tasks this run sends."""
        return max(20, int(self.scenario.tasks * self.scale))

    def redis(self, durable: bool = False, options: tuple[str, ...] = ()) -> OwnRedis:
        server = OwnRedis(self.directory, durable, options)
        self.house.callback(server.close)
        return server

    def rabbit(self, config: str = "") -> OwnRabbit:
        server = OwnRabbit(self.directory, config)
        self.house.callback(server.close)
        return server

    def env(self, broker: str, backend: str = "", **conf: Any) -> dict[str, str]:
        env = environment(self.directory, broker, backend, conf)
        if self.failpoints:
            env["CELERIAC_FAILPOINTS"] = self.failpoints
        return env

    def worker(self, env: dict[str, str], *options: str, **more: Any) -> Worker:
        worker = Worker(env, self.directory, *options, **more)
        self.house.callback(worker.kill_group)
        worker.wait_ready()
        return worker

    def publish(self, env: dict[str, str], task: str, count: int, *arguments: float, **more: Any) -> Publisher:
        publisher = Publisher(env, self.directory, task, count, *arguments, **more)
        self.house.callback(publisher.kill_group)
        return publisher

    def wait_done(self, seconds: float, settle: float = 0.0) -> None:
        """Wait until every task that was sent is accounted for, then ``settle`` seconds more."""
        path = self.directory / "effects"
        last_size, since = -1, time.monotonic()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            size = path.stat().st_size if path.exists() else 0
            if size != last_size:
                last_size, since = size, time.monotonic()
            if time.monotonic() - since > 0.3 and not self.oracle.lost(self.dead):
                break
            time.sleep(0.1)
        time.sleep(settle)

    def check(self, **limits: int) -> dict[str, Any]:
        """Check I1 and I2, and that each named figure is at most what is given; returns the figures."""
        figures: dict[str, Any] = self.oracle.numbers(self.dead)
        for name, most in {"lost": 0, "invented": 0, **limits}.items():
            assert figures[name] <= most, f"{name}: {figures[name]} > {most}; {self.where(name)}; {figures}"
        return figures

    def where(self, name: str) -> str:
        """Return the first ids behind a figure, for a failure's message."""
        found = {"lost": self.oracle.lost, "invented": self.oracle.invented, "unexplained": self.oracle.unexplained}
        return f"{found[name]()[:5] if name in found else ''} seed {self.seed}, files in {self.directory}"


def run(id: str, seed: int, scale: float, unprotected: bool = False, keep: Path | None = None) -> dict[str, Any]:
    """Run one scenario and return its figures; raises `AssertionError` if an invariant does not hold."""
    entry = SCENARIOS[id]
    directory = keep or Path(tempfile.mkdtemp(prefix=f"{id}-{seed}-"))
    directory.mkdir(parents=True, exist_ok=True)
    stage = Stage(entry, directory, seed, scale, failpoints=entry.unprotected if unprotected else "")
    began = time.monotonic()
    try:
        with stage.house:
            figures = entry.run(stage) or {}
    except BaseException:
        print(f"{id} seed {seed}: logs in {directory}")
        raise
    figures = {"scenario": id, "seed": seed, "seconds": round(time.monotonic() - began, 1), **figures}
    if keep:
        with open(directory / "figures.jsonl", "a") as file:
            file.write(json.dumps(figures, default=str) + "\n")
    else:
        shutil.rmtree(directory, ignore_errors=True)
    return figures


__all__ = ("SCENARIOS", "Scenario", "Stage", "run", "scenario", "wait_until")
