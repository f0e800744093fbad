"""Run a task in the caller's process, with the same tracer that a worker uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from kombu.serialization import dumps, loads
from kombu.utils.functional import maybe_list
from kombu.utils.uuid import uuid

from celery import states
from celery._state import _task_stack
from celery.app import trace
from celery.app.context import ignores_result
from celery.exceptions import Retry
from celery.result import EagerResult, denied_join_result
from celery.utils.nodenames import gethostname

if TYPE_CHECKING:
    from celery.app.task import Task

__all__ = ("call", "run")


def call(task: Task[Any, Any], args: Any, kwargs: Any, **options: Any) -> EagerResult[Any]:
    """Do what ``apply_async`` does while ``task_always_eager`` is set.

    The arguments go through the serializer, so that the task gets what it would get from a message.
    """
    serializer = options.get("serializer") or task.serializer
    content_type, content_encoding, data = dumps((args, kwargs), serializer=serializer)
    args, kwargs = loads(data, content_type, content_encoding, accept=[content_type])
    with denied_join_result():
        return task.apply(args, kwargs, **options)


def run(
    task: Task[Any, Any],
    args: Any,
    kwargs: Any,
    link: Any,
    link_error: Any,
    task_id: str | None,
    retries: int | None,
    throw: bool | None,
    logfile: Any,
    loglevel: Any,
    headers: Any,
    options: dict[str, Any],
) -> EagerResult[Any]:
    """Run ``task`` now and return its result; a retry runs at once, and its result is returned."""
    app = task._get_app()
    args = args or ()
    kwargs = kwargs or {}
    task_id = task_id or uuid()
    retries = retries or 0
    throw = app.conf.task_eager_propagates if throw is None else throw
    request = {
        "id": task_id,
        "task": task.name,
        "parent_id": None,
        "root_id": task_id,
        "retries": retries,
        "is_eager": True,
        "logfile": logfile,
        "loglevel": loglevel or 0,
        "hostname": gethostname(),
        "callbacks": maybe_list(link),
        "errbacks": maybe_list(link_error),
        "headers": headers,
        "timelimit": None,
        "ignore_result": ignores_result(task, options),
        "delivery_info": {
            "is_eager": True,
            "exchange": options.get("exchange"),
            "routing_key": options.get("routing_key"),
            "priority": options.get("priority"),
        },
    }
    parent = _task_stack.top
    if parent is not None and parent.request is not None and parent.request.id:
        request["parent_id"] = parent.request.id
        request["root_id"] = parent.request.root_id or parent.request.id
    if "stamped_headers" in options:
        stamped = request["stamped_headers"] = maybe_list(options["stamped_headers"])
        request["stamps"] = {name: maybe_list(options.get(name, ())) for name in stamped or ()}

    # Looked up here: monitoring libraries wrap it.
    tracer = trace.build_tracer(task.name, task, eager=True, propagate=throw, app=app)
    outcome = tracer(task_id, args, kwargs, request)
    value, traceback = _unpacked(outcome.retval)
    if isinstance(value, Retry) and value.sig is not None:
        return value.sig.apply(retries=retries + 1)  # type: ignore[no-any-return]
    state = states.SUCCESS if outcome.info is None else outcome.info.state
    return EagerResult(task_id, value, state, traceback=traceback, name=task.name)


def _unpacked(value: Any) -> tuple[Any, Any]:
    """Return the value or the error that a tracer gave, and the error's traceback."""
    traceback = None
    if isinstance(value, ExceptionInfo):
        value, traceback = value.exception, value.traceback
        if isinstance(value, ExceptionWithTraceback):
            value = value.exc
    return value, traceback
