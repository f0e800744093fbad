"""The app that both implementations run: ``celery -A interopapp worker``, and the tasks that scenarios call.

``INTEROP_*`` variables say where the broker, the results and the notes are, and which queue is the default one.
"""

from __future__ import annotations

import os
import time

from celery import Celery, group, states
from celery.exceptions import Ignore, Reject

NOTES = os.environ.get("INTEROP_NOTES", os.devnull)

app = Celery("interopapp", broker=os.environ.get("INTEROP_BROKER"), backend=os.environ.get("INTEROP_BACKEND"))
app.conf.update(
    accept_content=["json", "pickle", "yaml", "msgpack"],
    result_accept_content=["json", "pickle", "yaml", "msgpack"],
    task_default_queue=os.environ.get("INTEROP_QUEUE", "celery"),
    task_send_sent_event=True,
    worker_prefetch_multiplier=4,
    worker_pool_restarts=True,
    broker_connection_retry_on_startup=True,
    result_chord_retry_interval=0.3,
    result_extended=True,
)


def note(*words):
    """Append a line, in one write, to the file of notes."""
    fd = os.open(NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, (" ".join(map(str, words)) + "\n").encode())
    os.close(fd)


class Trouble(Exception):
    """An error of the user's own, which travels with its arguments."""


class Unbuildable(Exception):
    def __init__(self, first, second):
        super().__init__(first)
        self.second = second


@app.task
def add(x, y):
    return x + y


@app.task
def mul(x, y):
    return x * y


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def echo(value):
    return value


@app.task
def fail(message="boom"):
    raise Trouble(message, 42)


@app.task
def fail_builtin():
    return {}["missing"]


@app.task
def fail_unbuildable():
    raise Unbuildable(1, 2)


@app.task(bind=True, max_retries=3)
def retried(self, times):
    if self.request.retries < times:
        raise self.retry(countdown=0.05, exc=Trouble("again"))
    return self.request.retries


@app.task(bind=True, max_retries=1)
def retried_in_vain(self):
    raise self.retry(countdown=0.05, exc=Trouble("again"))


@app.task(bind=True, autoretry_for=(Trouble,), retry_backoff=0.05, retry_jitter=False, max_retries=3)
def retried_by_itself(self):
    if self.request.retries < 1:
        raise Trouble("once more")
    return self.request.retries


@app.task(ignore_result=True)
def silent(tag):
    note("silent", tag)
    return "nobody reads this"


@app.task
def noting(tag, seconds=0):
    note("start", tag)
    time.sleep(seconds)
    note("end", tag)
    return tag


@app.task(bind=True)
def where(self, number, seconds=0):
    """Tell which worker ran it: its note is the proof, its value the claim."""
    note("ran", number, self.request.hostname)
    time.sleep(seconds)
    return number


@app.task
def errback(request, error, traceback):
    note("errback", request.id, type(error).__name__, "Trouble" in str(traceback))


@app.task
def errback_by_id(task_id):
    note("errback-id", task_id)


@app.task(bind=True)
def seen(self):
    """Return what a task sees of its own message."""
    request = self.request
    names = ("id", "root_id", "parent_id", "group", "group_index", "correlation_id", "retries", "shadow", "is_eager")
    names += ("argsrepr", "kwargsrepr", "ignore_result", "replaced_task_nesting", "stamps", "stamped_headers")
    names += ("called_directly", "origin", "utc")
    found = {name: getattr(request, name, "no such attribute") for name in names}
    found["timelimit"] = list(request.timelimit)
    found["header"] = (request.headers or {}).get("x-custom")
    found["priority"] = request.delivery_info.get("priority")
    found["routing_key"] = request.delivery_info.get("routing_key")
    found["expires"], found["eta"], found["reply_to"] = map(bool, (request.expires, request.eta, request.reply_to))
    return found


@app.task(bind=True)
def progressing(self, tag):
    self.update_state(state="PROGRESS", meta={"done": 1, "of": 2})
    deadline = time.monotonic() + 10
    while not os.path.exists(f"{NOTES}.{tag}") and time.monotonic() < deadline:
        time.sleep(0.01)
    return "done"


@app.task(bind=True)
def replaced(self, x):
    raise self.replace(add.s(x, 10))


@app.task(bind=True)
def replaced_by_chord(self, x):
    raise self.replace(group(add.s(x, 1), add.s(x, 2)) | total.s())


@app.task(bind=True)
def spawning(self, x):
    return add.delay(x, 1).id


@app.task(bind=True)
def ignoring(self):
    self.update_state(state=states.SUCCESS, meta="set by hand")
    raise Ignore()


@app.task(bind=True, acks_late=True)
def rejecting(self, tag):
    note("rejecting", tag)
    raise Reject("no thanks", requeue=False)


@app.task(acks_late=True)
def late(x):
    return x


@app.task(soft_time_limit=0.4, time_limit=20)
def limited_softly():
    time.sleep(10)


@app.task(time_limit=0.6)
def limited_hard():
    time.sleep(10)
