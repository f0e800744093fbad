"""Tasks end while the result store is away for longer than anybody is patient: what follows from their end is not lost."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import Any

from actors import QUICK_START, wait_for_progress
from canvas_scenarios import check_nothing_left, check_released_once, conf, lines
from messages import stored_result
from operations import run_script
from pools import GREEN_POOLS
from scenario import Stage, scenario
from servers import wait_until
from store_scenarios import OUTAGE_SECONDS, OUTAGES, OwnDirectory, gone, killed, missing_on_redis

from celery.concurrency.processes.roster import EXIT_SECONDS

#: Sends chords of ten members, and in between chords and chains that fail; says which id is to have which state.
SEND_CANVASES = """
import json, sys, canvastasks as t
from celery import chain, chord
from chordclient import body
states = {}
for number in range(int(sys.argv[1])):
    members = [t.member.s(1, float(sys.argv[2])) for _ in range(9)]
    states[chord([*members, t.member.s(1).set(ignore_result=True)], body(f"chord-{number}")).apply_async().id] = "SUCCESS"
    if number % 5 == 0:
        first = t.trouble.s("fails").on_error(t.told.s(label=f"chain-{number}"))
        states[chain(first, t.member.si(1), t.member.si(2))().id] = "FAILURE"
        failing = chord([t.member.s(1), t.trouble.s("ignores")], body(f"failing-{number}"))
        states[failing.apply_async().id] = "FAILURE"
print(json.dumps(states))
"""

#: Patient for about a second, while the store is away for longer.
IMPATIENT = {"chord_sweep_interval": 1, "retry_policy": {"max_retries": 3, "interval_step": 0.2, "interval_max": 0.3}}


@scenario("F25-canvas", unprotected="unprotect.store=off", tasks=2_000, short=0.08)
def ends_that_others_wait_for(stage: Stage) -> dict[str, Any]:
    """The store is away for longer than anybody is patient while members of chords end: bodies are sent, errbacks called."""
    figures: dict[str, Any] = {}
    cells = [("killed", False), ("stopped", False), ("handed over", False), ("full", False), ("killed", True)]
    if stage.unprotected:
        cells = cells[:1]
    elif stage.scale < 0.5:
        cells = [("killed", False), ("stopped", False), ("handed over", True)]
    wrong = stage.each(cells, lambda cell: one_outage(stage, *cell, figures), at_once=3)
    assert not wrong, "\n".join(wrong)
    return figures


def one_outage(stage: Stage, outage: str, is_late: bool, figures: dict[str, Any]) -> str | None:
    """Let canvases of an own broker and store run into an outage; returns what is wrong then."""
    seconds = max(4.0, OUTAGE_SECONDS * stage.scale)
    name = f"{outage}, {'late' if is_late else 'early'}"
    directory = stage.directory / name
    directory.mkdir()
    broker = stage.redis(directory=directory / "broker")
    store = stage.redis(durable=True, directory=directory / "store")
    settings = conf(redis_socket_timeout=1, task_acks_late=is_late, result_backend_transport_options=IMPATIENT)
    env = stage.env(broker.url, store.url, directory=directory, **settings)
    expected = json.loads(run_script(SEND_CANVASES, env, int(2 * seconds), 0.1))
    worker = stage.worker(env, *QUICK_START)
    with OUTAGES[outage](store):
        began = len(worker.text())
        time.sleep(seconds)
        meanwhile = worker.text()[began:].count("succeeded in")

    def missing() -> list[str]:
        states = {each: (stored_result(store.client, each) or {}).get("status") for each in expected}
        return [f"{each} is {state}" for each, state in states.items() if state != expected[each]]

    try:
        wait_until(lambda: not missing(), 8 if stage.unprotected else 40 + 2 * seconds, "the ends of all canvases")
    except TimeoutError:
        return f"{name}: {len(missing())} of {len(expected)} have not ended: {missing()[:3]}; {worker.log}"
    failing = sum(state == "FAILURE" for state in expected.values())
    errbacks = lines(directory, "errbacks")
    wait_until(lambda: len(lines(directory, "errbacks")) >= failing, 10, f"{failing} errbacks, not {errbacks}")
    check_released_once(stage, lines(directory, "bodies"), int(2 * seconds))
    check_nothing_left(store)
    raised = [line for line in worker.text().splitlines() if "raised" in line and "ValueError" not in line]
    if raised:
        return f"{name}: {raised[0]}; {worker.log}"
    if meanwhile < 2 * seconds and not is_late:
        return f"{name}: tasks did not go on, only {meanwhile} ended in {seconds} s; {worker.log}"
    figures[name] = {"canvases": len(expected), "ended meanwhile": meanwhile}
    return None


# -- every pool --------------------------------------------------------------------------------------------------------

#: Options of a worker by name of the cell.
WORKERS = {
    "threads": ("-P", "threads"),
    "solo": ("-P", "solo"),
    **{name: ("-P", name) for name in GREEN_POOLS},
    "worn out": ("--max-tasks-per-child", "3"),
    "shrunk": ("-c", "4"),
}


@scenario("F25-pools", unprotected="unprotect.store=off", tasks=300, short=0.1)
def every_pool_keeps_what_it_owes(stage: Stage) -> dict[str, Any]:
    """In every pool, and before a process retires: results of the last tasks before a lull wait for a store that is away."""
    figures: dict[str, Any] = {}
    cells = [(name, kind) for name in WORKERS for kind in ("redis", "directory")]
    if stage.unprotected:
        cells = cells[:1]
    elif stage.scale < 0.5:
        cells = [(name, kind) for name, kind in cells if kind == "redis" or name in ("gevent", "worn out")]
    wrong = stage.each(cells, lambda cell: one_lull(stage, *cell, figures), at_once=3)
    assert not wrong, "\n".join(wrong)
    return figures


def one_lull(stage: Stage, name: str, kind: str, figures: dict[str, Any]) -> str | None:
    """Let all tasks end while the store is away, and send no more; returns what is wrong when it is back."""
    cell = f"{name}, {kind}"
    directory = stage.directory / cell
    directory.mkdir()
    broker = stage.redis(directory=directory / "broker")
    if kind == "redis":
        server = stage.redis(durable=True, directory=directory / "store")
        url, outage, missing = server.url, killed(server), partial(missing_on_redis, server)
    else:
        place = OwnDirectory(stage, name, parent=directory)
        url, outage, missing = f"file://{place.path}", gone(place), place.missing
    options = {"result_backend_transport_options": {"retry_policy": IMPATIENT["retry_policy"]}}
    env = stage.env(broker.url, url, directory=directory, **conf(task_acks_late=False, **options))
    worker = stage.worker(env, *QUICK_START, "-c", "2", *WORKERS[name])
    effects = directory / "effects"
    stage.publish(env, "effect", max(20, stage.count), 0.1).wait(60)
    ids = (directory / "sent").read_text().split()
    wait_for_progress(effects, 1)
    with outage:
        if name != "worn out":
            wait_until(
                lambda: effects.exists() and effects.read_text().count("end ") == len(ids),
                30 + len(ids) * 0.2,
                "the tasks",
            )
        if name == "shrunk":
            run_script("import faultapp; faultapp.app.control.pool_shrink(3)", env)
            time.sleep(EXIT_SECONDS)
        time.sleep(2)
    began = time.monotonic()
    try:
        wait_until(lambda: not missing(ids), 8 if stage.unprotected else 30, "the results")
    except TimeoutError:
        return f"{cell}: {len(missing(ids))} of {len(ids)} tasks have no result; {worker.log}"
    figures[cell] = round(time.monotonic() - began, 1)
    runs = effects.read_text().count("end ")
    return None if runs == len(ids) else f"{cell}: {runs} runs of {len(ids)} tasks; {worker.log}"
