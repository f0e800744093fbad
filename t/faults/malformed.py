"""F33: whatever lies in the queue, the worker goes on, and what cannot be run is set aside with the reason."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from actors import Worker
from corpus import ASIDE, FAILS, MOST_BYTES, Case, hand_made, mutations
from messages import stored_result, task_message
from scenario import Stage, scenario
from servers import OwnRedis

#: Messages between two pings, and seconds for the answer.
BATCH = 10
PATIENCE = 2.0
CANARY = "/tmp/celeriac-was-here"


@scenario("F33", unprotected="unprotect.parse=off", tasks=3_000)
def malformed_messages(stage: Stage) -> dict[str, Any]:
    """No message ends or wedges a worker; each that cannot run is set aside with a reason; none comes again."""
    if os.path.exists(CANARY):
        os.unlink(CANARY)
    pools = ("prefork", "threads", "solo") if stage.scale >= 0.5 else ("prefork",)
    cases = list(hand_made())
    stage.dice.shuffle(cases)
    all_cases = [*cases, *mutations(stage.seed, stage.count)]
    return {"hand-made": len(cases), "mutations": stage.count, **{pool: feed(stage, pool, all_cases) for pool in pools}}


def feed(stage: Stage, pool: str, cases: list[Case]) -> dict[str, Any]:
    """Give all cases to a worker with ``pool``."""
    redis = stage.redis()
    options = {"lease_ttl": 5, "max_message_bytes": MOST_BYTES}
    env = stage.env(redis.url, redis.url, broker_transport_options=options)
    worker = stage.worker(env, "--without-mingle", "-P", pool, name=pool)
    pid, slowest, wrong = worker.pid, 0.0, []
    for batch in batches(cases):
        before = len(redis.dead_letters())
        for case in batch:
            redis.client.lpush("celery", case.payload())
        slowest = max(slowest, answer(redis, worker, batch, lambda: send_ping(redis)))
        wrong += judge(redis, batch, before)
    assert not wrong, f"{len(wrong)} were dealt with wrongly: {wrong[:8]}; seed {stage.seed}"
    assert worker.is_running(), "the worker ended"
    assert worker.pid == pid
    wait_until_empty(redis)
    reasons = [each["reason"] for each in redis.dead_letters()]
    assert all(reasons), f"{reasons.count(None)} were set aside without a reason"
    assert not os.path.exists(CANARY), "a pickle was run"
    assert not worker.zombies()
    assert "could not be sorted out" not in worker.text(), f"see {worker.log}"
    worker.kill_group()
    return {"set aside": len(reasons), "slowest ping s": round(slowest, 2)}


def batches(cases: Iterable[Case]) -> Iterator[list[Case]]:
    """Yield the cases in small lots; those that cost time alone, so that the clock is for them."""
    iterator = iter(cases)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def send_ping(redis: OwnRedis) -> str:
    task_id, payload = task_message("faultapp.ping")
    redis.client.lpush("celery", payload)
    return task_id


def answer(results: OwnRedis, worker: Worker, batch: list[Case], send: Callable[[], str]) -> float:
    """Have a ping sent behind ``batch``, by ``send``, which gives its id; returns how long the answer took."""
    names = [case.name for case in batch]
    began = time.monotonic()
    record = stored_result(results.client, send(), PATIENCE * 2)
    took = time.monotonic() - began
    assert worker.is_running(), f"the worker ended after one of {names}:\n{worker.text()[-3000:]}"
    assert record is not None, f"no answer in {PATIENCE * 2} s after {names}; {worker.text()[-2000:]}"
    assert record["status"] == "SUCCESS", record
    assert took <= PATIENCE, f"{took:.1f} s for the answer after {names}"
    return took


def judge(redis: OwnRedis, batch: list[Case], before: int) -> list[str]:
    """Return what went wrong with a batch: compare what was set aside with what should have been."""
    wait_until_empty(redis)
    aside = redis.dead_letters()[before:]
    if all(case.expect in (ASIDE, FAILS) for case in batch):
        expected = sum(case.expect == ASIDE for case in batch)
        if len(aside) != expected:
            kept = {fingerprint(each) for each in aside}
            missing = [c.name for c in batch if (fingerprint_of(c) in kept) != (c.expect == ASIDE)]
            return [f"{len(aside)} of {expected} set aside; suspects: {missing}"]
    return [f"no reason for {each}" for each in aside if not each["reason"]]


def fingerprint(envelope: Any) -> str:
    """Return what tells a message from others, whatever was added to its headers."""
    headers = envelope.get("headers")
    name = headers.get("id") if isinstance(headers, dict) else None
    return f"{name} {str(envelope.get('body'))[:200]}"


def fingerprint_of(case: Case) -> str:
    try:
        return fingerprint(json.loads(case.payload()))
    except (ValueError, AttributeError, RecursionError):
        return "no envelope"


def wait_until_empty(redis: OwnRedis, seconds: float = 5.0) -> None:
    """Wait until nothing waits and nothing is held: else something loops, or is stuck."""
    deadline = time.monotonic() + seconds
    while redis.client.llen("celery") or redis.client.hlen("unacked"):
        if time.monotonic() > deadline:
            held = [record[:300] for record in redis.client.hvals("unacked")]
            waiting = [payload[:300] for payload in redis.client.lrange("celery", 0, 3)]
            raise AssertionError(f"stuck: held {held}, waiting {waiting}")
        time.sleep(0.01)
