"""Faults with RabbitMQ as the broker: connections that are closed, time that runs out, queues that are not as told."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import amqp
from actors import PEER_PYTHON, QUICK_START, Publisher, Worker, wait_for_progress
from corpus import ASIDE, FAILS, MOST_BYTES, Amqp, Case, hand_made, mutations
from malformed import answer, batches
from messages import new_id
from oracle import Oracle
from rabbit import Vhost
from scenario import Skipped, Stage, is_root, scenario
from servers import wait_until

#: The exit status that says: wrong configuration, do not start me again.
EX_CONFIG = 78

SLOTS = 2


class Lane:
    """Workers and clients of one queue, with files and an oracle of their own."""

    def __init__(self, stage: Stage, vhost: Vhost, name: str, workers: int = 1, **conf: Any) -> None:
        self.stage, self.vhost, self.name = stage, vhost, name
        self.directory = stage.directory / name
        self.env = stage.env(vhost.url, directory=self.directory, task_default_queue=name, **conf)
        self.oracle = Oracle(self.directory)
        self.slots = SLOTS * workers
        self.workers = [
            stage.worker(self.env, *QUICK_START, "-c", str(SLOTS), name=f"{name}{number}", wait=False)
            for number in range(workers)
        ]

    @property
    def effects(self) -> Path:
        return self.directory / "effects"

    def publish(self, task: str, count: int, *arguments: Any) -> Publisher:
        return self.stage.publish(self.env, task, count, *arguments)

    def is_done(self) -> bool:
        return not self.oracle.lost()

    def wait_done(self, seconds: float) -> None:
        try:
            wait_until(self.is_done, seconds, f"all tasks of {self.name}")
        except TimeoutError as error:
            raise AssertionError(f"{error}; {self.tell(self.oracle.lost()[:5])}") from None

    def tell(self, ids: list[str]) -> str:
        return f"{self.oracle.tell(ids)} seed {self.stage.seed}, files in {self.directory}"

    def check(self, extra: int) -> dict[str, int]:
        """Check that nothing is lost or invented, that nothing runs more often than that, and that nothing is left."""
        figures = self.oracle.numbers()
        assert figures["lost"] == 0, f"{self.name}: {figures}; {self.tell(self.oracle.lost()[:5])}"
        assert figures["invented"] == 0, f"{self.name}: {figures}"
        more = list(self.oracle.extras())[:5]
        assert figures["extra"] <= extra, f"{self.name}: {figures['extra']} > {extra} ran again; {self.tell(more)}"
        wait_until(lambda: self.vhost.count(self.name) == 0, 5, f"queue {self.name} to be empty")
        wait_until(lambda: self.vhost.held(self.name) == 0, 10, f"all of {self.name} to be acknowledged")
        for worker in self.workers:
            assert worker.is_running(), f"{worker.name} ended; {worker.text()[-1500:]}"
            assert not worker.zombies(), f"zombies of {worker.name}"
            assert "Traceback" not in worker.text(), f"a traceback in {worker.log}"
        return figures


def vhost_of(stage: Stage) -> Vhost:
    vhost = Vhost(f"{stage.scenario.id}-{new_id()[:8]}")
    stage.house.callback(vhost.close)
    return vhost


# -- F11: connections ------------------------------------------------------------------------------------------------


@scenario("F11", unprotected="unprotect.adoption=off", tasks=500, short=0.08, broker="rabbitmq")
def connections_are_closed(stage: Stage) -> dict[str, Any]:
    """The broker closes all connections, again and again: what runs is not run a second time by its worker."""
    vhost = vhost_of(stage)
    lanes = [
        Lane(stage, vhost, "classic"),
        Lane(stage, vhost, "quorum", task_default_queue_type="quorum"),
        Lane(stage, vhost, "fleet", workers=2),
    ]
    every_worker = [worker for lane in lanes for worker in lane.workers]
    for worker in every_worker:
        worker.wait_ready()
    for publisher in [lane.publish("effect", stage.count, 0.5 if stage.scale >= 0.5 else 0.35) for lane in lanes]:
        publisher.wait(60)
    hits = 0
    for number in range(stage.times(40, 5)):
        busy = [lane for lane in lanes if not lane.is_done() and wait_for_progress(lane.effects, 8)]
        hits += len(busy)
        if not busy:
            break
        time.sleep(stage.dice.uniform(0.0, 0.6))
        for lane in lanes:
            lane.oracle.note_fault("close all" if number % 3 != 2 else "reset one")
        if number % 3 == 2 and is_root():
            vhost.reset_one(stage.dice)
        else:
            vhost.close_connections()
    for lane in lanes:
        lane.wait_done(30 + stage.count * 0.6)
    assert hits >= 6, f"only {hits} faults hit a worker at work"
    vhost.fresh()
    figures = {
        lane.name: lane.check(extra=lane.slots * len(lane.oracle.faults) if len(lane.workers) > 1 else 0)
        for lane in lanes
    }
    return {**{f"{name} extra": each["extra"] for name, each in figures.items()}, "hits": hits}


# -- F14: time runs out ----------------------------------------------------------------------------------------------


@scenario("F14", unprotected="unprotect.adoption=off", tasks=20, short=0.2, broker="rabbitmq")
def acknowledgements_come_late(stage: Stage) -> dict[str, Any]:
    """Tasks take longer than the broker's `consumer_timeout`: the worker stays, and each runs once."""
    vhost = vhost_of(stage)
    timeout, seconds = (5, 15) if stage.scale >= 0.5 else (1, 3)
    count = max(4, int(20 * stage.scale))
    vhost.evaluate(f"application:set_env(rabbit, consumer_timeout, {timeout * 1000}).")
    stage.house.callback(vhost.evaluate, "application:set_env(rabbit, consumer_timeout, 1800000).")
    lane = Lane(stage, vhost, "late", worker_prefetch_multiplier=1, task_time_limit=3600, task_acks_late=True)
    (worker,) = lane.workers
    worker.wait_ready()
    lane.publish("effect", count, seconds).wait(30)
    lane.wait_done(count * seconds / SLOTS + 12)
    vhost.fresh()
    figures = lane.check(extra=0)
    closings = worker.text().count("took longer to acknowledge")
    assert closings >= 2, f"the timeout never hit: {worker.text()[-3000:]}"
    assert "consumer_timeout" in worker.text().partition(" ready.")[0], "no warning at the start"
    return {**figures, "closings": closings}


# -- F16: names, queues, permissions ---------------------------------------------------------------------------------


@scenario("F16", unprotected="unprotect.label=off", tasks=100, short=0.2, broker="rabbitmq")
def the_broker_is_not_as_told(stage: Stage) -> dict[str, Any]:
    """Two workers of one name both work; a deleted queue is declared again; a refusal is told, with status 78."""
    vhost = vhost_of(stage)
    lane = Lane(stage, vhost, "twins", workers=2)
    for worker in lane.workers:
        worker.kill_group()
        worker.command[worker.command.index("-n") + 1] = "twin@t"
        worker.start()
    for worker in lane.workers:
        try:
            worker.wait_ready()
        except RuntimeError as error:
            raise AssertionError(f"a worker ended: {str(error)[-500:]}") from error
    lane.publish("effect", stage.count, 0.05).wait(30)
    lane.wait_done(30)
    children = [set(worker.children()) for worker in lane.workers]
    ran = {run.pid for runs in lane.oracle.executions().values() for run in runs}
    assert all(ran & each for each in children), f"one of the twins did not work: {ran} {children}"
    answers = lane.workers[0].pings()
    assert answers == 2, f"{answers} of 2 workers answered a ping"
    lane.check(extra=0)
    queue_is_deleted(lane)
    return {"deleted": "declared again", **dict(refusals(stage, vhost, lane))}


def queue_is_deleted(lane: Lane) -> None:
    """Delete the queue under its consumers, and see that both consume from a new one."""
    lane.oracle.note_fault("delete queue")
    lane.vhost.fresh().queue_delete(lane.name)
    wait_until(lambda: consumers(lane) == 2, 10, "both to consume again")
    lane.publish("effect", 20, 0.05).wait(30)
    lane.wait_done(20)
    for worker in lane.workers:
        assert worker.is_running(), f"{worker.name} ended: {worker.text()[-1500:]}"
        assert "Traceback" not in worker.text(), f"a traceback in {worker.log}"


def consumers(lane: Lane) -> int:
    try:
        return int(lane.vhost.channel().queue_declare(lane.name, passive=True).consumer_count)
    except amqp.NotFound:
        lane.vhost.fresh()
        return 0


def refusals(stage: Stage, vhost: Vhost, lane: Lane) -> Iterator[tuple[str, int]]:
    """Yield what the broker refuses, with the status of the worker that is told so."""
    vhost.fresh().queue_declare("other", durable=True, auto_delete=False, arguments={"x-max-length": 5})
    other = Lane(stage, vhost, "other").workers[0]
    yield "other arguments", ended(other, "exist with other arguments")
    vhost.node.ctl("set_permissions", "-p", vhost.name, "guest", "^$", "^$", "^$")
    vhost.close_connections()
    for worker in lane.workers:
        yield f"permission revoked ({worker.name})", ended(worker, "permission")


def ended(worker: Worker, text: str) -> int:
    """Return the status of a worker that must give up, and say why in a line."""
    try:
        status = worker.wait(20)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{worker.name} goes on: {worker.text()[-2000:]}") from None
    assert status == EX_CONFIG, f"{worker.name} ended with {status}: {worker.text()[-2000:]}"
    assert text in worker.text(), worker.text()[-2000:]
    assert "Traceback" not in worker.text(), worker.text()[-3000:]
    return status


# -- F33: malformed messages -----------------------------------------------------------------------------------------

SURE = (ASIDE, FAILS)
#: All headers of a message are in one frame.
MOST_PROPERTIES = 130_000


@scenario("F33-rabbitmq", unprotected="unprotect.aside=off", tasks=2_000, short=0.05, broker="rabbitmq")
def malformed_messages(stage: Stage) -> dict[str, Any]:
    """No message ends or wedges a worker; each that cannot run is set aside with a reason; none comes again."""
    vhost, redis = vhost_of(stage), stage.redis()
    options = {"max_message_bytes": MOST_BYTES}
    env = stage.env(vhost.url, redis.url, broker_transport_options=options)
    worker = stage.worker(env, *QUICK_START, "-c", "1")  # so that the answer comes behind all others
    cases = [case for case in hand_made() if as_amqp(case) is not None]
    stage.dice.shuffle(cases)
    cases.sort(key=lambda case: case.expect not in SURE)  # behind the others: how many of them are set aside is open
    mutated = [case for case in mutations(stage.seed, stage.count) if as_amqp(case) is not None]
    slowest, aside, wrong = 0.0, 0, []
    for batch in batches([*cases, *mutated]):
        for case in batch:
            vhost.publish(as_amqp(case))
        slowest = max(slowest, answer(redis, worker, batch, lambda: vhost.send("ping")))
        wait_until(lambda: vhost.count() == 0, 5, f"the queue to be empty after {[case.name for case in batch]}")
        found = set_aside(vhost, sum(case.expect == ASIDE for case in batch))
        aside += len(found)
        wrong += judge(batch, found)
    assert not wrong, f"{len(wrong)} were dealt with wrongly: {wrong[:8]}; seed {stage.seed}"
    wait_until(lambda: vhost.count() == 0 and vhost.held() == 0, 10, "nothing to wait or to be held")
    assert not worker.zombies()
    return {"hand-made": len(cases), "mutations": len(mutated), "set aside": aside, "slowest ping s": round(slowest, 2)}


def as_amqp(case: Case) -> amqp.Message | None:
    """Return the case as py-amqp sends it; nothing if AMQP cannot carry it."""
    parts = case.amqp
    try:
        if parts is None:
            whole = json.loads(case.raw or b"")
            body, headers = str(whole["body"]).encode(), dict(whole["headers"])
            parts = Amqp(body, headers, {}, str(whole["content-type"]), str(whole["content-encoding"]))
        kept = {name: value for name, value in parts.properties.items() if name in ("correlation_id", "reply_to")}
        message = amqp.Message(
            parts.body,
            application_headers=parts.headers,
            content_type=parts.content_type,
            content_encoding=parts.content_encoding,
            **kept,
        )
        size = len(message._serialize_properties())
    except Exception:
        return None
    return message if size < MOST_PROPERTIES else None


def set_aside(vhost: Vhost, expected: int) -> list[Any]:
    """Return what was set aside, as soon as that is as much as expected, or after a second."""
    found = list(vhost.dead_letters())
    deadline = time.monotonic() + 1
    while len(found) < expected and time.monotonic() < deadline:
        time.sleep(0.02)
        found += vhost.dead_letters()
    return found


def judge(batch: list[Case], found: list[Any]) -> list[str]:
    """Return what went wrong with a batch."""
    wrong = [f"no reason for {each.headers}" for each in found if not each.headers.get("x-celeriac-reason")]
    if all(case.expect in SURE for case in batch):
        expected = sum(case.expect == ASIDE for case in batch)
        if len(found) != expected:
            reasons = [each.headers.get("x-celeriac-reason") for each in found]
            wrong.append(f"{len(found)} of {expected} set aside of {[c.name for c in batch]}: {reasons}")
    return wrong


# -- F40: a mixed fleet ----------------------------------------------------------------------------------------------


@scenario("F40-rabbitmq", unprotected="unprotect.adoption=off", tasks=1_000, short=0.12, broker="rabbitmq")
def mixed_with_the_incumbent(stage: Stage) -> dict[str, Any]:
    """Celery's clients and workers share a queue with ours while connections are cut; ours run nothing over again."""
    if not PEER_PYTHON:
        raise Skipped("PEER_PYTHON names no interpreter with Celery 5.7")
    vhost = vhost_of(stage)
    lane = Lane(stage, vhost, "mixed")
    (worker,) = lane.workers
    peer = stage.worker(lane.env, *QUICK_START, python=PEER_PYTHON, name="peer", wait=False)
    worker.wait_ready()
    peer.wait_ready()
    theirs = stage.publish(lane.env, "effect", stage.count // 2, 0.3, name="peer-publisher", python=PEER_PYTHON)
    lane.publish("effect", stage.count // 2, 0.3).wait(60)
    theirs.wait(60)
    for _ in range(stage.times(40, 5)):
        if lane.is_done() or not wait_for_progress(lane.effects, 8):
            break
        time.sleep(stage.dice.uniform(0.05, 0.3))
        lane.oracle.note_fault("close all")
        vhost.close_connections()
    lane.wait_done(60 + stage.count * 0.3)
    vhost.fresh()
    ours, by_us, by_peer = set(worker.children()), 0, 0
    for task_id, runs in lane.oracle.executions().items():
        mine = [run for run in runs if run.pid in ours]
        by_us, by_peer = by_us + len(mine), by_peer + len(runs) - len(mine)
        assert len(mine) <= 1, f"our worker ran {task_id} {len(mine)} times; {lane.tell([task_id])}"
    assert by_us, "we ran nothing"
    assert by_peer, "the peer ran nothing"
    figures = lane.check(extra=2 * lane.slots * len(lane.oracle.faults))
    return {**figures, "ours": by_us, "peer": by_peer}
