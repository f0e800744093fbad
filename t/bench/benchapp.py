"""The app of the measurements; it runs on the peer and on us without a change."""

import os
import struct
import time

from celery import Celery, chain, chord, group
from celery.result import ResultSet

RESULTS = os.environ.get("BENCH_RESULTS") == "1"
app = Celery("benchapp", broker=os.environ["BENCH_BROKER"], backend=os.environ.get("BENCH_BACKEND") or None)
app.conf.update(task_ignore_result=not RESULTS, broker_connection_retry_on_startup=True)

_ticks = os.open(os.environ.get("BENCH_TICKS", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_pack = struct.Struct("d").pack


@app.task(name="bench.noop")
def noop(i):
    os.write(_ticks, _pack(time.monotonic()))
    return i


@app.task(name="bench.inc", ignore_result=False)
def inc(x):
    return x + 1


@app.task(name="bench.total", ignore_result=False)
def total(xs):
    return sum(xs)


def enqueue(n):
    for i in range(n):
        noop.delay(i)


def roundtrips(n):
    """Return the seconds of ``n`` round trips, one after another."""
    times = []
    for _ in range(n):
        began = time.perf_counter()
        noop.delay(1).get(timeout=30)
        times.append(time.perf_counter() - began)
    return times


def burst(n):
    ResultSet([noop.delay(i) for i in range(n)]).get(timeout=300)


def prepare_wait(n):
    ResultSet([noop.delay(i) for i in range(3)]).get(timeout=30)
    return ResultSet([noop.delay(i) for i in range(n)])


def wait(results):
    results.get(timeout=300)


def build_chain(n):
    chain(*[inc.s(0)] + [inc.s() for _ in range(n - 1)]).freeze()


def canvas_group(n):
    assert len(group([inc.s(i) for i in range(n)]).apply_async().get(timeout=300)) == n


def canvas_chord(n):
    assert chord([inc.s(i) for i in range(n)])(total.s()).get(timeout=300) == n * (n + 1) // 2


def canvas_chain(n):
    assert chain(*[inc.s(0)] + [inc.s() for _ in range(n - 1)]).apply_async().get(timeout=300) == n
