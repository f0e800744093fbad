"""F28: messages from small to huge, and what becomes huge when it is unpacked; on Redis and on RabbitMQ."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import zlib
from typing import Any

import amqp
from actors import QUICK_START, Memory, Worker, memory_of
from messages import envelope, headers_for, new_id, stored_result, task_message
from rabbit import Vhost
from rabbit_scenarios import vhost_of
from redis_scenarios import lease
from scenario import Stage, scenario
from servers import OwnRedis, wait_until

#: What a message may have, and what a result.
MOST_MESSAGE_BYTES, MOST_RESULT_BYTES = 72_000_000, 1_000_000
BOUNDS = {"result_backend_transport_options": {"max_result_bytes": MOST_RESULT_BYTES}}

CLIENT = """
import faultapp
for size in {sizes}:
    print(faultapp.blob.apply_async(("x" * size,)).get(timeout=30), flush=True)
print(faultapp.blob.apply_async(("x" * 3_000_000,), compression="gzip").get(timeout=10), flush=True)
try:
    faultapp.blob.apply_async(("x" * {limit},))
    print("sent", flush=True)
except Exception as error:
    print(type(error).__name__, error, flush=True)
try:
    print(len(faultapp.inflate.delay(2_000_000).get(timeout=30)), flush=True)
except Exception as error:
    print(type(error).__name__, error, flush=True)
"""


@scenario("F28", unprotected="unprotect.size=off;unprotect.bomb=off", tasks=50, short=0.2)
def on_redis(stage: Stage) -> dict[str, Any]:
    """Messages of 1 kB to 50 MB pass; larger ones are refused, so are larger results, a compressed bomb at its bound."""
    redis = stage.redis()
    env = stage.env(redis.url, redis.url, **lease(10, max_message_bytes=MOST_MESSAGE_BYTES), **BOUNDS)
    worker = stage.worker(env, *QUICK_START)
    with Latency(redis) as latency:
        figures = send_sizes(stage, worker)
    assert latency.worst <= 2.0, f"others waited {latency.worst:.1f} s"
    headers = headers_for("faultapp.blob", new_id(), compression="application/x-gzip")
    redis.client.lpush("celery", json.dumps(envelope(packed_blanks(), headers)))
    wait_until(redis.dead_letters, 10, "the bomb to be set aside")
    check_bomb(worker, redis.dead_letters()[0]["reason"])
    return {**figures, "worst latency s": round(latency.worst, 2)}


@scenario("F28-rabbitmq", unprotected="unprotect.size=off;unprotect.bomb=off", tasks=50, short=0.4, broker="rabbitmq")
def on_rabbitmq(stage: Stage) -> dict[str, Any]:
    """The same with RabbitMQ."""
    vhost, redis = vhost_of(stage), stage.redis()
    options = {"max_message_bytes": MOST_MESSAGE_BYTES}
    worker = stage.worker(stage.env(vhost.url, redis.url, broker_transport_options=options, **BOUNDS), *QUICK_START)
    figures = send_sizes(stage, worker)
    send_bomb(vhost)
    wait_until(lambda: vhost.count("celeriac.dead"), 10, "the bomb to be set aside")
    (dead,) = vhost.dead_letters()
    assert dead.headers["compression"] == "application/x-gzip"
    assert dead.body_size < 1_000_000, "it was kept unpacked"
    check_bomb(worker, dead.headers["x-celeriac-reason"])
    return figures


def send_sizes(stage: Stage, worker: Worker) -> dict[str, Any]:
    """Send messages up to the largest and beyond, and see what becomes of them, and of the worker's memory."""
    memory = Memory(worker)
    sizes = [1_000, 1_000_000, int(50_000_000 * min(1.0, stage.scale))]
    script = CLIENT.format(sizes=sizes, limit=MOST_MESSAGE_BYTES)
    done = subprocess.run(
        [sys.executable, "-c", script], env=worker.env, cwd=worker.cwd, capture_output=True, text=True, timeout=90
    )
    lines = done.stdout.splitlines()
    assert lines[: len(sizes) + 1] == [*map(str, sizes), "3000000"], f"{lines}\n{done.stderr[-2000:]}"
    assert len(lines) == len(sizes) + 3, f"{lines}\n{done.stderr[-2000:]}"
    refusal, failure = lines[-2:]
    assert refusal.startswith("MessageTooLarge"), refusal
    assert len(re.findall(r"\d[\d,]{8,}", refusal)) == 2, f"not refused with both numbers: {refusal}"
    assert failure.startswith("ResultTooLarge"), failure
    assert len(re.findall(r"\d[\d,]{8,}", failure)) == 2, f"not failed with both numbers: {failure}"
    peak = memory.peak() / sizes[-1]
    assert peak <= 4, f"a process of the worker took {peak:.1f} times the size of the largest message"
    return {"sizes": sizes, "peak RSS by size": round(peak, 1)}


def send_bomb(vhost: Vhost) -> None:
    headers = headers_for("faultapp.blob", new_id(), compression="application/x-gzip")
    vhost.publish(
        amqp.Message(
            packed_blanks(),
            application_headers=headers,
            content_type="application/json",
            content_encoding="utf-8",
        )
    )


def packed_blanks() -> bytes:
    """Return the body of a task with 400 MB of blanks, in 400 kB."""
    packed = zlib.compressobj(9)
    pieces = [packed.compress(b'[["')] + [packed.compress(b" " * (1 << 20)) for _ in range(400)] + [packed.flush()]
    return b"".join(pieces)


def check_bomb(worker: Worker, reason: str) -> None:
    """Check that the reason names the bound, and that nobody has unpacked what was set aside."""
    assert f"{MOST_MESSAGE_BYTES:,}" in reason, reason
    peak = max(memory_of(pid, "VmHWM") for pid in (worker.pid, *worker.children()))
    assert peak < 400 << 20, f"a process took {peak >> 20} MB"


class Latency:
    """Sends a small task every 0.2 s and measures how long it waits to be taken."""

    def __init__(self, redis: OwnRedis) -> None:
        self.redis, self.worst = redis.database(0), 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._measure)

    def _measure(self) -> None:
        while not self._ended.is_set():
            task_id, payload = task_message("faultapp.ping")
            began = time.monotonic()
            self.redis.lpush("celery", payload)
            stored_result(self.redis, task_id, 20)
            self.worst = max(self.worst, time.monotonic() - began)
            self._ended.wait(0.2)

    def __enter__(self) -> Latency:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)
