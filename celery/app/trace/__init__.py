"""Run one task: request in, outcome out.

The names here are handles: monitoring libraries wrap `build_tracer`, projects replace the ``LOG_`` formats.  Whoever
uses one of these in the house asks for it here at the moment of use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu.serialization import loads as loads_message
from kombu.serialization import prepare_accept_content

from celery.app.trace.outcomes import TraceInfo, traceback_clear
from celery.app.trace.reports import (
    LOG_FAILURE,
    LOG_IGNORED,
    LOG_INTERNAL_ERROR,
    LOG_RECEIVED,
    LOG_REJECTED,
    LOG_RETRY,
    LOG_SUCCESS,
    get_log_policy,
    get_task_name,
    log_policy_t,
    report_internal_error,
)
from celery.app.trace.tracer import IGNORE_STATES, build_tracer, task_has_custom, trace_ok_t
from celery.states import EXCEPTION_STATES, FAILURE, IGNORED, REJECTED, RETRY, STARTED, SUCCESS

if TYPE_CHECKING:
    from celery.app.base import Celery

__all__ = (
    "TraceInfo",
    "build_tracer",
    "trace_task",
    "setup_worker_optimizations",
    "reset_worker_optimizations",
)

#: The app whose tasks `fast_trace_task` runs, its accepted content types, and the worker's name.
_installed: tuple[Any, Any, str | None] | None = None


def trace_task(task: Any, uuid: str, args: Any, kwargs: Any, request: Any = None, **opts: Any) -> trace_ok_t:
    """Run ``task`` once; an error outside of its body becomes an outcome, too."""
    request = request or {}
    try:
        if task.__trace__ is None:
            task.__trace__ = build_tracer(task.name, task, **opts)
        result: trace_ok_t = task.__trace__(uuid, args, kwargs, request)
        return result
    except Exception as exc:
        from celery import signals

        signals.task_internal_error.send(
            sender=task,
            task_id=uuid,
            args=args,
            kwargs=kwargs,
            request=request,
            exception=exc,
            traceback=exc.__traceback__,
            einfo=None,
        )
        error = report_internal_error(task, exc)
        return trace_ok_t(error, TraceInfo(FAILURE, exc), 0.0, None)


def trace_task_ret(
    name: str,
    uuid: str,
    request: dict[str, Any],
    body: Any,
    content_type: str | None,
    content_encoding: str | None,
    loads: Any = loads_message,
    app: Celery | None = None,
    **extra_request: Any,
) -> tuple[int, Any, float | None]:
    """Run the task of a message by its name; this is what a pool that takes callables is given.

    Returns ``(0, representation of the value, seconds)``, or ``(1, ExceptionInfo, seconds)``.
    """
    from celery._state import get_current_app

    app = app or get_current_app()
    accept = prepare_accept_content(app.conf.accept_content)
    return _run(
        app.tasks[name], uuid, request, body, content_type, content_encoding, loads, accept, None, extra_request
    )


def fast_trace_task(
    task: str,
    uuid: str,
    request: dict[str, Any],
    body: Any,
    content_type: str | None,
    content_encoding: str | None,
    loads: Any = loads_message,
    _loc: Any = None,
    hostname: str | None = None,
    **_: Any,
) -> tuple[int, Any, float | None]:
    """Do as `trace_task_ret` for the app that `setup_worker_optimizations` was given."""
    if _installed is None:
        return trace_task_ret(task, uuid, request, body, content_type, content_encoding, loads)
    app, accept, installed_hostname = _loc or _installed
    return _run(
        app.tasks[task],
        uuid,
        request,
        body,
        content_type,
        content_encoding,
        loads,
        accept,
        hostname or installed_hostname,
        {},
    )


def _run(
    task: Any,
    uuid: str,
    request: dict[str, Any],
    body: Any,
    content_type: str | None,
    content_encoding: str | None,
    loads: Any,
    accept: Any,
    hostname: str | None,
    extra_request: dict[str, Any],
) -> tuple[int, Any, float | None]:
    embed: dict[str, Any] | None = None
    if content_type:
        args, kwargs, embed = loads(body, content_type, content_encoding, accept=accept)
    else:
        args, kwargs, embed = body
    full = {**request, "args": args, "kwargs": kwargs, "is_eager": False, **(embed or {}), **extra_request}
    if hostname:
        full.setdefault("hostname", hostname)
    if task.__trace__ is None:
        task.__trace__ = build_tracer(task.name, task, task.app.loader, full.get("hostname"), app=task.app)
    retval, info, runtime, retstr = task.__trace__(uuid, args, kwargs, full)
    if info is not None:
        return 1, retval, runtime
    return 0, retstr, runtime


def setup_worker_optimizations(app: Celery, hostname: str | None = None) -> None:
    """Make ``app`` the app of this process, with all of its tasks at hand, for `fast_trace_task`."""
    global _installed
    app.set_current()
    app.set_default()
    app.finalize()
    _installed = (app, prepare_accept_content(app.conf.accept_content), hostname)


def reset_worker_optimizations(app: Celery | None = None) -> None:
    """Undo `setup_worker_optimizations`."""
    global _installed
    _installed = None
