"""F21: every named point of the code, with everything that can happen there, and exactly how often the task runs.

A cell is one worker with one slot, one task that takes `TASK_SECONDS`, and one fault; then a second task, which shows
that the worker (or its successor) is well.  ``ends`` is how often the first task came to its end.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

from actors import Worker
from messages import stored_result, task_message
from oracle import Oracle
from scenario import Stage, scenario
from servers import wait_until

LEASE_SECONDS = 1
TASK_SECONDS = 0.3
CHILD, PARENT = "SIGKILL child", "SIGKILL parent"
#: This place is not reached in this mode.
NEVER = -1


class Cell(NamedTuple):
    """A place, what happens there (for ``CELERIAC_FAILPOINTS``), and what must come of it."""

    point: str
    what: str
    action: str
    #: Times the task ends with late and with early acknowledgement.
    late: int
    early: int
    #: The state stored at last, with early acknowledgement where it differs.
    early_state: str = "SUCCESS"

    def __str__(self) -> str:
        return f"{self.point} x {self.what}"


def cells() -> list[Cell]:
    """Return the matrix."""
    lost = "FAILURE"
    return [
        # The parent has leased the message, or is about to hand it over: nothing has begun.
        Cell("fetch.after_lease", PARENT, "kill", 1, 1),
        Cell("fetch.after_lease", "raise", "raise", 1, 1),
        Cell("fetch.after_lease", "sleep", "sleep:1.5", 1, 1),
        Cell("deliver.before_callback", PARENT, "kill", 1, 1),
        Cell("deliver.before_callback", "raise", "raise", 1, 1),
        Cell("deliver.before_callback", "sleep", "sleep:1.5", 1, 1),
        # The frame is in the child's socket; the child, stopped beforehand, has not read it.
        Cell("pool.after_dispatch", CHILD, "killchildren", 1, 1),
        Cell("pool.after_dispatch", PARENT, "kill", 1, 1),
        Cell("pool.after_dispatch", "raise", "raise", 1, 1),
        Cell("pool.after_dispatch", "sleep", "sleep:0.5", 1, 1),
        # The child has it in hand, and has not put on record that it starts.
        Cell("child.before_start", CHILD, "kill,delay=0.2", 1, 1),
        Cell("child.before_start", PARENT, "killparent,delay=0.2", 1, 1),
        Cell("child.before_start", "raise", "raise", 1, 1),
        Cell("child.before_start", "sleep", "sleep:0.5", 1, 1),
        # It has begun; what is acknowledged early is not run again, and who waits is told.
        Cell("child.before_run", CHILD, "kill,delay=0.2", 1, 0, lost),
        Cell("child.before_run", PARENT, "killparent,delay=0.2", 1, 0, ""),
        Cell("child.before_run", "raise", "raise,delay=0.2", 1, 0, lost),
        Cell("child.before_run", "sleep", "sleep:0.5", 1, 1),
        # Its effect is there, and nobody knows.
        Cell("child.after_effect", CHILD, "kill", 2, 1, ""),
        Cell("child.after_effect", PARENT, "killparent,delay=0.2", 2, 1, ""),
        Cell("child.after_effect", "raise", "raise", 2, 1, ""),
        Cell("child.after_effect", "sleep", "sleep:0.5", 1, 1),
        # Its result is written and not confirmed.
        Cell("store.before_confirm", CHILD, "kill", 2, 1, ""),
        Cell("store.before_confirm", PARENT, "killparent,delay=0.2", 2, 1, ""),
        Cell("store.before_confirm", "raise", "raise", 2, 1),
        Cell("store.before_confirm", "sleep", "sleep:0.5", 1, 1),
        # The acknowledgement after the effect.  An early one is a note that the task has begun.
        Cell("ack.before_send", PARENT, "kill", 2, NEVER),
        Cell("ack.before_send", "raise", "raise", 1, NEVER),
        Cell("ack.before_send", "sleep", "sleep:0.5", 1, NEVER),
        Cell("ack.after_send", PARENT, "kill", 1, NEVER),
        Cell("ack.after_send", "raise", "raise", 1, NEVER),
        Cell("ack.after_send", "sleep", "sleep:0.5", 1, NEVER),
        Cell("begun.before_send", PARENT, "kill", NEVER, 1),
        Cell("begun.before_send", "raise", "raise", NEVER, 1),
        Cell("begun.before_send", "sleep", "sleep:0.5", NEVER, 1),
        Cell("begun.after_send", PARENT, "kill", NEVER, 0, ""),
        Cell("begun.after_send", "raise", "raise", NEVER, 1),
        Cell("begun.after_send", "sleep", "sleep:0.5", NEVER, 1),
        # The lease is renewed while it runs.
        # What is acknowledged early is not leased any more.
        Cell("renew.before_send", PARENT, "kill", 1, NEVER),
        Cell("renew.before_send", "raise", "raise", 1, NEVER),
        Cell("renew.before_send", "sleep", "sleep:0.5", 1, NEVER),
    ]


class Table:
    """Plays cells on one server, each in a database of its own."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.redis = stage.redis(options=("--databases", "200"))
        self.free = iter(range(200))

    def play(self, cell_and_mode: tuple[Cell, bool]) -> str | None:
        """Play one cell; returns what was wrong with it."""
        cell, late = cell_and_mode
        number = next(self.free)
        mode = "late" if late else "early"
        directory = self.stage.directory / f"{cell.point}-{cell.what}-{mode}".replace(" ", "-")
        once = directory / "once"
        armed = f"{cell.point}={cell.action},once={once}"
        if cell.point == "pool.after_dispatch" and cell.what in (CHILD, PARENT):
            armed += f";pool.before_dispatch=stopchildren,once={once}2"
        url = f"{self.redis.url}/{number}"
        conf = {
            "broker_transport_options": {"lease_ttl": LEASE_SECONDS},
            "task_acks_late": late,
            "worker_prefetch_multiplier": 1,
        }
        env = self.stage.env(url, url, armed, directory, **conf)
        worker = self.stage.worker(env, "-c", "1", "--without-mingle", "--without-gossip", "--without-heartbeat")
        try:
            return self._judge(cell, late, env, worker, number, once)
        finally:
            worker.kill_group()

    def _judge(
        self, cell: Cell, late: bool, env: dict[str, str], worker: Worker, number: int, once: Path
    ) -> str | None:
        client = self.redis.database(number)
        where = f"{cell} ({'late' if late else 'early'}), {worker.log}"
        task_id, payload = task_message("faultapp.effect", [TASK_SECONDS])
        client.lpush("celery", payload)
        wait_until(once.exists, 8, f"{where}: the fault")
        second_id, payload = task_message("faultapp.effect", [0.0])
        client.lpush("celery", payload)
        deadline = time.monotonic() + 12
        while stored_result(client, second_id, 0.05) is None:
            if not worker.is_running():  # the fault has ended it
                worker.restart()
            if time.monotonic() > deadline:
                return f"{where}: the next task did not run"
        # Whatever is still to come back is back by then; the lease is the longest that anything waits.
        deadline = time.monotonic() + LEASE_SECONDS * 2.5
        while client.hlen("unacked") or client.llen("celery"):
            if time.monotonic() > deadline + 5:
                return f"{where}: held for ever: {client.hkeys('unacked')}"
            time.sleep(0.02)
        if cell.what != "sleep":
            time.sleep(TASK_SECONDS)
        runs = Oracle(Path(env["FAULT_DIR"])).executions()
        ends = [run for run in runs.get(task_id, ()) if run.end]
        expected = cell.late if late else cell.early
        if len(ends) != expected:
            return f"{where}: {len(ends)} executions instead of {expected}"
        if len(runs[second_id]) != 1:
            return f"{where}: the next task ran {len(runs[second_id])} times"
        return self._judge_state(cell, late, client, task_id, where)

    def _judge_state(self, cell: Cell, late: bool, client: Any, task_id: str, where: str) -> str | None:
        """Compare the state stored for the task; nothing is asked of a state that no process was left to store."""
        state = "SUCCESS" if late else cell.early_state
        if not state:
            return None
        record = stored_result(client, task_id, 2)
        found = record["status"] if record else "nothing"
        return None if found == state else f"{where}: state {found} instead of {state}"

    def play_publishing(self, cell: tuple[str, str, int]) -> str | None:
        """A client fails while it publishes: the task is there exactly if the broker has got it."""
        point, action, expected = cell
        number = next(self.free)
        directory = self.stage.directory / f"{point}-{action}".replace(":", "-")
        env = self.stage.env(f"{self.redis.url}/{number}", "", f"{point}={action}", directory)
        publisher = self.stage.publish(env, "effect", 1)
        status = publisher.wait(20)
        if action == "kill" and status != -signal.SIGKILL:
            return f"{point} x {action}: the client lived: {publisher.text()}"
        found = self.redis.database(number).llen("celery")
        return None if found == expected else f"{point} x {action}: {found} messages instead of {expected}"


PUBLISHING = [
    ("publish.before_send", "kill", 0),
    ("publish.before_send", "raise", 0),
    ("publish.before_send", "sleep:0.3", 1),
    ("publish.after_send", "kill", 1),
    ("publish.after_send", "raise", 1),
    ("publish.after_send", "sleep:0.3", 1),
]


@scenario("F21", unprotected="unprotect.lease=off", tasks=60, short=0.2)
def failpoint_matrix(stage: Stage) -> dict[str, Any]:
    """At every named point, whatever happens there, a task runs exactly as often as promised."""
    table = Table(stage)
    modes = (True, False)
    everything = [(cell, late) for cell in cells() for late in modes if (cell.late if late else cell.early) != NEVER]
    # These show most; the others of a short run are the dice's.
    chosen = [each for each in everything if each[0][:2] == ("fetch.after_lease", PARENT)]
    others = [each for each in everything if each not in chosen]
    many = max(6, int(len(everything) * stage.scale) - len(chosen))
    chosen += others if stage.scale >= 1 else stage.dice.sample(others, many)
    publishing = PUBLISHING if stage.scale >= 1 else stage.dice.sample(PUBLISHING, 2)
    wrong = stage.each(publishing, table.play_publishing)
    wrong += stage.each(chosen, table.play, at_once=6)
    assert not wrong, f"{len(wrong)} of {len(chosen)} cells: " + "\n".join(wrong) + f"\nseed {stage.seed}"
    return {"cells": len(chosen) + len(publishing)}
