"""Retries: by hand, by autoretry_for, their limits and their handlers."""

import common

from celery import Task
from celery.exceptions import Ignore, MaxRetriesExceededError, Reject, Retry, SoftTimeLimitExceeded

WORKER = ["-c", "1"]
app = common.app("retrying")


class Noting(Task):
    def before_start(self, task_id, args, kwargs):
        self.note("before_start", args, kwargs)

    def on_success(self, retval, task_id, args, kwargs):
        self.note("on_success", retval, args, kwargs)

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        self.note("on_failure", exc, args, kwargs, type(einfo).__name__, einfo.traceback.strip().splitlines()[-1])

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        self.note("on_retry", exc, args, kwargs)

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        self.note("after_return", status, retval, args, kwargs)

    def note(self, *what):
        app.backend.client.rpush("notes", repr(what))


@app.task(bind=True, base=Noting, max_retries=2, default_retry_delay=0)
def flaky(self, until):
    if self.request.retries < until:
        try:
            raise OSError("flaky")
        except OSError as error:
            raise self.retry(exc=error)
    return self.request.retries


@app.task(bind=True, autoretry_for=(KeyError,), retry_kwargs={"max_retries": 2, "countdown": 0})
def auto(self, until):
    if self.request.retries < until:
        raise KeyError(self.request.retries)
    return "auto", self.request.retries


@app.task(
    bind=True,
    autoretry_for=(Exception,),
    dont_autoretry_for=(ValueError,),
    retry_backoff=False,
    default_retry_delay=0,
    max_retries=1,
)
def picky(self, kind):
    raise {"value": ValueError, "type": TypeError}[kind](self.request.retries)


@app.task(bind=True)
def changed_args(self, n):
    if n < 3:
        raise self.retry((n + 1,), countdown=0)
    return n


@app.task(bind=True, max_retries=0)
def never(self):
    raise self.retry(countdown=0)


@app.task(bind=True)
def ignoring(self):
    self.update_state(state="CUSTOM", meta={"x": 1})
    raise Ignore()


@app.task(bind=True, acks_late=True)
def rejecting(self):
    raise Reject("no", requeue=False)


@app.task(throws=(LookupError,))
def expected():
    raise LookupError("expected")


@app.task(soft_time_limit=1)
def soft():
    import time

    try:
        time.sleep(5)
    except SoftTimeLimitExceeded:
        return "cleaned up"


@app.task(bind=True)
def hard(self):
    import time

    time.sleep(30)


def notes():
    client = app.backend.client
    found = [item.decode() for item in client.lrange("notes", 0, -1)]
    client.delete("notes")
    return found


def outcome(result):
    value = result.get(timeout=10, propagate=False)
    return result.state, value if not isinstance(value, BaseException) else repr(value)


def main(show):
    import time

    show(outcome(flaky.delay(2)))
    time.sleep(0.3)
    for line in notes():
        show(line)
    show(outcome(flaky.delay(5)))
    time.sleep(0.3)
    for line in notes():
        show(line)
    show(outcome(auto.delay(2)), outcome(auto.delay(9)))
    show(outcome(picky.delay("value")), outcome(picky.delay("type")))
    show(outcome(changed_args.delay(0)), outcome(never.delay())[1][:44])
    r = ignoring.delay()
    time.sleep(0.5)
    show(r.state, r.info)
    r = rejecting.delay()
    time.sleep(0.5)
    show(r.state)
    show(outcome(expected.delay()), outcome(soft.delay()))
    r = hard.apply_async(time_limit=1)
    show(outcome(r)[0], type(r.result).__name__, r.result.args)
    show(outcome(flaky.apply((1,))), outcome(auto.apply((1,))))
    try:
        flaky.apply((9,)).get()
    except OSError as error:
        show(repr(error))
    try:
        flaky.retry()
    except BaseException as error:
        show(type(error).__name__)
    show(str(Retry("m", ValueError(1), 3)), str(MaxRetriesExceededError("x")), Retry(when=10).humanize())
    notes()
