"""Measure us beside Celery 5.7.0, in turns, on this machine: ``python t/bench/run.py [MEASURE ...] [--rounds N]``.

Each round runs every side once; a figure is the median of the rounds with its range, and the ratio is of medians.
CPU a task and counts are firm on a busy machine; tasks a second swing with whatever else runs.

``PEER_PYTHON`` names the Python of a virtual environment with Celery 5.7.0; without it only ours is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "faults"))

from servers import OwnRedis, wait_until  # noqa: E402

TICK = struct.Struct("d")
CLOCK_TICK = os.sysconf("SC_CLK_TCK")


class Side:
    """One of the two: its name and its Python."""

    def __init__(self, name: str, python: str) -> None:
        self.name, self.python = name, python


class Bench:
    """A private Redis, a directory, and the ways to run workers and clients of a side."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.redis = OwnRedis(directory)
        self.ticks = directory / "ticks"
        self.amqp = os.environ.get("TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672") + "/bench"

    def environment(self, results: bool, broker: str = "redis") -> dict[str, str]:
        url = self.redis.url + "/0"
        return {
            **os.environ,
            "BENCH_BROKER": url if broker == "redis" else self.amqp,
            "BENCH_BACKEND": url,
            "BENCH_RESULTS": "1" if results else "0",
            "BENCH_TICKS": str(self.ticks),
            "PYTHONPATH": str(HERE),
        }

    def clean(self, broker: str = "redis") -> None:
        self.redis.command("flushall")
        self.redis.command("config", "resetstat")
        self.ticks.write_bytes(b"")
        if broker == "amqp":
            for command in (
                ["delete_vhost", "bench"],
                ["add_vhost", "bench"],
                ["set_permissions", "-p", "bench", "guest", ".*", ".*", ".*"],
            ):
                subprocess.run(["rabbitmqctl", "-q", *command], capture_output=True, check=False)

    def client(self, side: Side, verb: str, n: int, env: dict[str, str]) -> dict[str, float]:
        done = subprocess.run(
            [side.python, "client.py", verb, str(n)], cwd=HERE, env=env, capture_output=True, text=True, timeout=400
        )
        if done.returncode:
            raise RuntimeError(f"{side.name} {verb}: {done.stderr[-1500:]}")
        figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
        return figures

    def worker(self, side: Side, env: dict[str, str]) -> subprocess.Popen[bytes]:
        log = open(self.directory / f"{side.name}.log", "ab")  # noqa: SIM115 - the worker keeps it
        return subprocess.Popen(
            [side.python, "-m", "celery", "-A", "benchapp", "worker", "-l", "WARNING", "-c", "2"],
            cwd=HERE,
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    @contextmanager
    def warm_worker(self, side: Side, env: dict[str, str], rest: float) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker that has done 100 tasks, and then rested for ``rest`` seconds."""
        worker = self.worker(side, env)
        try:
            self.client(side, "enqueue", 50, env)
            self.wait_ticks(100, 60)
            time.sleep(rest)
            yield worker
        finally:
            stop(worker)

    def count(self) -> int:
        return self.ticks.stat().st_size // TICK.size

    def wait_ticks(self, n: int, seconds: float = 200) -> None:
        wait_until(lambda: self.count() >= n, seconds, f"{n} tasks (there were {self.count()})")

    def times(self) -> list[float]:
        data = self.ticks.read_bytes()
        return sorted(when for (when,) in TICK.iter_unpack(data[: len(data) // TICK.size * TICK.size]))

    @contextmanager
    def monitored(self) -> Iterator[list[str]]:
        """Collect the commands that clients send to Redis; what scripts do is not among them."""
        commands: list[str] = []
        log = self.directory / "monitor"
        with open(log, "w") as file:
            monitor = subprocess.Popen(["redis-cli", "-p", str(self.redis.port), "monitor"], stdout=file)
        try:
            wait_until(lambda: log.read_text().startswith("OK"), 10, "MONITOR")
            yield commands
        finally:
            monitor.terminate()
            monitor.wait()
            commands += [line for line in log.read_text().splitlines()[1:] if " lua] " not in line]

    def packets(self) -> int:
        """Return how many packets RabbitMQ has had on the connections of the bench's virtual host."""
        listed = subprocess.run(
            ["rabbitmqctl", "-q", "list_connections", "vhost", "recv_cnt"], capture_output=True, text=True, check=True
        ).stdout
        return sum(int(line.split()[1]) for line in listed.splitlines() if line.split()[:1] == ["bench"])

    def stats(self) -> dict[str, int]:
        """Return Redis's own counters: socket reads are round trips, seen from the server."""
        info = self.redis.command("info", "all")
        values = dict(line.strip().split(":", 1) for line in info.splitlines() if ":" in line)
        return {
            "commands": int(values["total_commands_processed"]),
            "reads": int(values.get("total_reads_processed", 0)),
        }


def processes_of(pid: int) -> list[int]:
    """Return ``pid`` and all of its descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def cpu_seconds(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / CLOCK_TICK


def pss_megabytes(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1024


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def drain(bench: Bench, side: Side, n: int, results: bool = False, broker: str = "redis") -> dict[str, float]:
    """A preloaded queue, drained by an already warm worker: CPU a task, tasks a second, round trips a task."""
    bench.clean(broker)
    env = bench.environment(results, broker)
    with bench.warm_worker(side, env, rest=1) as worker:
        os.kill(worker.pid, signal.SIGSTOP)  # the queue fills while nobody takes from it
        bench.client(side, "enqueue", n, env)
        pids = processes_of(worker.pid)
        bench.ticks.write_bytes(b"")
        before, cpu = bench.stats(), cpu_seconds(pids)
        os.kill(worker.pid, signal.SIGCONT)
        bench.wait_ticks(n)
        took, after, times = cpu_seconds(pids) - cpu, bench.stats(), bench.times()
    return {
        "worker CPU us a task": took / n * 1e6,
        "tasks/s": n / (times[-1] - times[0]),
        **({"round trips a task": (after["reads"] - before["reads"]) / n} if broker == "redis" else {}),
    }


def enqueue(bench: Bench, side: Side, n: int, results: bool = False, broker: str = "redis") -> dict[str, float]:
    """``delay()`` in a loop: CPU a message in the client."""
    bench.clean(broker)
    figures = bench.client(side, "enqueue", n, bench.environment(results, broker))
    return {"client CPU us a message": figures["cpu_us"], "messages/s": n / figures["seconds"]}


def latency(bench: Bench, side: Side, n: int) -> dict[str, float]:
    """``delay().get()`` on an idle worker."""
    bench.clean()
    env = bench.environment(True)
    worker = bench.worker(side, env)
    try:
        return bench.client(side, "roundtrips", n, env)
    finally:
        stop(worker)


def canvas(bench: Bench, side: Side, n: int) -> dict[str, float]:
    """A group of 1,000, a chord of 1,000, a chain of 100, a wait for 5,000 results: seconds."""
    bench.clean()
    env = bench.environment(True)
    worker = bench.worker(side, env)
    try:
        bench.client(side, "roundtrips", 20, env)
        return {
            f"{verb.removeprefix('canvas_')} s": bench.client(side, verb, size, env)["seconds"]
            for verb, size in (
                ("canvas_group", n),
                ("canvas_chord", n),
                ("canvas_chain", n // 10),
                ("wait", 5 * n),
            )
        }
    finally:
        stop(worker)


def growth(bench: Bench, side: Side, n: int) -> dict[str, float]:
    """What ten times as much takes: chords, with the client's and the worker's memory, and chains that are built."""
    bench.clean()
    env = bench.environment(True)
    worker = bench.worker(side, env)
    figures: dict[str, float] = {}
    try:
        bench.client(side, "roundtrips", 20, env)
        for size in (n // 10, n * 3 // 10, n):
            chord = bench.client(side, "canvas_chord", size, env)
            figures[f"chord of {size} s"] = chord["seconds"]
            figures[f"chord of {size} client MB"] = chord["megabytes"]
            figures[f"chord of {size} worker MB"] = pss_megabytes(processes_of(worker.pid))
    finally:
        stop(worker)
    for size in (n // 40, n // 20, n // 10, n // 5):
        figures[f"build a chain of {size} ms"] = bench.client(side, "build_chain", size, env)["seconds"] * 1e3
    return figures


def weight(bench: Bench, side: Side, n: int) -> dict[str, float]:
    """Import time, and the memory (PSS) of an idle worker with two children."""
    bench.clean()
    env = bench.environment(False)

    def python(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([side.python, "-c", code], cwd=HERE, env=env, check=True)
        return time.perf_counter() - began

    bare = min(python("pass") for _ in range(7))
    package = min(python("from celery import Celery; Celery()") for _ in range(7)) - bare
    app = min(python("import benchapp") for _ in range(7)) - bare
    with bench.warm_worker(side, env, rest=2) as worker:
        pids = processes_of(worker.pid)
        cpu = cpu_seconds(pids)
        time.sleep(5)
        return {
            "import and make an app ms": package * 1e3,
            "import a project ms": app * 1e3,
            "idle PSS MB": pss_megabytes(pids),
            "idle CPU %": (cpu_seconds(pids) - cpu) / 5 * 100,
        }


def idle(bench: Bench, side: Side, n: int, broker: str = "redis") -> dict[str, float]:
    """What a worker with nothing to do takes in ``n`` seconds: CPU, and what it sends to the broker."""
    bench.clean(broker)
    env = bench.environment(False, broker)
    with bench.warm_worker(side, env, rest=5) as worker:
        pids = processes_of(worker.pid)
        packets = bench.packets() if broker == "amqp" else 0
        cpu, began = cpu_seconds(pids), time.monotonic()
        with bench.monitored() as commands:
            time.sleep(n)
        seconds = time.monotonic() - began
        used = (cpu_seconds(pids) - cpu) / seconds * 100
        if broker == "amqp":
            return {"idle CPU %": used, "packets a minute": (bench.packets() - packets) / seconds * 60}
        return {"idle CPU %": used, "commands a minute": len(commands) / seconds * 60}


#: Name → (function, N, further arguments).
MEASURES = {
    "drain": (drain, 20_000, {}),
    "drain-results": (drain, 20_000, {"results": True}),
    "drain-amqp": (drain, 10_000, {"broker": "amqp"}),
    "enqueue": (enqueue, 10_000, {}),
    "enqueue-results": (enqueue, 10_000, {"results": True}),
    "latency": (latency, 500, {}),
    "weight": (weight, 1, {}),
    "idle": (idle, 60, {}),
    "idle-amqp": (idle, 60, {"broker": "amqp"}),
    "canvas": (canvas, 1_000, {}),
    "growth": (growth, 10_000, {}),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measures", nargs="*", default=list(MEASURES), metavar="MEASURE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-n", type=int, help="tasks a round")
    options = parser.parse_args()
    unknown = set(options.measures) - set(MEASURES)
    if unknown:
        parser.error(f"no such measure: {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}")
    peer = os.environ.get("PEER_PYTHON")
    sides = [Side("celery", peer)] if peer else []
    sides.append(Side("celeriac", sys.executable))
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        bench = Bench(Path(name))
        try:
            for measure in options.measures:
                function, n, arguments = MEASURES[measure]
                show(measure, run_rounds(bench, sides, function, options.n or n, arguments, options.rounds), sides)
        finally:
            bench.redis.close()
    return 0


def run_rounds(bench, sides, function, n, arguments, rounds) -> dict[str, list[dict[str, float]]]:
    """Run every side in turn, ``rounds`` times."""
    figures: dict[str, list[dict[str, float]]] = {side.name: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            figures[side.name].append(function(bench, side, n, **arguments))
    return figures


def show(measure: str, figures: dict[str, list[dict[str, float]]], sides: list[Side]) -> None:
    print(f"\n{measure}")
    base = figures[sides[0].name]
    for key in base[0]:
        first = statistics.median(one[key] for one in base)
        for side in sides:
            values = [one[key] for one in figures[side.name]]
            middle = statistics.median(values)
            ratio = f"  x{middle / first:.2f}" if first else ""
            print(
                f"  {key:28} {side.name:9} {middle:10.2f}  [{min(values):.2f} .. {max(values):.2f}]{ratio}", flush=True
            )


if __name__ == "__main__":
    sys.exit(main())
