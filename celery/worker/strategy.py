"""Now, later, limited or revoked?  What the worker does with a message, decided from its headers alone.

A strategy is made once for each task: it looks at the task, the app and the consumer, and returns the function that
takes the task's messages.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import time
from typing import TYPE_CHECKING, Any

from kombu.asynchronous.timer import to_timestamp

from celery import signals
from celery.app import trace as tracing
from celery.exceptions import InvalidTaskError
from celery.utils.failpoints import is_active
from celery.utils.imports import symbol_by_name
from celery.utils.log import get_logger
from celery.utils.saferepr import saferepr
from celery.utils.time import timezone
from celery.worker import state
from celery.worker.request import create_request_cls
from celery.worker.state import task_reserved

if TYPE_CHECKING:
    from celery.app.base import Celery
    from celery.app.task import Task

__all__ = ("default",)

logger = get_logger(__name__)

#: A task that is due in more seconds than this waits at the broker, if that can be.
LONGEST_WAIT_HERE = 2.0

#: Whether a test of the tests has switched this protection off.
_KEEPS_ALL = is_active("unprotect.park")

#: ``(args, kwargs, embed)``, the headers of version 2, whether the body is decoded, and whether times are UTC.
Proto2 = tuple[tuple[Any, Any, dict[str, Any]], dict[str, Any], bool, bool]


def hybrid_to_proto2(message: Any, body: dict[str, Any]) -> Proto2:
    """Return a message with headers of version 2 and a body of version 1 as one of version 2."""
    args, kwargs = _arguments(body)
    headers = {
        **message.headers,
        "lang": body.get("lang"),
        "task": body.get("task"),
        "id": body.get("id"),
        "root_id": body.get("root_id"),
        "parent_id": body.get("parent_id"),
        "group": body.get("group"),
        "meth": body.get("meth"),
        "shadow": body.get("shadow"),
        "eta": body.get("eta"),
        "expires": body.get("expires"),
        "retries": body.get("retries", 0),
        "timelimit": body.get("timelimit", (None, None)),
        "argsrepr": body.get("argsrepr"),
        "kwargsrepr": body.get("kwargsrepr"),
        "origin": body.get("origin"),
    }
    # What travels as a header wins: a hybrid sender puts there what it knows better.
    headers.update({key: value for key, value in message.headers.items() if value is not None})
    return (args, kwargs, _embed(body)), headers, True, body.get("utc", True)


def proto1_to_proto2(message: Any, body: dict[str, Any]) -> Proto2:
    """Return a message of version 1 (everything is in the body) as one of version 2.

    Raises:
        InvalidTaskError: the body lacks the task's name or id, or its arguments are not what arguments are.
    """
    args, kwargs = _arguments(body)
    headers = {
        **body,
        "lang": "py",
        "argsrepr": saferepr(args),
        "kwargsrepr": saferepr(kwargs),
        "headers": message.headers or None,
        "group": body.get("taskset"),
    }
    for moved in ("args", "kwargs", "callbacks", "errbacks", "chord", "chain", "taskset", "utc"):
        headers.pop(moved, None)
    return (args, kwargs, _embed(body)), headers, True, body.get("utc", True)


def _arguments(body: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    if not isinstance(body, dict) or "task" not in body or "id" not in body:
        raise InvalidTaskError("Message does not have a task name and an id")
    args, kwargs = body.get("args", ()), body.get("kwargs", {})
    if not hasattr(kwargs, "items"):
        raise InvalidTaskError("Task keyword arguments must be a mapping")
    return args, kwargs


def _embed(body: dict[str, Any]) -> dict[str, Any]:
    return {
        "callbacks": body.get("callbacks"),
        "errbacks": body.get("errbacks"),
        "chord": body.get("chord"),
        "chain": None,
    }


def seconds_until(message: Any, due: float) -> float:
    """Return how far away ``due`` (seconds since 1970) is: by the broker's clock, if it tells."""
    by_broker = getattr(message.channel, "seconds_until", None)
    return due - time() if by_broker is None else by_broker(due)  # type: ignore[no-any-return]


def park(message: Any, due: float) -> bool:
    """Give ``message`` back to a broker that can keep it until ``due``; false if it cannot."""
    to_broker = getattr(message, "park", None)
    return to_broker is not None and not _KEEPS_ALL and to_broker(due)


def default(
    task: Task,
    app: Celery,
    consumer: Any,
    info: Callable[..., None] = logger.info,
    error: Callable[..., None] = logger.error,
    task_reserved: Callable[[Any], None] = task_reserved,
    to_system_tz: Callable[..., Any] = timezone.to_system,
    bytes: type = bytes,
    proto1_to_proto2: Callable[..., Proto2] = proto1_to_proto2,
) -> Callable[..., None]:
    """Return the function that takes messages of ``task`` for ``consumer``.

    It is called ``handler(message, body, ack, reject, callbacks)``; ``body`` is ``None`` for version 2, else the
    decoded body.  It raises `InvalidTaskError` for a message that is none of a task.
    """
    eventer = consumer.task_eventer
    connection_errors = consumer.connection_errors
    sends_events = eventer and eventer.enabled and task.send_events
    buckets = consumer.task_buckets
    limits_rates = not consumer.disable_rate_limits
    limit_task, limit_after_eta = consumer._limit_task, consumer._limit_post_eta
    call_at = consumer.timer.call_at
    apply_eta_task = consumer.apply_eta_task
    handle, handle_again = consumer.on_task_request, consumer.run_again
    revoked_tasks, revoked_stamps = consumer.controller.state.revoked, state.revoked_stamps
    uses_utc = app.uses_utc_timezone()
    name = task.name

    Req = create_request_cls(symbol_by_name(task.Request), task, consumer.pool, consumer.hostname, eventer, app=app)
    Req._connection_errors = connection_errors
    Req._set_aside = staticmethod(consumer.on_unreadable_body)
    Req._requeue_elsewhere = staticmethod(consumer.requeue_lost)
    Req._keep_books = staticmethod(consumer.bookkeeper.store)
    received = signals.task_received
    is_logged = logger.isEnabledFor

    def handler(
        message: Any,
        body: Any,
        ack: Callable[..., Any],
        reject: Callable[..., Any],
        callbacks: Any,
        to_timestamp: Callable[..., float] = to_timestamp,
    ) -> None:
        if body is None:
            request = Req(message, on_ack=ack, on_reject=reject, utc=uses_utc)
        else:
            convert = hybrid_to_proto2 if "args" in body and "task" in message.headers else proto1_to_proto2
            parts, headers, decoded, utc = convert(message, body)
            request = Req(message, on_ack=ack, on_reject=reject, body=parts, headers=headers, decoded=decoded, utc=utc)
        # What comes back from waiting at the broker was announced when it came for the first time.
        is_new = request._eta is None or not getattr(message, "was_parked", False)
        if is_new and is_logged(logging.INFO):
            log_received(request)
        if (request._expires is not None or request.id in revoked_tasks or revoked_stamps) and request.revoked():
            return
        if is_new and received.receivers:
            received.send(sender=consumer, request=request)
        if is_new and sends_events:
            send_received(request)

        bucket = buckets[name] if limits_rates else None
        if request._eta is not None and delay(request, message, bucket, to_timestamp):
            return
        if bucket:
            limit_task(request, bucket, 1)
        else:
            task_reserved(request)
            if callbacks:
                for callback in callbacks:
                    callback(request)
            (handle_again if message.delivery_info.get("redelivered") else handle)(request)

    def log_received(request: Any) -> None:
        context = {
            "id": request.id,
            "name": request.name,
            "args": request.argsrepr,
            "kwargs": request.kwargsrepr,
            "eta": request.eta,
        }
        info(tracing.LOG_RECEIVED, context, extra={"data": context})

    def send_received(request: Any) -> None:
        eta, expires = request.eta, request.expires
        request.send_event(
            "task-received",
            name=request.name,
            args=request.argsrepr,
            kwargs=request.kwargsrepr,
            root_id=request.root_id,
            parent_id=request.parent_id,
            retries=request.request_dict.get("retries", 0),
            eta=eta and eta.isoformat(),
            expires=expires and expires.isoformat(),
        )

    def delay(request: Any, message: Any, bucket: Any, to_timestamp: Callable[..., float]) -> bool:
        """Have the request wait for its time, here or at the broker; false if that has come.

        A time that is none rejects the message.
        """
        try:
            eta = request.eta if request.utc else to_system_tz(request.eta)
            when, due = to_timestamp(eta), eta.timestamp()
        except (OverflowError, ValueError, TypeError) as exc:
            error("Cannot convert eta %r of task %s: %r", request.eta, request.humaninfo(), exc)
            request.reject(requeue=False)
            return True
        seconds = seconds_until(message, due)
        if seconds <= 0:
            return False
        if seconds > LONGEST_WAIT_HERE and park(message, due):
            if consumer.admission is not None:
                consumer.admission.give_back(message)
            return True
        consumer.qos.increment_eventually()
        state.task_scheduled(request)
        if bucket:
            call_at(when, limit_after_eta, (request, bucket, 1), priority=6)
        else:
            call_at(when, apply_eta_task, (request,), priority=6)
        return True

    return handler
