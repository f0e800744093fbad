"""F20 on RabbitMQ: tasks that kill what runs them, where the broker does not count how often."""

from __future__ import annotations

import signal
from typing import Any

from messages import stored_result
from oracle import Oracle
from poisons import check_reasons
from rabbit import Vhost
from rabbit_scenarios import Lane, vhost_of
from scenario import Stage, scenario
from servers import wait_until

#: Each poison: its task, arguments, and what the reason must name.
KILLS_CHILD = (("poison", [int(signal.SIGKILL)], "signal 9"), ("poison", [int(signal.SIGSEGV)], "signal 11"))
KILLS_WORKER = (("poison_group", [], "worker was lost"), ("poison_worker", [], "worker was lost"))

#: What is noted when the worker is found dead, at most so many ns after its death.
WORKER_KILLED, NOTICED_WITHIN = "the worker was killed", 500_000_000

#: What the names of the queues begin with in which losses are counted.
LEDGER = "celeriac.losses."


@scenario("F20-rabbitmq", unprotected="unprotect.count=off", tasks=5_000, short=0.1, broker="rabbitmq")
def poison_is_set_aside(stage: Stage) -> dict[str, Any]:
    """A task that kills its process, or its worker, is tried three times and then set aside; all others finish."""
    redis = stage.redis()
    vhost = vhost_of(stage)
    kinds = {"classic": {}, "quorum": {"task_default_queue_type": "quorum"}}
    kills_worker = [[poison] for poison in KILLS_WORKER]
    if stage.scale < 0.5:  # each kill of a worker takes seconds
        kinds = dict([stage.dice.choice(list(kinds.items()))])
        kills_worker = [stage.dice.choice(kills_worker)]
    deliveries: dict[str, int] = {}
    for number, (name, conf) in enumerate(kinds.items()):
        url = f"{redis.url}/{number}"
        lane = Lane(stage, vhost, name, result_backend=url, task_ignore_result=False, **conf)
        deliveries |= play(stage, vhost, lane, redis.database(number), [KILLS_CHILD, *kills_worker])
    return {"deliveries": deliveries}


def play(stage: Stage, vhost: Vhost, lane: Lane, results: Any, doses: list[Any]) -> dict[str, int]:
    """Send ``doses`` of poison among other tasks to the worker of ``lane``; returns how often each ran."""
    (worker,) = lane.workers
    worker.wait_ready()
    publisher = lane.publish("effect", stage.count, 0.001)
    poisons: dict[str, tuple[str, str]] = {}
    # Tasks that run all the while beside those that kill the whole worker: they are innocent.
    bystanders = [vhost.send("effect", [1.2], lane.name) for _ in range(2)]

    def is_over() -> bool:
        runs = lane.oracle.executions()
        if any(len(runs[task_id]) > 3 for task_id in poisons):
            return True  # once too often: that will be found
        if not worker.is_running():
            lane.oracle.note_fault(WORKER_KILLED)
            worker.restart()
        return all(stored_result(results, task_id) for task_id in poisons)

    for dose in doses:
        for task, args, cause in dose:
            lane.oracle.note_fault(cause)
            poisons[vhost.send(task, args, lane.name)] = f"{task}{args}", cause
        wait_until(is_over, 40, f"the poison of {lane.name} to be set aside; {worker.log}")
    publisher.wait(60)
    runs = lane.oracle.executions()
    found = {f"{lane.name} {name}": len(runs[task_id]) for task_id, (name, _) in poisons.items()}
    assert all(count == 3 for count in found.values()), f"{found}; seed {stage.seed}, files in {lane.directory}"
    letters = {letter.headers["id"]: letter.headers["x-celeriac-reason"] for letter in vhost.dead_letters()}
    assert set(letters) == set(poisons), f"set aside: {letters}"
    check_reasons(poisons, letters, "3 times", results)
    lane.wait_done(40)
    ended = lane.oracle.done()
    assert all(task_id in ended for task_id in bystanders), f"a bystander was lost; files in {lane.directory}"
    assert worker.is_running(), f"the worker ended; {worker.log}"
    assert "Traceback" not in worker.text(), f"a traceback in {worker.log}"
    wait_until(
        lambda: not leaked(vhost, lane.oracle), 10, f"nothing to be left of the counting; files in {lane.directory}"
    )
    return found


def leaked(vhost: Vhost, oracle: Oracle) -> list[str]:
    """Return the counts that are left over, but for those of tasks that had just ended when their worker was killed.

    A count is dropped after the answer for its message: a worker that is killed in between leaves it to its expiry.
    """
    kills = [fault.when for fault in oracle.faults if fault.kind == WORKER_KILLED]
    runs = oracle.executions()

    def was_cut_off(task_id: str) -> bool:
        ends = [run.end for run in runs[task_id] if run.end is not None]
        return any(0 <= kill - end < NOTICED_WITHIN for kill in kills for end in ends)

    lines = vhost.node.ctl("-p", vhost.name, "list_queues", "name", "arguments").splitlines()
    counts = [line for line in lines if line.startswith(LEDGER)]
    return [line for line in counts if "x-expires" not in line or not was_cut_off(line[len(LEDGER) :].split(".")[0])]
