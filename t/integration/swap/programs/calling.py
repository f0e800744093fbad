"""Tasks and the ways to call them."""

from datetime import datetime, timedelta, timezone

import common

app = common.app("calling")


@app.task
def add(x, y, *, z=0):
    return x + y + z


@app.task(bind=True, name="who", ignore_result=False)
def who(self, *args, **kwargs):
    r = self.request
    return [
        self.name,
        list(args),
        kwargs,
        r.retries,
        r.is_eager,
        r.called_directly,
        r.delivery_info["routing_key"],
        r.origin is not None,
    ]


@app.task(bind=True)
def options(self):
    r = self.request
    return {
        "headers": {k: v for k, v in (r.headers or {}).items() if k == "trace"},
        "timelimit": r.timelimit,
        "priority": r.delivery_info.get("priority"),
        "eta": bool(r.eta),
        "expires": bool(r.expires),
        "shadow": r.shadow,
        "root": r.root_id == r.id,
        "parent": r.parent_id,
    }


@app.task(typing=False)
def loose(x):
    return x


@app.task(ignore_result=True)
def ignored():
    return 1


def main(show):
    show(add.delay(1, 2).get(timeout=10))
    show(add.apply_async((1,), {"y": 2, "z": 3}).get(timeout=10))
    show(add.apply_async(args=(4, 4), countdown=0.2).get(timeout=10))
    show(add.apply_async((4, 5), eta=datetime.now(timezone.utc) + timedelta(seconds=0.3)).get(timeout=10))
    show(add(1, 2), add.run(1, 2), add.apply((1, 2)).get(), add.s(1, 2)(), (~add.s(2, 2)))
    show(who.delay(1, a=2).get(timeout=10))
    show(who.apply((1,)).state)
    show(
        options.apply_async(
            headers={"trace": "x"}, soft_time_limit=5, time_limit=9, priority=3, expires=60, shadow="other"
        ).get(timeout=10)
    )
    show(app.send_task("who", (5,), {"k": 1}).get(timeout=10))
    show(app.signature("calling.add", (9, 1)).delay().get(timeout=10))
    for wrong in (lambda: add.delay(1), lambda: add.delay(1, 2, 3), lambda: add.delay(1, y=2, q=1)):
        try:
            wrong()
        except TypeError as error:
            show(type(error).__name__)
    show(type(loose.delay().get(timeout=10, propagate=False)).__name__)
    r = add.apply_async((1, 1), expires=datetime.now(timezone.utc) - timedelta(seconds=5))
    show(type(r.get(timeout=10, propagate=False)).__name__, r.state)
    r = ignored.delay()
    show(r.get(timeout=5), r.state)
    r = add.apply_async((2, 2), task_id="my-own-id")
    show(r.id, r.get(timeout=10), r.ready(), r.successful(), r.failed(), r.status, r.result, r.info)
    show(repr(r), str(r), r == app.AsyncResult("my-own-id"), r.as_tuple())
    r.forget()
    show(app.AsyncResult("my-own-id").state, add.name, repr(add)[:30], add.max_retries, add.default_retry_delay)
    show(add.apply_async((1, 2), ignore_result=True).state, sorted(n for n in app.tasks if not n.startswith("celery.")))
