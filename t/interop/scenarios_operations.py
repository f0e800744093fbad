"""Remote control, events, and fleets of workers of both implementations."""

from __future__ import annotations

import threading
import uuid

import interopapp as tasks
from interopapp import app
from scenario_kit import LONG, error_of, fresh, notes, release, scenario, wait_until

from celery import chain, chord, group
from celery.exceptions import TimeoutError

# -- remote control


@scenario
def control(worker, queue):
    """Ask one worker everything that can be asked."""
    inspect = app.control.inspect([worker], timeout=0.6)
    tags = [fresh() for _ in range(2)]
    running = [tasks.noting.delay(tag, 60) for tag in tags]
    # what expires at the broker is held by the worker, and does not wait in queues of RabbitMQ
    later = tasks.add.apply_async((1, 2), countdown=300, expiration=3600)
    wait_until(lambda: all(notes("start", tag) for tag in tags))

    def ask(name, *args, **kwargs):
        return (getattr(inspect, name)(*args, **kwargs) or {}).get(worker)

    scheduled = wait_until(lambda: ask("scheduled"))
    found = {"ping": ask("ping"), "active": ask("active"), "scheduled": scheduled, "stats": ask("stats")}
    found["registered"], found["active_queues"], found["clock"] = ask("registered"), ask("active_queues"), ask("clock")
    found["query_task"] = ask("query_task", running[0].id)
    found["reserved"], found["conf"], found["report"] = ask("reserved"), ask("conf"), ask("report")
    for result in running:
        app.control.revoke(result.id, terminate=True)
    app.control.revoke(later.id)
    found["revoked"] = wait_until(lambda: later.id in (answer := ask("revoked") or ()) and answer)
    found["ids"] = [result.id for result in running] + [later.id]
    [error_of(result) for result in running]
    return found


@scenario
def commands(worker):
    """Tell one worker to change, and see that it did."""
    inspect = app.control.inspect([worker], timeout=0.6)
    options = {"destination": [worker], "reply": True, "timeout": 2, "limit": 1}

    def answer(replies):
        return replies[0][worker] if replies else None

    def is_consumed():
        return queue in [one["name"] for one in (inspect.active_queues() or {}).get(worker, ())]

    tell, queue = app.control, f"extra-{fresh()}"
    found = {"add_consumer": answer(tell.add_consumer(queue, **options))}
    found["on_the_new_queue"] = tasks.add.apply_async((4, 5), queue=queue).get(timeout=LONG)
    found["queues"] = is_consumed()
    found["cancel_consumer"] = answer(tell.cancel_consumer(queue, **options))
    found["is_gone"] = wait_until(lambda: not is_consumed())
    found["rate_limit"] = answer(tell.rate_limit("interopapp.echo", "100/s", **options))
    found["rate_limit_off"] = answer(tell.rate_limit("interopapp.echo", 0, **options))
    found["rate_limit_unknown"] = answer(tell.rate_limit("nobody.knows", "1/s", **options))
    found["time_limit"] = answer(tell.time_limit("interopapp.echo", soft=50, hard=60, **options))
    found["pool_grow"] = answer(tell.pool_grow(1, **options))
    found["pool_shrink"] = answer(tell.pool_shrink(1, **options))
    found["heartbeat"] = answer(tell.heartbeat(**options))
    found["unknown"] = answer(tell.broadcast("no_such_command", **options))
    found["ping_pattern"] = tell.ping(timeout=0.5, pattern=worker.replace("@", "@*"), matcher="glob")
    found["still_works"] = tasks.add.delay(1, 1).get(timeout=LONG)
    return found


# -- events


class Listening:
    """A receiver in a thread, with `State` beside, as ``celery events`` has it."""

    def __init__(self):
        self.events, self.state, self.is_up = [], app.events.State(), threading.Event()
        self.stopped = False
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": self.note})
            with receiver.consumer_context(wakeup=True) as (own_connection, _, _):
                self.is_up.set()
                while not self.stopped:
                    try:
                        own_connection.drain_events(timeout=0.2)
                    except OSError:  # a time-out is one
                        pass

    def note(self, event):
        self.events.append(dict(event))
        self.state.event(event)

    def beats_of(self, worker):
        """Heartbeats sent by the clock: those sent because somebody asked tell less."""
        beats = [event for event in list(self.events) if event["type"] == "worker-heartbeat" and "active" in event]
        return [event for event in beats if event["hostname"] == worker]

    def of(self, task_id):
        return [event for event in list(self.events) if event.get("uuid") == task_id]


def kinds(events):
    return sorted(event["type"] for event in events)


@scenario
def events(worker):
    listening = Listening()
    wait_until(lambda: listening.events)  # a channel of Redis is heard from some moment on
    good, bad, again = tasks.add.delay(2, 3), tasks.fail.delay("seen"), tasks.retried.delay(1)
    over = tasks.add.apply_async((1, 2), expires=-1)
    wait_until(lambda: "task-succeeded" in kinds(listening.of(good.id)))
    wait_until(lambda: "task-failed" in kinds(listening.of(bad.id)))
    wait_until(lambda: "task-succeeded" in kinds(listening.of(again.id)))
    wait_until(lambda: "task-revoked" in kinds(listening.of(over.id)))
    beat = wait_until(lambda: listening.beats_of(worker))[0]
    listening.stopped = True
    task = listening.state.tasks[good.id]
    return {
        "kinds": [kinds(listening.of(result.id)) for result in (good, bad, again, over)],
        "fields": {event["type"]: sorted(event) for event in [*listening.of(bad.id), *listening.of(good.id), beat]},
        "state": [task.state, task.name, task.args, task.result, task.worker and task.worker.hostname],
        "alive": listening.state.workers[worker].alive,
        "error": [listening.state.tasks[bad.id].exception, "Trouble" in listening.state.tasks[bad.id].traceback],
        "system": [beat[name] for name in ("sw_ident", "sw_ver", "sw_sys")],
    }


@scenario
def listen_for(worker, seconds=20):
    """Note what is heard of one worker, from its start until it says good-bye."""
    listening = Listening()
    listening.is_up.wait(LONG)
    release(f"listening-for-{worker}")

    def heard():
        return [e["type"] for e in list(listening.events) if e["hostname"] == worker and e["type"].startswith("worker")]

    try:
        wait_until(lambda: "worker-offline" in heard(), seconds)
    finally:
        listening.stopped = True
    found = heard()
    return [found[0], found[-1], sorted(set(found))]


# -- fleets of both


@scenario
def fleet(queue, count):
    """Many tasks, a part of them with retry or countdown; returns ``[number, value]`` that differ."""
    tag = fresh()
    results = [(number, tasks.where.apply_async((f"{tag}-{number}", 0.005), queue=queue)) for number in range(count)]
    results += [(0.5, tasks.retried.apply_async((1,), queue=queue)) for _ in range(4)]
    wrong = []
    for number, result in results:
        wanted = 1 if number == 0.5 else f"{tag}-{number}"
        try:
            value = result.get(timeout=LONG)
        except TimeoutError:
            value = f"timed out, is {app.AsyncResult(result.id).state}"
        if value != wanted:
            wrong.append([wanted, value])
    ran = {}
    for number in range(count):
        for (hostname,) in notes("ran", f"{tag}-{number}"):
            ran.setdefault(hostname, []).append(number)
    return {"wrong": wrong, "ran": ran}


@scenario
def fleet_chord(queue, width):
    """A chord whose parts are done by either; returns its value and who ran the parts."""
    offset = uuid.uuid4().int % 10**9 * 1000
    head = [tasks.where.s(offset + number, 0.03).set(queue=queue) for number in range(width)]
    value = chord(head)(tasks.total.s().set(queue=queue)).get(timeout=40)
    ran = [name for number in range(width) for (name,) in notes("ran", offset + number)]
    return [value == sum(offset + number for number in range(width)), sorted(set(ran)), len(ran)]


@scenario
def fleet_workflow(queue):
    """Chains of many steps, groups and replaced tasks hop between the two."""
    flows = []
    for number in range(10):
        steps = [tasks.add.s(number, 0), *(tasks.add.s(1) for _ in range(6))]
        middle = group(tasks.add.s(1), tasks.add.s(2)), tasks.total.s(), tasks.mul.s(2)
        flow = chain(*steps, *middle)
        every = [*flow.tasks] if hasattr(flow, "tasks") else [flow]
        for step in every:
            set_queue(step, queue)
        flows.append(flow.apply_async())
    return [flow.get(timeout=40) for flow in flows] == [2 * (2 * (number + 6) + 3) for number in range(10)]


@scenario
def fleet_failing_chord(queue, count):
    """Chords with a part that fails, done by either: each body fails once, and its errback is called once."""
    results = []
    for number in range(count):
        head = [tasks.add.s(number, 1), tasks.add.s(1, 1) | tasks.fail.si("part"), tasks.add.s(1, number)]
        flow = chord(head, tasks.total.s().on_error(tasks.errback_by_id.s().set(queue=queue)))
        set_queue(flow, queue)
        results.append(flow.apply_async())
    errors = [type(result.get(timeout=40, propagate=False)).__name__ for result in results]
    wait_until(lambda: all(notes("errback-id", result.id) for result in results))
    return [set(errors) == {"ChordError"}, [len(notes("errback-id", result.id)) for result in results]]


def set_queue(signature, queue):
    """Send every part of a workflow to ``queue``."""
    signature.set(queue=queue)
    for part in getattr(signature, "tasks", ()):
        set_queue(part, queue)
    if getattr(signature, "body", None):
        set_queue(signature.body, queue)
