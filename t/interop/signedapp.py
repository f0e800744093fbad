"""The app of signed messages, for Celery 5.7.0 and for ours: nothing but what both know."""

import json
import os

from celery import Celery

directory = os.environ["SIGNED_DIRECTORY"]
app = Celery("signedapp", broker=os.environ["SIGNED_BROKER"], backend=os.environ["SIGNED_BACKEND"])
app.conf.update(
    task_serializer="auth",
    accept_content=["auth"],
    result_serializer="auth",
    event_serializer="auth",
    security_key=f"{directory}/alice.key",
    security_certificate=f"{directory}/store/alice.pem",
    security_cert_store=f"{directory}/store/*.pem",
    task_default_queue=os.environ["SIGNED_QUEUE"],
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
)
app.conf.update(json.loads(os.environ.get("SIGNED_CONF", "{}")))
app.setup_security()


@app.task(name="add")
def add(x, y):
    return x + y


@app.task(name="total")
def total(numbers):
    return sum(numbers)


# Without a delay Celery may store RETRY after the next run has stored its success.
@app.task(name="again", bind=True, max_retries=3, default_retry_delay=0.3)
def again(self, times):
    if self.request.retries < times:
        raise self.retry()
    return self.request.retries


if __name__ == "__main__":  # the client's side: prints what came of each kind of call
    from celery import chain, chord

    calls = {
        "call": add.delay(1, 2),
        "kwargs": add.apply_async(kwargs={"x": "ä", "y": "ö"}),
        "later": add.apply_async((1, 2), countdown=0.5, expires=60, headers={"mine": [1, None]}, compression="gzip"),
        "retries": again.delay(2),
        "chain": chain(add.s(1, 2), add.s(3), again.si(1)).apply_async(),
        "chord": chord([add.s(number, number) for number in range(3)], total.s()).apply_async(),
    }
    found = {name: result.get(timeout=30) for name, result in calls.items()}
    found["ping"] = [next(iter(reply.values())) for reply in app.control.ping(timeout=5, limit=1)]
    print(json.dumps(found, sort_keys=True))
    os._exit(0)  # Celery's results complain at interpreter exit
