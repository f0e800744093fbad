"""Single tasks: what a client sends and what comes back, as plain values."""

from __future__ import annotations

import datetime as dt
import decimal
import time
import uuid

import interopapp as tasks
from interopapp import app
from scenario_kit import LONG, error_of, fresh, notes, release, scenario, wait_until

from celery import Celery

UTC = dt.timezone.utc


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
    due = time.time() + 0.5
    tag = fresh()
    result = tasks.noting.apply_async((tag,), eta=dt.datetime.fromtimestamp(due, UTC))
    result.get(timeout=LONG)
    done = result.date_done
    return [notes("start", tag), 0 <= done.replace(tzinfo=UTC).timestamp() - due < 2]


@scenario
def countdown():
    start = time.monotonic()
    value = tasks.add.apply_async((1, 2), countdown=0.4).get(timeout=LONG)
    return [value, 0.4 <= time.monotonic() - start < 2.4]


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
    result = tasks.noting.apply_async((tag,), countdown=0.5)
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
    both = [tasks.limited_softly.delay(), tasks.limited_hard.delay()]  # side by side
    return [error_of(result) for result in both]


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
