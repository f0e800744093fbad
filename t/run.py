"""Run the tests by stages, the quick ones first: ``python t/run.py [STAGE ...]``.

Every stage runs even if an earlier one failed; the exit status tells of any failure, and the last line counts.  Tests
that talk to servers and processes and fail are run once more, alone: on a machine with two busy cores a deadline may
pass that has nothing to do with us.  Those that then pass are named as unsteady; look into a name that comes back.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "t"))

#: Stages without a folder of tests.
LINT = [
    [sys.executable, "-m", "ruff", "format", "--check", "."],
    [sys.executable, "-m", "ruff", "check", "."],
    [sys.executable, "-m", "mypy"],
]

#: Stage → whether its tests talk to servers and processes; its tests are in the folder of that name.
STAGES = {
    "lint": False,
    "unit": False,
    "contracts": True,
    "cli": True,
    "integration": True,
    "interop": True,
    "faults": True,
}


def stream(command: list[str], env: dict[str, str]) -> tuple[int, str]:
    """Run a command, show what it prints, and return its status and its last line that counts tests."""
    print(f"== {' '.join(command[1:])}", flush=True)
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        counts = ""
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            counts = line if re.search(r"\d+ (passed|failed|skipped|error)", line) else counts
    return process.returncode, counts


def counted(line: str) -> dict[str, int]:
    numbers = {"passed": 0, "failed": 0, "skipped": 0}
    for count, word in re.findall(r"(\d+) (passed|failed|skipped|error)", line):
        numbers["failed" if word == "error" else word] += int(count)
    return numbers


def run_tests(stage: str, env: dict[str, str]) -> tuple[bool, dict[str, int]]:
    """Run the tests of a stage, those with servers a second time if they fail; returns success and counts."""
    cache = ROOT / "build" / "tests" / stage
    shutil.rmtree(cache, ignore_errors=True)
    pytest = [sys.executable, "-m", "pytest", "-o", f"cache_dir={cache}", f"t/{stage}"]
    status, line = stream(pytest, env)
    numbers = counted(line)
    if status == 1 and STAGES[stage]:
        failed = cache / "v" / "cache" / "lastfailed"
        names = failed.read_text() if failed.exists() else ""
        status, line = stream([*pytest, "--last-failed", "--last-failed-no-failures", "none"], env)
        again = counted(line)
        numbers["passed"] += again["passed"]
        numbers["failed"] = again["failed"]
        if status == 0:
            print(f"Unsteady, passed at the second try: {names}")
    return status == 0, numbers


def run(stage: str, env: dict[str, str], totals: dict[str, int]) -> bool:
    """Run one stage; returns whether it succeeded."""
    if stage == "lint":
        return sum(stream(command, env)[0] != 0 for command in LINT) == 0  # each of them, whatever the others say
    is_good, numbers = run_tests(stage, env)
    for word, number in numbers.items():
        totals[word] += number
    return is_good


def main(stages: list[str]) -> int:
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        print(f"No such stage: {', '.join(unknown)}. Stages: {', '.join(STAGES)}", file=sys.stderr)
        return 2
    wanted = stages or list(STAGES)
    env = dict(os.environ)
    if any(STAGES[stage] for stage in wanted):
        from services import prepare

        env.update(prepare(with_peer="interop" in wanted or "faults" in wanted))
    totals = {"passed": 0, "failed": 0, "skipped": 0}
    failed = []
    for stage in wanted:
        start = time.monotonic()
        if not run(stage, env, totals):
            failed.append(stage)
        print(f"== {stage}: {'FAILED' if stage in failed else 'ok'} in {time.monotonic() - start:.0f} s", flush=True)
    if failed:
        print(f"Failed stages: {', '.join(failed)}")
    print(f"{totals['passed']} passed, {totals['failed']} failed, {totals['skipped']} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
