"""An app that opens every door for extensions; each leaves a line in the file ``DOORS_LOG``.

It uses the common API only, so that it runs under upstream's release, too.
"""

from __future__ import annotations

import os
from typing import Any

from click import Option
from kombu import Consumer, Exchange, Queue

from celery import Celery, bootsteps
from celery.concurrency.base import BasePool, apply_target
from celery.concurrency.thread import TaskPool
from celery.utils.timer2 import Timer
from celery.worker.autoscale import Autoscaler
from celery.worker.consumer import Consumer as WorkerConsumer
from celery.worker.request import Request
from celery.worker.strategy import default as default_strategy

NAME = os.environ.get("DOORS_NAME", "doors")


def note(*words: Any) -> None:
    with open(os.environ["DOORS_LOG"], "a") as log:
        log.write(" ".join(map(str, words)) + "\n")


class NotingRequest(Request):
    """A request that notes what it is asked to do."""

    def on_success(self, *args: Any, **kwargs: Any) -> Any:
        note("request success", self.name)
        return super().on_success(*args, **kwargs)

    def on_failure(self, *args: Any, **kwargs: Any) -> Any:
        note("request failure", self.name)
        return super().on_failure(*args, **kwargs)


def noting_strategy(task: Any, app: Any, consumer: Any, **kwargs: Any) -> Any:
    """The usual strategy, with a note for each message."""
    usual = default_strategy(task, app, consumer, **kwargs)

    def strategy(message: Any, *args: Any, **kwargs: Any) -> Any:
        note("strategy", task.name)
        return usual(message, *args, **kwargs)

    return strategy


class NotingConsumer(WorkerConsumer):
    def on_ready(self) -> None:
        note("consumer ready", type(self.pool).__name__)
        super().on_ready()


class NotingAutoscaler(Autoscaler):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        note("autoscaler", self.max_concurrency, self.min_concurrency)


class NotingPool(TaskPool):
    """A pool by path."""

    def on_start(self) -> None:
        note("pool started", self.limit)
        super().on_start()


class InlinePool(BasePool):
    """The least that a pool can be: it runs a task where it is given it."""

    def on_apply(
        self, target: Any, args: Any = None, kwargs: Any = None, callback: Any = None, accept_callback: Any = None,
        **options: Any,
    ) -> Any:  # fmt: skip
        note("inline")
        return apply_target(target, args, kwargs, callback, accept_callback)


class NotingTimer(Timer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        note("timer made")


class Agent:
    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def start(self) -> None:
        note("agent started")

    def stop(self) -> None:
        note("agent stopped")


class WorkerStep(bootsteps.StartStopStep):
    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, sauce: Any = None, **options: Any) -> None:
        note("worker step made", sauce)
        super().__init__(worker, **options)

    def create(self, worker: Any) -> None:
        note("worker step create", worker.pool is not None)

    def start(self, worker: Any) -> None:
        note("worker step start")

    def stop(self, worker: Any) -> None:
        note("worker step stop")

    def info(self, worker: Any) -> dict[str, Any]:
        return {"sauce": "hot"}


class Connected(bootsteps.StartStopStep):
    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        note("consumer step start", consumer.task_consumer is not None)

    def stop(self, consumer: Any) -> None:
        note("consumer step stop")

    def shutdown(self, consumer: Any) -> None:
        note("consumer step shutdown")


class RawMessages(bootsteps.ConsumerStep):
    """Consumes messages that are no tasks."""

    def get_consumers(self, channel: Any) -> list[Any]:
        queue = Queue(f"{NAME}.raw", Exchange(f"{NAME}.raw"), f"{NAME}.raw")
        return [Consumer(channel, queues=[queue], callbacks=[self.on_message], accept=["json"])]

    def on_message(self, body: Any, message: Any) -> None:
        note("raw message", body)
        message.ack()


app = Celery("doors", broker=os.environ.get("DOORS_BROKER"))
app.conf.update(
    task_default_queue=NAME,
    control_exchange=NAME,
    event_exchange=f"{NAME}ev",
    worker_consumer="doorsapp:NotingConsumer",
    worker_autoscaler="doorsapp:NotingAutoscaler",
    worker_agent="doorsapp:Agent",
    worker_timer="doorsapp:NotingTimer",
)
app.steps["worker"].add(WorkerStep)
app.steps["consumer"].update({Connected, RawMessages})
app.user_options["worker"].add(Option(["--sauce"], help="What it tastes of."))


@app.task(name="works", Request="doorsapp:NotingRequest", Strategy="doorsapp:noting_strategy")
def works() -> None:
    note("task works")


@app.task(name="breaks", Request="doorsapp:NotingRequest", throws=(KeyError,))
def breaks() -> None:
    raise KeyError("expected")
