"""Progress, custom states, results that expire, are iterated, raise and are told by callbacks."""

import time

import common

from celery import states
from celery.result import AsyncResult, ResultSet, allow_join_result, result_from_tuple

app = common.app("states", result_extended=True, task_track_started=True, result_expires=3600)


@app.task(bind=True)
def working(self, total):
    for i in range(total):
        self.update_state(state="PROGRESS", meta={"current": i, "total": total})
        time.sleep(0.15)
    return {"done": total}


@app.task(bind=True)
def custom(self):
    self.update_state(state="WAITING", meta=["a", 1])
    time.sleep(0.6)


@app.task
def slow(t):
    time.sleep(t)
    return t


class OddError(Exception):
    def __init__(self, a, b):
        super().__init__(a, b)
        self.a = a


@app.task
def odd():
    raise OddError(1, 2)


@app.task(bind=True)
def joining(self):
    with allow_join_result():
        return slow.delay(0).get(timeout=5)


@app.task
def not_allowed():
    return slow.delay(0).get(timeout=5)


def main(show):
    r = working.delay(5)
    seen = []
    r.get(timeout=10, on_message=lambda body: seen.append((body["status"], body["result"])))
    show(seen[-1], {s for s, _ in seen} <= {"STARTED", "PROGRESS", "SUCCESS"}, r.info)
    r = custom.delay()
    time.sleep(0.4)
    show(r.state, r.info, r.ready(), r.get(timeout=5), r.state)
    r = slow.delay(1)
    time.sleep(0.5)
    show(r.state, sorted(r.info))
    show(
        r.get(timeout=10),
        r.name,
        r.args,
        r.kwargs,
        r.queue,
        r.retries,
        type(r.date_done).__name__,
        r.worker is not None,
    )
    r = odd.delay()
    try:
        r.get(timeout=10)
    except Exception as error:
        show(type(error).__name__, type(error).__module__, error.args)
    show(r.state, r.traceback.strip().splitlines()[-1], r.maybe_throw(propagate=False).args)
    show(joining.delay().get(timeout=10))
    r = not_allowed.delay()
    show(type(r.get(timeout=10, propagate=False)).__name__, r.state)
    rs = ResultSet([slow.delay(0.2), slow.delay(0)])
    show(rs.join(timeout=10), rs.join_native(timeout=10), sorted(v["result"] for _, v in rs.iter_native(timeout=5)))
    done = []
    rs.get(timeout=10, callback=lambda id, value: done.append(value))
    show(sorted(done), rs.completed_count(), rs.successful())
    t = slow.delay(0)
    t.get(timeout=5)
    show(result_from_tuple(t.as_tuple(), app=app) == t, AsyncResult(t.id, app=app).get(), t.as_list() == [t.id])
    ttl = app.backend.client.ttl("celery-task-meta-" + t.id)
    show(3500 < ttl <= 3600, app.AsyncResult("unknown").state)
    show(
        states.precedence("SUCCESS") < states.precedence("PROGRESS"),
        states.state("FAILURE") > states.state("SUCCESS"),
        sorted(states.READY_STATES),
        sorted(states.ALL_STATES),
    )
    app.backend.store_result("by-hand", {"x": 1}, "SUCCESS")
    show(app.AsyncResult("by-hand").get(timeout=3), app.backend.get_state("by-hand"), app.backend.get_result("by-hand"))
    then = []
    r = slow.delay(0)
    r.then(lambda result: then.append(result.result))
    r.get(timeout=5)
    show(then)
