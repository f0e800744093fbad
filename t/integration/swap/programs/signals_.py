"""Signals of tasks and workers, connections made in worker_process_init, task loggers."""

import common

from celery import signals
from celery.signals import (
    before_task_publish,
    task_failure,
    task_postrun,
    task_prerun,
    task_retry,
    task_success,
    worker_process_init,
)
from celery.utils.log import get_task_logger

app = common.app("signals_")
logger = get_task_logger(__name__)
connection = None
published = []


def note(*what):
    app.backend.client.rpush("notes", repr(what))


@worker_process_init.connect
def connect(**kwargs):
    global connection
    connection = "connected"


@signals.worker_ready.connect
def ready(sender, **kwargs):
    note("ready", type(sender).__name__)


@before_task_publish.connect
def before(sender=None, headers=None, body=None, **kwargs):
    headers["stamp_of_ours"] = "x"
    published.append(("before", sender, headers["task"], body[0], sorted(set(kwargs) - {"signal"})))


@signals.after_task_publish.connect(sender="signals_.work")
def after(sender=None, headers=None, **kwargs):
    published.append(("after", sender, "id" in headers, kwargs["routing_key"]))


@task_prerun.connect
def prerun(task_id, task, args, kwargs, **kw):
    if task.name.startswith("signals_"):
        note("prerun", task.name, list(args), dict(kwargs))


@task_postrun.connect
def postrun(task_id, task, retval, state, **kw):
    if task.name.startswith("signals_"):
        note("postrun", state, type(retval).__name__)


@task_success.connect
def success(sender, result, **kw):
    note("success", sender.name, result)


@task_failure.connect
def failure(sender, exception, einfo, traceback, args, **kw):
    note("failure", sender.name, repr(exception), list(args))


@task_retry.connect
def retry(sender, request, reason, einfo, **kw):
    note("retry", str(reason), request.retries)


@signals.task_revoked.connect
def revoked(sender, request, terminated, signum, expired, **kw):
    note("revoked", terminated, signum, expired)


@signals.task_unknown.connect
def unknown(name, id, **kw):
    note("unknown", name)


@app.task(bind=True)
def work(self, x):
    logger.info("working on %s", x)
    return connection, getattr(self.request, "stamp_of_ours", None)


@app.task
def fails():
    raise RuntimeError("fails")


@app.task(bind=True)
def again(self):
    if not self.request.retries:
        raise self.retry(exc=KeyError("again"), countdown=0)


def notes(n):
    found = []
    while len(found) < n:
        item = app.backend.client.blpop("notes", timeout=6)
        if item is None:
            break
        found.append(item[1].decode())
    return found


def main(show):
    show(notes(1))
    show(work.delay(3).get(timeout=10))
    show(sorted(notes(3)), published)
    fails.delay().get(timeout=10, propagate=False)
    show(sorted(notes(3)))
    again.delay().get(timeout=10)
    show(sorted(notes(6)))
    work.apply_async((1,), expires=-5)
    show(notes(1))
    app.send_task("no.such.task")
    show(notes(1))
    work.apply((9,))
    show(notes(3))
    show(logger.name, logger.parent.name, sorted(signals.task_prerun.providing_args), repr(signals.task_success))

    def once(**kwargs):
        published.append("once")

    signals.task_prerun.connect(once, weak=False, dispatch_uid="u")
    signals.task_prerun.connect(once, weak=False, dispatch_uid="u")
    before_count = published.count("once")
    work.apply((1,))
    show(published.count("once") - before_count, signals.task_prerun.disconnect(dispatch_uid="u"))
    app.backend.client.delete("notes")
