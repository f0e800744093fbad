"""Every canvas, run in this process and on workers of four kinds: how it ends, and what ran how often.

``t/facts/canvas/outcomes.py`` has the table and runs it, all canvases at once; ``outcomes.json`` says how they ended with
Celery 5.7.0.  Where we end otherwise on purpose, ``differences.py`` beside this file says how and why.
"""

from __future__ import annotations

import json
import time

import pytest
from canvas_kit import OUTCOMES, outcomes, places
from differences import differences, ours

#: Seconds in which all must have ended, for a machine that has much else to do.
LONG = 90
RECORDED = json.loads(OUTCOMES.with_suffix(".json").read_text())
WAYS = [
    pytest.param("redis/redis", marks=pytest.mark.redis),
    pytest.param("rabbitmq/rpc", marks=pytest.mark.rabbitmq),
    pytest.param("rabbitmq/database", marks=pytest.mark.rabbitmq),
    pytest.param("redis/filesystem", marks=pytest.mark.redis),
]
HANGS = "TimeoutError"


#: A database is slow: it gets the canvases that are there to be run, and not those of ``programs.py``.
PARTS = {"rabbitmq/database": outcomes.programs.lines(outcomes.MORE)}


def expected(way):
    table = PARTS.get(way) or outcomes.table()
    return {program: ours(way, program) or RECORDED[way][program] for program in table}


@pytest.fixture(scope="module")
def endings(request, tmp_path_factory):
    """Run the whole table one way; return how each canvas ended."""
    way = request.param
    if way == "eager":
        return outcomes.eager()
    wanted = expected(way)
    with places(way) as (redis, amqp):
        run = outcomes.Run(way, tmp_path_factory.mktemp("canvas"), redis, amqp)
        with run.worker():
            run.send(wanted)
            found = run.endings(LONG, last=[name for name, outcome in wanted.items() if outcome.get("error") == HANGS])
            states = {name: outcome["state"] for name, outcome in wanted.items() if "state" in outcome}
            ran = {name: outcome["ran"] for name, outcome in wanted.items()}
            deadline = time.monotonic() + 30
            while (run.ran(), run.states()) != (ran, states) and time.monotonic() < deadline:
                time.sleep(0.1)
            states = run.states()
        ran = run.ran()  # all that the worker, which stopped in peace, has run
        run.app.close()
    for program, state in states.items():
        found[program]["state"] = state
    return {program: {**found.get(program, {}), "ran": count} for program, count in ran.items()}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("endings", ["eager", *WAYS], indirect=True)
def test_every_canvas_ends_as_it_must(endings, request):
    way = request.node.callspec.params["endings"]
    wanted = expected(way)

    wrong = {
        program: (endings.get(program), wanted[program])
        for program in wanted
        if endings.get(program) != wanted[program]
    }
    assert wrong == {}
    assert endings.keys() == wanted.keys(), "runs that belong to no canvas"
    assert len(wanted) > 150


def test_every_difference_is_one():
    same = [(way, program) for way, program in differences() if ours(way, program) == RECORDED[way][program]]

    assert same == []


#: What only a worker has, or does at a distance: messages, expiry, rejection, results that are not kept.
OF_WORKERS = (
    "told",
    "deeper.s",
    "stamps",
    "LONG_AGO",
    "left",
    "rejected",
    "ignored",
    "ignore_result",
    "more_members",
    "chunks(",
)
#: Errors have the same class, but for chords: eagerly, the error of the member itself is raised.
OF_CHORDS = {"ChordError"}


def test_eager_mode_gives_what_a_worker_gives():
    eager, worker = expected("eager"), expected("redis/redis")
    compared, wrong = 0, {}
    for program, there in worker.items():
        if any(word in program for word in OF_WORKERS):
            continue
        here = eager[program]
        compared += 1
        same = here.get("value") == there.get("value") if "value" in there else "error" in here
        if there.get("error") not in {here.get("error"), None, *OF_CHORDS} or not same:
            wrong[program] = (here, there)
    assert wrong == {}
    assert compared > 300
