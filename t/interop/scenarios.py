"""What a client does in each scenario, as plain values; run by `actor.py` under either implementation.

What must come out stands in the tests.  ``ALL`` maps names to functions.
"""

from __future__ import annotations

import datetime as dt
import decimal
import threading
import time
import uuid

import interopapp as tasks
from interopapp import NOTES, app

from celery import Celery, chain, chord, group
from celery.canvas import StampingVisitor
from celery.exceptions import TimeoutError
from celery.result import GroupResult

LONG = 15  # seconds after which an answer is not expected any more
UTC = dt.timezone.utc
ALL = {}


def scenario(function):
    ALL[function.__name__] = function
    return function


# -- helpers


def fresh():
    return uuid.uuid4().hex[:12]


def wait_until(claim, seconds=LONG):
    deadline = time.monotonic() + seconds
    while not (value := claim()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s")
        time.sleep(0.01)
    return value


def notes(*words):
    """Return the rest of each note that begins with ``words``."""
    beginning = [str(word) for word in words]
    try:
        with open(NOTES) as file:
            lines = [line.split() for line in file]
    except FileNotFoundError:
        return []
    return [line[len(beginning) :] for line in lines if line[: len(beginning)] == beginning]


def release(tag):
    open(f"{NOTES}.{tag}", "w").close()


def error_of(result):
    """Return how a failure looks to who reads it: class, module, arguments, and what its traceback names."""
    try:
        value = result.get(timeout=LONG)
    except Exception as error:
        kind = type(error)
        return {
            "state": result.state,
            "class": kind.__name__,
            "module": kind.__module__,
            "bases": [base.__name__ for base in kind.__mro__ if base.__module__ in ("builtins", "interopapp")][-3:-2],
            "args": [str(one) for one in error.args],
            "traceback": result.traceback or "",
        }
    return {"state": result.state, "value": value}


# -- single tasks


@scenario
def simple():
    return tasks.add.delay(2, 3).get(timeout=LONG)


@scenario
def kwargs():
    return tasks.add.apply_async((2,), {"y": 3}).get(timeout=LONG)


@scenario
def by_name():
    return app.send_task("interopapp.add", [2], {"y": 5}).get(timeout=LONG)


TYPED = {
    "aware": dt.datetime(2020, 1, 2, 3, 4, 5, 678901, UTC),
    "naive": dt.datetime(2020, 1, 2, 3, 4, 5),
    "date": dt.date(2020, 1, 2),
    "decimal": decimal.Decimal("1.50"),
    "uuid": uuid.UUID("12345678-1234-5678-1234-567812345678"),
    "bytes": b"\xff\x00",
    "text": "grüße ☃",
    "big": 2**70,
    "none": None,
    "nested": [[], {}, [{"a": [1.5, True]}]],
}


@scenario
def json_types():
    return tasks.echo.delay(TYPED).get(timeout=LONG) == TYPED


@scenario
def serializers():
    plain = {"a": [1, 2.5, None, "ü"], "b": {"c": True}}
    found = {}
    for serializer in ("json", "pickle", "yaml", "msgpack"):
        for compression in (None, "gzip", "bzip2"):
            result = tasks.echo.apply_async((plain,), serializer=serializer, compression=compression)
            found[f"{serializer}+{compression}"] = result.get(timeout=LONG) == plain
    return found


@scenario
def large():
    text = "0123456789" * 100_000
    return len(tasks.echo.delay(text).get(timeout=LONG))


@scenario
def retry():
    return tasks.retried.delay(2).get(timeout=LONG)


@scenario
def autoretry():
    return tasks.retried_by_itself.delay().get(timeout=LONG)


@scenario
def retries_exhausted():
    return error_of(tasks.retried_in_vain.delay())


@scenario
def failure():
    return error_of(tasks.fail.delay("boom"))


@scenario
def failure_builtin():
    return error_of(tasks.fail_builtin.delay())


@scenario
def failure_unbuildable():
    return error_of(tasks.fail_unbuildable.delay())


@scenario
def unknown_task():
    return error_of(app.send_task("interopapp.nobody_knows"))


@scenario
def wrong_arguments():
    return error_of(app.send_task("interopapp.add", [1]))


@scenario
def link():
    result = tasks.add.apply_async((2, 3), link=[tasks.mul.s(10), tasks.mul.si(3, 3)])
    value = result.get(timeout=LONG)
    (both,) = wait_until(lambda: result.children)  # several callbacks are sent as one group
    return [value, sorted(both.get(timeout=LONG))]


@scenario
def link_error():
    result = tasks.fail.apply_async(link_error=tasks.errback.s())
    state = error_of(result)["state"]
    return [state, wait_until(lambda: notes("errback", result.id))]


@scenario
def link_error_by_id():
    result = tasks.fail.apply_async(link_error=tasks.errback_by_id.s())
    state = error_of(result)["state"]
    return [state, wait_until(lambda: notes("errback-id", result.id))]


@scenario
def eta():
    due = time.time() + 0.8
    tag = fresh()
    result = tasks.noting.apply_async((tag,), eta=dt.datetime.fromtimestamp(due, UTC))
    result.get(timeout=LONG)
    done = result.date_done
    return [notes("start", tag), 0 <= done.replace(tzinfo=UTC).timestamp() - due < 2]


@scenario
def countdown():
    start = time.monotonic()
    value = tasks.add.apply_async((1, 2), countdown=0.6).get(timeout=LONG)
    return [value, 0.6 <= time.monotonic() - start < 2.6]


@scenario
def expires():
    gone, alive = tasks.add.apply_async((1, 2), expires=-1), tasks.add.apply_async((1, 2), expires=60)
    late = tasks.add.apply_async((1, 2), expires=dt.datetime.now(UTC) - dt.timedelta(seconds=5))
    return [error_of(gone), error_of(late)["state"], alive.get(timeout=LONG)]


@scenario
def ignore_result():
    tag, other = fresh(), fresh()
    result, by_call = tasks.silent.delay(tag), tasks.noting.apply_async((other,), ignore_result=True)
    wait_until(lambda: notes("silent", tag) == [[]] and notes("end", other) == [[]])
    time.sleep(0.1)
    return [app.AsyncResult(result.id).state, app.AsyncResult(by_call.id).state, result.get(timeout=1)]


@scenario
def revoked_before_start(worker):
    task_id, tag = str(uuid.uuid4()), fresh()
    app.control.revoke(task_id)
    inspect = app.control.inspect([worker], timeout=0.3)
    wait_until(lambda: task_id in (inspect.revoked() or {}).get(worker, ()))
    result = tasks.noting.apply_async((tag,), task_id=task_id)
    return [error_of(result), notes("start", tag)]


@scenario
def revoked_while_waiting():
    tag = fresh()
    result = tasks.noting.apply_async((tag,), countdown=0.7)
    result.revoke()
    return [error_of(result)["state"], notes("start", tag)]


@scenario
def revoked_by_stamp():
    stamp, tag = fresh(), fresh()
    signature = tasks.noting.si(tag, 60)
    signature.stamp(ticket=stamp)
    result = signature.apply_async()
    wait_until(lambda: notes("start", tag))
    app.control.revoke_by_stamped_headers({"ticket": [stamp]}, terminate=True)
    return [error_of(result)["state"], notes("end", tag)]


@scenario
def terminated():
    tag = fresh()
    result = tasks.noting.delay(tag, 60)
    wait_until(lambda: notes("start", tag))
    result.revoke(terminate=True)
    return [error_of(result), notes("end", tag)]


@scenario
def custom_state():
    tag = fresh()
    result = tasks.progressing.delay(tag)
    wait_until(lambda: result.state == "PROGRESS")
    found = result.info
    release(tag)
    return [found, result.get(timeout=LONG)]


@scenario
def progress_messages():
    """A waiting client is told of each state as it is stored."""
    tag, told = fresh(), []

    def on_message(message):
        state = message["status"] if isinstance(message, dict) else message.payload["status"]
        told.append(state)
        if state == "PROGRESS":
            release(tag)

    value = tasks.progressing.apply_async((tag,), countdown=0.3).get(timeout=LONG, on_message=on_message)
    return [told, value]


@scenario
def time_limits():
    return [error_of(tasks.limited_softly.delay()), error_of(tasks.limited_hard.delay())]


@scenario
def ignored_and_rejected():
    tag = fresh()
    result = tasks.ignoring.delay()
    tasks.rejecting.delay(tag)
    wait_until(lambda: notes("rejecting", tag))
    return [result.get(timeout=LONG), len(notes("rejecting", tag))]


@scenario
def late_acknowledgement():
    return [tasks.late.delay(number).get(timeout=LONG) for number in range(5)]


@scenario
def message_attributes():
    task_id = str(uuid.uuid4())
    result = tasks.seen.apply_async(
        task_id=task_id,
        headers={"x-custom": "v"},
        shadow="another name",
        time_limit=20,
        soft_time_limit=10,
        expires=60,
        priority=3,
        argsrepr="<args>",
        kwargsrepr="<kwargs>",
    )
    return [task_id, result.get(timeout=LONG)]


@scenario
def protocol_1():
    old = Celery("old", broker=app.conf.broker_url, backend=app.conf.result_backend, set_as_current=False)
    old.conf.update(task_protocol=1, task_default_queue=app.conf.task_default_queue)
    value = old.send_task("interopapp.add", (2, 3)).get(timeout=LONG)
    linked = old.send_task("interopapp.add", (2, 3), link=tasks.mul.s(2))
    linked.get(timeout=LONG)
    children = wait_until(lambda: linked.children)
    failed = old.send_task("interopapp.fail", link_error=tasks.errback_by_id.s())
    state = error_of(failed)["state"]
    wait_until(lambda: notes("errback-id", failed.id))
    limited = error_of(old.send_task("interopapp.noting", (fresh(), 10), soft_time_limit=0.3))
    old.close()
    return [value, children[0].get(timeout=LONG), state, limited["class"]]


@scenario
def forgotten():
    result = tasks.add.delay(1, 1)
    result.get(timeout=LONG)
    result.forget()
    return app.AsyncResult(result.id).state


@scenario
def pushed_result():
    """`then` is called by the notification of the store, without asking."""
    got = []
    result = tasks.noting.delay(fresh(), 0.1)
    result.then(lambda ready: got.append(ready.state))
    result.get(timeout=LONG)
    return got


# -- workflows


@scenario
def chains():
    one = chain(tasks.add.s(1, 2), tasks.mul.s(3), tasks.add.s(4)).apply_async()
    value = one.get(timeout=LONG)
    return [value, one.parent.get(timeout=LONG), one.parent.parent.get(timeout=LONG)]


@scenario
def chain_with_failure():
    result = chain(tasks.add.s(1, 2), tasks.fail.si("mid"), tasks.add.s(4)).on_error(tasks.errback.s()).apply_async()
    failed = result.parent
    state = error_of(failed)["state"]
    wait_until(lambda: result.ready())  # what was to follow fails, too
    return [state, wait_until(lambda: notes("errback", failed.id)), error_of(result)["class"]]


@scenario
def groups():
    result = group(tasks.add.s(number, number) for number in range(10)).apply_async()
    values = result.get(timeout=LONG)
    result.save()
    again = GroupResult.restore(result.id, app=app)
    return [values, again.get(timeout=LONG) == values, again.successful(), again.completed_count()]


@scenario
def chords():
    return chord([tasks.add.s(1, 2), tasks.add.s(3, 4), tasks.add.s(5, 6)])(tasks.total.s()).get(timeout=LONG)


@scenario
def chord_of_chains():
    head = [tasks.add.s(1, 2) | tasks.mul.s(3), tasks.add.s(3, 4) | tasks.mul.s(5)]
    return chord(head)(tasks.total.s()).get(timeout=LONG)


@scenario
def nested_chords():
    inner = chord([tasks.add.s(1, 2), tasks.add.s(3, 4)], tasks.total.s())
    return chord([inner, tasks.add.s(5, 6)])(tasks.total.s()).get(timeout=LONG)


@scenario
def chord_with_failure():
    body = tasks.total.s().on_error(tasks.errback_by_id.s())
    result = chord([tasks.add.s(1, 2), tasks.fail.s("part")])(body)
    # with propagate=True, the part's own error may be raised instead: whichever is seen first
    error = result.get(timeout=LONG, propagate=False)
    wait_until(lambda: notes("errback-id", result.id))
    return [result.state, type(error).__name__, str(error)]


@scenario
def chord_amid_a_chain():
    flow = tasks.add.s(1, 1) | group(tasks.add.s(1), tasks.add.s(2)) | tasks.total.s() | tasks.mul.s(2)
    return flow.apply_async().get(timeout=LONG)


@scenario
def chunks_and_maps():
    chunked = tasks.add.chunks([(1, 1), (2, 2), (3, 3)], 2).apply_async().get(timeout=LONG)
    mapped = tasks.total.map([[1, 2], [3]]).apply_async().get(timeout=LONG)
    return [chunked, mapped, tasks.add.starmap([(1, 2), (3, 4)]).apply_async().get(timeout=LONG)]


@scenario
def replacement():
    in_chain = chain(tasks.replaced.s(1), tasks.mul.s(2)).apply_async()
    by_chord = tasks.replaced_by_chord.delay(1)
    return [tasks.replaced.delay(1).get(timeout=LONG), in_chain.get(timeout=LONG), by_chord.get(timeout=LONG)]


@scenario
def family():
    """Parents, roots and children are told to who reads the result."""
    result = tasks.spawning.delay(5)
    child_id = result.get(timeout=LONG)
    flow = (tasks.echo.si(None) | tasks.seen.si()).apply_async()
    found = flow.get(timeout=LONG)
    return {
        "children": [child.id for child in result.children] == [child_id],
        "child": app.AsyncResult(child_id).get(timeout=LONG),
        "root": found["root_id"] == flow.parent.id,
        "parent": found["parent_id"] == flow.parent.id,
        "extended": [result.name, result.args, result.worker],
    }


class Everywhere(StampingVisitor):
    def on_signature(self, sig, **headers):
        return {"trace": "t1"}


@scenario
def stamps():
    flow = chain(tasks.seen.si(), tasks.seen.si())
    flow.stamp(visitor=Everywhere())
    result = flow.apply_async()
    last, first = result.get(timeout=LONG), result.parent.get(timeout=LONG)
    return [[found["stamps"], found["stamped_headers"]] for found in (first, last)]


# -- one client reads what another one sent


@scenario
def leave_records():
    """Send tasks of every outcome and a saved group; return ids for `read_records`."""
    good, bad = tasks.add.delay(20, 22), tasks.fail.delay("left")
    many = group(tasks.add.s(1, 1), tasks.add.s(2, 2)).apply_async()
    wait_until(lambda: good.ready() and bad.ready() and many.ready())
    many.save()
    return [good.id, bad.id, many.id]


@scenario
def read_records(good, bad, many):
    good, bad = app.AsyncResult(good), app.AsyncResult(bad)
    records = [
        [one.state, one.name, one.args, one.kwargs, one.worker, one.retries, one.queue, str(one.date_done)]
        for one in (good, bad)
    ]
    return [
        *records,
        good.result,
        repr(bad.result),
        bad.traceback,
        GroupResult.restore(many, app=app).get(timeout=LONG),
    ]


# -- remote control


@scenario
def control(worker, queue):
    """Ask one worker everything that can be asked."""
    inspect = app.control.inspect([worker], timeout=0.6)
    tags = [fresh() for _ in range(2)]
    running = [tasks.noting.delay(tag, 60) for tag in tags]
    later = tasks.add.apply_async((1, 2), countdown=300)
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


def set_queue(signature, queue):
    """Send every part of a workflow to ``queue``."""
    signature.set(queue=queue)
    for part in getattr(signature, "tasks", ()):
        set_queue(part, queue)
    if getattr(signature, "body", None):
        set_queue(signature.body, queue)
