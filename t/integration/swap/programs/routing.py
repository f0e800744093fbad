"""Queues, routes by name, glob, function; priorities; a worker that takes some queues."""

import re

import common
from kombu import Exchange, Queue

WORKER = ["-Q", "celery,feeds,media,prio", "-c", "1"]


def by_function(name, args, kwargs, options, task=None, **kw):
    if name == "routing.dynamic":
        return {"queue": kwargs.get("to", "celery")}
    return None


app = common.app(
    "routing",
    task_queues=[
        Queue("celery"),
        Queue("feeds", Exchange("feeds", type="topic"), routing_key="feed.#"),
        Queue("media", Exchange("media"), routing_key="media"),
        Queue("prio", Exchange("prio"), routing_key="prio"),
    ],
    task_routes=[
        by_function,
        {
            "routing.feed_*": {"queue": "feeds", "routing_key": "feed.x"},
            re.compile(r"routing\.(video|image)_.*"): {"queue": "media"},
            "routing.prio": "prio",
        },
    ],
    broker_transport_options={"priority_steps": list(range(10)), "sep": ":", "queue_order_strategy": "priority"},
    worker_prefetch_multiplier=1,
)


def where(self):
    info = self.request.delivery_info
    return info["exchange"], info["routing_key"]


@app.task(bind=True)
def plain(self):
    return where(self)


@app.task(bind=True)
def feed_import(self):
    return where(self)


@app.task(bind=True)
def video_encode(self):
    return where(self)


@app.task(bind=True)
def dynamic(self, to=None):
    return where(self)


@app.task(bind=True)
def prio(self, n, wait=0):
    import time

    time.sleep(wait)
    app.backend.client.rpush("order", n)
    return self.request.delivery_info["priority"]


@app.task(bind=True, queue="media")
def with_own_queue(self):
    return where(self)


def main(show):
    show(plain.delay().get(timeout=10), feed_import.delay().get(timeout=10), video_encode.delay().get(timeout=10))
    show(dynamic.delay(to="media").get(timeout=10), dynamic.delay(to="feeds").get(timeout=10))
    show(
        plain.apply_async(queue="feeds").get(timeout=10),
        plain.apply_async(queue=app.amqp.queues["media"]).get(timeout=10),
    )
    show(
        plain.apply_async(exchange="feeds", routing_key="feed.some").get(timeout=10),
        with_own_queue.delay().get(timeout=10),
        with_own_queue.apply_async(queue="celery").get(timeout=10),
    )
    first = [prio.delay(-1, 0.8)]
    import time

    time.sleep(0.2)
    rs = [prio.apply_async((n,), priority=n) for n in (9, 5, 0, 7, 3)]
    show([r.get(timeout=10) for r in rs], [r.get(timeout=10) for r in first])
    # one may have been reserved before the others were there
    order = [int(n) for n in app.backend.client.lrange("order", 0, -1)]
    show(sorted(order), order[0], order[2:] == sorted(order[2:]))
    app.backend.client.delete("order")
    show(
        sorted(app.amqp.queues),
        app.amqp.default_queue.name,
        app.amqp.queues["feeds"].routing_key,
        app.conf.task_default_queue,
    )
    show(
        app.amqp.router.route({}, "routing.feed_import")["queue"].name,
        app.amqp.router.route({"queue": "celery"}, "routing.feed_import")["queue"].name,
    )
    plain.apply_async(queue="unread")
    show(app.connection().default_channel.client.llen("unread"))
    i = app.control.inspect(timeout=1)
    show(sorted(q["name"] for q in next(iter(i.active_queues().values()))))
