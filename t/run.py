"""Run the tests by stages, the quick ones first: ``python t/run.py [STAGE ...]``.

Every stage runs even if an earlier one failed; the exit status tells of any failure, and the last line counts.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "t"))

PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]

#: Stage → commands; all run from the root of the clone.
STAGES: dict[str, list[list[str]]] = {
    "lint": [
        [sys.executable, "-m", "ruff", "format", "--check", "."],
        [sys.executable, "-m", "ruff", "check", "."],
        [sys.executable, "-m", "mypy"],
    ],
    "unit": [[*PYTEST, "t/unit"]],
    "contracts": [[*PYTEST, "t/contracts"]],
    "golden": [[*PYTEST, "t/golden"]],
    "integration": [[*PYTEST, "t/integration"]],
    "cli": [[*PYTEST, "t/cli"]],
    "interop": [[*PYTEST, "t/interop"]],
    "faults": [[*PYTEST, "t/faults"]],
}

#: Stages that talk to servers.
SERVED = {"contracts", "golden", "integration", "cli", "interop", "faults"}


def run(stage: str, env: dict[str, str], totals: dict[str, int]) -> bool:
    """Run one stage; returns whether all of its commands succeeded."""
    is_good = True
    for command in STAGES[stage]:
        target = Path(command[-1])
        if command[-1].startswith("t/") and not (ROOT / target).exists():
            continue
        print(f"== {stage}: {' '.join(command[1:])}", flush=True)
        with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            tail = ""
            for line in process.stdout:
                sys.stdout.write(line)
                tail = line if re.search(r"\d+ (passed|failed|skipped|error)", line) else tail
            sys.stdout.flush()
        for count, word in re.findall(r"(\d+) (passed|failed|skipped|error)", tail):
            totals["failed" if word == "error" else word] += int(count)
        is_good = is_good and process.returncode == 0
    return is_good


def main(stages: list[str]) -> int:
    env = {**os.environ, "PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "random")}
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        print(f"No such stage: {', '.join(unknown)}. Stages: {', '.join(STAGES)}", file=sys.stderr)
        return 2
    wanted = stages or list(STAGES)
    if SERVED & set(wanted):
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
