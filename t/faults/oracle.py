"""What must hold after the faults: the files that the actors wrote, and the invariants over them.

I1 no loss, I2 no invention, I3 every extra execution is explained by a fault, I4 recovery, I6 truthful states.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

#: An execution that ended this long before a fault may still run again: its acknowledgement was under way.
ACK_WINDOW_SECONDS = 0.5


@dataclass
class Execution:
    """One run of one task; ``end`` is ``None`` when it never came to its end."""

    id: str
    pid: int
    start: int
    end: int | None = None


class Fault(NamedTuple):
    """Something bad that was done between two moments, in ns of the monotonic clock."""

    when: int
    kind: str
    until: int


@dataclass
class Oracle:
    """The facts of one run, and the questions put to them."""

    directory: Path
    faults: list[Fault] = field(default_factory=list)

    def note_fault(self, kind: str) -> None:
        """Write down that a fault happens now."""
        now = time.monotonic_ns()
        self.faults.append(Fault(now, kind, now))

    def note_struck(self) -> None:
        """Write down that the last fault has struck only by now: what began since it was noted may be its victim, too."""
        self.faults[-1] = self.faults[-1]._replace(until=time.monotonic_ns())

    def ids(self, name: str) -> list[str]:
        path = self.directory / name
        return path.read_text().split() if path.exists() else []

    def executions(self) -> dict[str, list[Execution]]:
        """Return every execution by task id, in the order of their starts."""
        runs: dict[str, list[Execution]] = defaultdict(list)
        path = self.directory / "effects"
        for line in path.read_text().splitlines() if path.exists() else []:
            kind, task_id, pid, start, *rest = line.split()
            if kind == "begin":
                runs[task_id].append(Execution(task_id, int(pid), int(start)))
                continue
            for run in runs[task_id]:
                if run.pid == int(pid) and run.start == int(start):
                    run.end = int(rest[0])
                    break
            else:
                runs[task_id].append(Execution(task_id, int(pid), int(start), int(rest[0])))
        return runs

    def done(self) -> set[str]:
        """Return the ids that were executed to their end."""
        return {task_id for task_id, runs in self.executions().items() if any(run.end for run in runs)}

    def lost(self, dead: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
        """I1: ids that were sent, and neither executed nor set aside."""
        done = self.done()
        return [task_id for task_id in self.ids("sent") if task_id not in done and task_id not in dead]

    def invented(self) -> list[str]:
        """I2: ids that were executed although nobody sent them."""
        known = {*self.ids("sent"), *self.ids("maybe")}
        return [task_id for task_id in self.executions() if task_id not in known]

    def extras(self) -> dict[str, list[Execution]]:
        """Return the executions after each task's first one."""
        return {task_id: runs[1:] for task_id, runs in self.executions().items() if len(runs) > 1}

    def unexplained(self) -> list[str]:
        """I3: ids with an extra execution that no fault explains."""
        window = int(ACK_WINDOW_SECONDS * 1e9)
        bad = []
        for task_id, runs in self.executions().items():
            for before, after in itertools.pairwise(runs):
                end = before.end if before.end is not None else after.start
                last = min(end + window, after.start)
                if not any(before.start <= fault.until and fault.when <= last for fault in self.faults):
                    bad.append(task_id)
        return bad

    def extras_by_fault(self) -> Counter[int]:
        """Return how many executions each fault (by its place in the list) has cut off, so that they were repeated.

        Those that had ended, and whose acknowledgement was under way, are not among them.
        """
        count: Counter[int] = Counter()
        for runs in self.executions().values():
            for before in runs[:-1]:
                later = [index for index, fault in enumerate(self.faults) if fault.until >= before.start]
                if before.end is None:
                    count[later[0] if later else -1] += 1
        return count

    def tell(self, ids: list[str]) -> str:
        """Return the ids with what is known of each, one a line: its runs, and the faults near them."""
        runs = self.executions()
        lines = []
        for task_id in ids:
            spans = [
                f"{run.start / 1e9:.3f}-{run.end / 1e9 if run.end else 0:.3f} in {run.pid}" for run in runs[task_id]
            ]
            lines.append(f"{task_id}: {'; '.join(spans) or 'never ran'}")
        if lines:
            lines.append("faults: " + ", ".join(f"{fault.when / 1e9:.3f} {fault.kind}" for fault in self.faults))
        return "\n".join(["", *lines, ""]) if lines else ""

    def numbers(self, dead: set[str] = frozenset()) -> dict[str, int]:  # type: ignore[assignment]
        """Return the figures of the run, for its report."""
        return {
            "sent": len(self.ids("sent")),
            "done": len(self.done()),
            "faults": len(self.faults),
            "lost": len(self.lost(dead)),
            "invented": len(self.invented()),
            "extra": sum(map(len, self.extras().values())),
            "unexplained": len(self.unexplained()),
            "dead": len(dead),
        }
