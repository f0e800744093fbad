"""What a pool costs a job: CPU time in the parent and in a child around a runner that does nothing.

    python t/bench/pool_overhead.py [--jobs 100000] [--children 2] [--ahead 64] [--answers] [--pool prefork]

Jobs are submitted as a busy broker would: never more than ``--ahead`` not yet answered.  ``--answers`` makes each job
answer with some bytes.  CPU time is the kernel's (user + system), so other load does not count; figures are µs a job.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from typing import Any

from kombu.asynchronous import Hub

from celery.concurrency import get_implementation

FRAME = b"x" * 900


class Runner:
    answer = b""

    def run(self, frame: bytes) -> bytes:
        return self.answer

    def flush(self) -> None:
        pass


class AnsweringRunner(Runner):
    answer = b"x" * 60


class Job:
    __slots__ = ("house",)
    id = "id"
    name = "bench.noop"
    hard_limit = soft_limit = None

    def __init__(self, house: Feeder) -> None:
        self.house = house

    def frame(self) -> bytes:
        return FRAME

    def on_started(self, pid: int, started_at: float) -> None:
        pass

    def on_finished(self, answer: bytes) -> None:
        self.house.ended += 1

    def on_lost(self, error: Exception) -> None:
        raise error


class Feeder:
    """Keeps the pool busy from a tick of the hub."""

    def __init__(self, pool: Any, jobs: int, ahead: int) -> None:
        self.pool, self.jobs, self.ahead = pool, jobs, ahead
        self.sent = self.ended = 0

    def feed(self) -> None:
        submit = self.pool.submit
        for _ in range(min(self.jobs - self.sent, self.ahead - (self.sent - self.ended))):
            self.sent += 1
            submit(Job(self))


def cpu_of(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def cpu_here() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--children", type=int, default=2)
    parser.add_argument("--ahead", type=int, default=64)
    parser.add_argument("--answers", action="store_true")
    parser.add_argument("--pool", default="prefork")
    options = parser.parse_args()

    hub = Hub()
    runner = AnsweringRunner if options.answers else Runner
    pool = get_implementation(options.pool)(options.children, runner=runner)
    pool.start()
    pool.register_with_event_loop(hub)
    pids = pool.info.get("processes", [])
    loop = hub.create_loop()

    def run(jobs: int) -> None:
        feeder = Feeder(pool, jobs, options.ahead)
        hub.on_tick.add(feeder.feed)
        while feeder.ended < jobs:
            next(loop)
        hub.on_tick.discard(feeder.feed)

    run(2_000)
    parent, children, began = cpu_here(), cpu_of(pids), time.monotonic()
    run(options.jobs)
    seconds = time.monotonic() - began
    parent, children = cpu_here() - parent, cpu_of(pids) - children
    pool.stop()
    print(
        f"{options.pool} -c {options.children}, {options.ahead} ahead, {'with' if options.answers else 'no'} answers: "
        f"parent {parent / options.jobs * 1e6:.1f} µs, child {children / options.jobs * 1e6:.1f} µs, "
        f"{options.jobs / seconds:,.0f} jobs/s"
    )


if __name__ == "__main__":
    main()
