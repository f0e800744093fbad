"""Run the tests by stages, the quick ones first: ``python t/run.py [STAGE ...]``.

Every stage runs even if an earlier one failed; the exit status tells of any failure, and the last line counts.  Stages that talk to
servers and processes mostly wait, so they run in two lanes side by side, each with a Redis of its own; what they print comes when a
stage ends.  Their tests that fail are run again when all else is done, alone and at most twice: on a machine with two busy cores a
deadline may pass that has nothing to do with us.  Those that then pass are named as unsteady; look into a name that comes back.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "t"))

#: Stages without a folder of tests.
LINT = [
    [sys.executable, "-m", "ruff", "format", "--check", "."],
    [sys.executable, "-m", "ruff", "check", "."],
    [sys.executable, "-m", "mypy"],
]

#: Stages that need no server, in their order; the tests of a stage are in the folder of that name.
QUICK = ("lint", "unit", "typing")

#: Stages with servers and processes; a lane is a sequence, the lanes run side by side.
LANES = (("contracts", "cli", "integration", "ecosystem", "docs", "interop"), ("faults",))

STAGES = (*QUICK, *(stage for lane in LANES for stage in lane))

#: How often a test is run that fails where servers and processes take part.
MOST_ATTEMPTS = 3

#: Stages that compare us with the release we agree with.
WITH_PEER = frozenset({"interop", "faults"})


Show = Callable[[str], object]


@dataclass
class Ran:
    """How a stage went: ``counts`` of tests by outcome; ``failures``, the names of tests as pytest keeps them."""

    stage: str
    is_good: bool
    counts: dict[str, int] = field(default_factory=dict)
    failures: str = ""


def show_now(text: str) -> None:
    print(text, end="", flush=True)


def call(command: list[str], env: dict[str, str], show: Show) -> tuple[int, str]:
    """Run a command, show what it prints, and return its status and its last line that counts tests."""
    show(f"== {' '.join(command[1:])}\n")
    counts = ""
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            show(line)
            counts = line if re.search(r"\d+ (passed|failed|skipped|error)", line) else counts
    return process.returncode, counts


def counted(line: str) -> dict[str, int]:
    numbers = {"passed": 0, "failed": 0, "skipped": 0}
    for count, word in re.findall(r"(\d+) (passed|failed|skipped|error)", line):
        numbers["failed" if word == "error" else word] += int(count)
    return numbers


def pytest(stage: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-o", f"cache_dir={cache(stage)}", f"t/{stage}", *options]


def cache(stage: str) -> Path:
    return ROOT / "build" / "tests" / stage


def run(stage: str, env: dict[str, str], show: Show) -> Ran:
    """Run one stage."""
    start = time.monotonic()
    if stage == "lint":
        ran = Ran(stage, sum(call(command, env, show)[0] != 0 for command in LINT) == 0)  # each, whatever others say
    else:
        shutil.rmtree(cache(stage), ignore_errors=True)
        status, line = call(pytest(stage), env, show)
        failed = cache(stage) / "v" / "cache" / "lastfailed"
        ran = Ran(stage, status == 0, counted(line), failed.read_text() if status == 1 and failed.exists() else "")
    show(f"== {stage}: {'ok' if ran.is_good else 'FAILED'} in {time.monotonic() - start:.0f} s\n")
    return ran


def run_again(ran: Ran, env: dict[str, str]) -> None:
    """Run the tests that failed again, and correct ``ran``."""
    for attempt in range(2, MOST_ATTEMPTS + 1):
        status, line = call(pytest(ran.stage, "--last-failed", "--last-failed-no-failures", "none"), env, show_now)
        again = counted(line)
        ran.counts["passed"] += again["passed"]
        ran.counts["failed"] = again["failed"]
        ran.is_good = status == 0
        if ran.is_good:
            show_now(f"Unsteady, passed at try {attempt}: {ran.failures}\n")
            return


def run_lane(lane: Sequence[str], env: dict[str, str]) -> list[Ran]:
    """Run stages one after the other; each is shown as a whole when it has ended."""
    done = []
    for stage in lane:
        output: list[str] = []
        done.append(run(stage, env, output.append))
        show_now("".join(output))
    return done


def run_lanes(lanes: list[list[str]], env: dict[str, str]) -> list[Ran]:
    """Run every lane, side by side where the second can have a Redis of its own, then what failed once more."""
    if len(lanes) > 1 and shutil.which("redis-server"):
        from services import second_redis

        with second_redis() as url, ThreadPoolExecutor() as threads:
            envs = [env, *({**env, "TEST_REDIS_URL": url} for _ in lanes[1:])]
            done = [ran for lane in threads.map(run_lane, lanes, envs) for ran in lane]
    else:
        done = [run(stage, env, show_now) for lane in lanes for stage in lane]
    for ran in done:
        if ran.failures:
            run_again(ran, env)
    return done


def main(stages: list[str]) -> int:
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        print(f"No such stage: {', '.join(unknown)}. Stages: {', '.join(STAGES)}", file=sys.stderr)
        return 2
    wanted = stages or STAGES
    env = dict(os.environ)
    lanes = [served for lane in LANES if (served := [stage for stage in lane if stage in wanted])]
    if lanes:
        from services import prepare

        env.update(prepare(with_peer=not WITH_PEER.isdisjoint(wanted)))
    done = [run(stage, env, show_now) for stage in QUICK if stage in wanted]
    done += run_lanes(lanes, env)
    failed = [ran.stage for ran in done if not ran.is_good]
    if failed:
        print(f"Failed stages: {', '.join(failed)}")
    totals = {word: sum(ran.counts.get(word, 0) for ran in done) for word in counted("")}
    print(f"{totals['passed']} passed, {totals['failed']} failed, {totals['skipped']} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
