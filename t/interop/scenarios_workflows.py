"""Chains, groups, chords, stamps, and what one client reads of another's."""

from __future__ import annotations

import interopapp as tasks
from interopapp import app
from scenario_kit import LONG, error_of, notes, scenario, wait_until

from celery import chain, chord, group
from celery.canvas import StampingVisitor
from celery.result import GroupResult


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
def nested_workflow():
    inner = chord([tasks.add.s(1), tasks.add.s(2)], tasks.total.s())
    flow = chain(tasks.echo.s(1), group(tasks.add.s(1), inner), tasks.total.s(), group(tasks.add.s(1), tasks.add.s(2)))
    return flow.apply_async().get(timeout=LONG)


@scenario
def pickled_workflow():
    flow = tasks.add.s(1, 1) | group(tasks.add.s(1), tasks.add.s(2) | tasks.mul.s(2)) | tasks.total.s()
    for step in flow.tasks:
        set_serializer(step)
    return flow.apply_async(serializer="pickle").get(timeout=LONG)


def set_serializer(sig):
    sig.set(serializer="pickle")
    parts = sig.get("kwargs") or {}
    header = parts.get("header") or ()
    members = [*parts.get("tasks", ()), *(getattr(header, "tasks", header)), *filter(None, [parts.get("body")])]
    for member in members:
        set_serializer(member)


@scenario
def linked_workflows():
    """Callbacks that are workflows run after a task, after a chain and after a chord."""
    one = tasks.add.apply_async((1, 2), link=tasks.mul.s(10) | tasks.add.s(1))
    two = (tasks.add.s(1, 2) | tasks.mul.s(2)).apply_async(link=group(tasks.add.s(1), tasks.add.s(2)))
    body = tasks.total.s()
    body.link(tasks.mul.s(3))
    three = chord([tasks.add.s(1, 2), tasks.add.s(3, 4)])(body)
    found = []
    for result in (one, two, three):
        result.get(timeout=LONG)
        children = wait_until(lambda result=result: result.children)
        values = [child.get(timeout=LONG) for child in children]
        found.append(sorted(values, key=str))
    return found


@scenario
def replacement_in_a_chord():
    return chord([tasks.replaced.s(1), tasks.replaced_by_chord.s(1)])(tasks.total.s()).get(timeout=LONG)


@scenario
def chord_whose_chain_fails():
    body = tasks.total.s().on_error(tasks.errback_by_id.s())
    head = [chain(tasks.add.s(1, 2), tasks.fail.si("deep"), tasks.echo.s()), tasks.add.s(1, 1)]
    result = chord(head)(body)
    error = result.get(timeout=LONG, propagate=False)
    wait_until(lambda: notes("errback-id", result.id))
    return [result.state, type(error).__name__, str(error), len(notes("errback-id", result.id))]


@scenario
def rest_of_a_failed_chain():
    """What was to follow is told, also where that is a chord."""
    result = chain(tasks.fail.si("first"), group(tasks.add.s(1), tasks.add.s(2)), tasks.total.s()).apply_async()
    return [wait_until(lambda: result.ready()) and result.state, error_of(result)["class"]]


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


@scenario
def stamps_on_a_chord():
    flow = chord([tasks.seen.si(), tasks.seen.si()], tasks.echo.s())
    flow.stamp(visitor=Everywhere())
    return [[found["stamps"], found["stamped_headers"]] for found in flow.apply_async().get(timeout=LONG)]


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
