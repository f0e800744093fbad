"""Whatever happens to the children, each job runs at most once and is told exactly one end."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress

import pytest
from test_pool_contract import House, Job

ENDS = ("finished", "lost", "dropped", "hard limit")


class Noting(Job):
    """Writes a line to a file when it runs, so that runs can be counted."""

    def __init__(self, number: int, path: str, milliseconds: float, **options):
        super().__init__(f"note {number} {milliseconds} {path}", **options)
        self.number = number


def disturb(house: House, dice: random.Random, jobs: list[Noting], withdrawn: set[int]) -> None:
    """Do one thing that a pool must survive."""
    pool = house.pool
    pids = sorted(house.pids)
    action = dice.choice(["kill", "term", "restart", "grow", "shrink", "withdraw", "terminate", "look", "look"])
    if action in ("kill", "term") and pids:
        with suppress(ProcessLookupError):
            os.kill(dice.choice(pids), signal.SIGKILL if action == "kill" else signal.SIGTERM)
    elif action == "restart":
        pool.restart()
    elif action == "grow" and pool.limit < 4:
        pool.grow(1)
    elif action == "shrink" and pool.limit > 1:
        pool.shrink(1)
    elif action == "withdraw":
        job = dice.choice(jobs)
        if not job.has_ended and job.number not in withdrawn and pool.withdraw(job):
            withdrawn.add(job.number)
    elif action == "terminate" and pids:
        pool.terminate_job(dice.choice(pids), dice.choice(["SIGTERM", "SIGKILL"]))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("recycle", [None, 5])
def test_no_job_is_lost_or_run_twice_in_a_storm(seed, recycle, tmp_path):
    path = str(tmp_path / "runs")
    dice = random.Random(seed)
    house = House("fork", 2, maxtasksperchild=recycle)
    jobs: list[Noting] = []
    withdrawn: set[int] = set()
    try:
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            for _ in range(dice.randrange(30)):
                # One name for short and long ones: children are given several, some of which turn out long.
                milliseconds = dice.choice([0, 0, 0, 0, 0, 0, 0.2, 20])
                limit = 0.01 if dice.random() < 0.02 else None
                jobs.append(Noting(len(jobs), path, milliseconds, hard=limit))
                house.pool.submit(jobs[-1])
            house.turn(dice.choice([0, 0.002, 0.01, 0.03]))
            disturb(house, dice, jobs, withdrawn)
        house.until(lambda: all(job.has_ended or job.number in withdrawn for job in jobs))
    finally:
        house.close()
    with open(path) as file:
        runs = Counter(int(line) for line in file)

    for job in jobs:
        ends = [event[0] for event in job.told if event[0] in ENDS]
        if job.number in withdrawn:
            assert (job.told, runs[job.number]) == ([], 0), job
        else:
            assert len(ends) == 1, job
            assert job.told[0][0] == "started", job
            assert runs[job.number] == 1 if ends == ["finished"] else runs[job.number] <= 1, job
    ends = Counter(job.told[-1][0] for job in jobs if job.told)
    assert ends["finished"] > 0.8 * sum(ends.values())
