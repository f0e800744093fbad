"""How the end of a task is told in the log: one format and one policy for each kind of end.

The formats are looked up on the package (`celery.app.trace.LOG_SUCCESS`, ...) at the moment of logging: projects
replace them there, to leave out results for example.
"""

from __future__ import annotations

import logging
import sys
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple
from warnings import warn

from billiard.einfo import ExceptionInfo

from celery.concurrency.base import exception_info
from celery.exceptions import Ignore, InvalidTaskError, Reject
from celery.utils.log import get_logger
from celery.utils.saferepr import saferepr

if TYPE_CHECKING:
    from celery.app.task import Context, Task

logger = get_logger("celery.app.trace")

LOG_RECEIVED = "Task %(name)s[%(id)s] received"
LOG_SUCCESS = "Task %(name)s[%(id)s] succeeded in %(runtime)ss: %(return_value)s"
LOG_FAILURE = "Task %(name)s[%(id)s] %(description)s: %(exc)s"
LOG_INTERNAL_ERROR = "Task %(name)s[%(id)s] %(description)s: %(exc)s"
LOG_IGNORED = "Task %(name)s[%(id)s] %(description)s"
LOG_REJECTED = "Task %(name)s[%(id)s] %(exc)s"
LOG_RETRY = "Task %(name)s[%(id)s] retry: %(exc)s"


class log_policy_t(NamedTuple):
    """How one kind of end is logged; ``mail`` is kept for programs that build policies of their own."""

    format: str
    description: str
    severity: int
    traceback: int
    mail: int


def _format(name: str) -> str:
    """Return the format called ``name`` as the package has it now."""
    text: str = getattr(sys.modules["celery.app.trace"], name)
    return text


def get_log_policy(task: Task, einfo: ExceptionInfo, exc: BaseException) -> log_policy_t:
    """Return how the end of ``task`` with ``exc`` is logged."""
    if isinstance(exc, Reject):
        return log_policy_t(_format("LOG_REJECTED"), "rejected", logging.WARNING, 1, 1)
    if isinstance(exc, Ignore):
        return log_policy_t(_format("LOG_IGNORED"), "ignored", logging.INFO, 0, 0)
    if einfo.internal:
        return log_policy_t(_format("LOG_INTERNAL_ERROR"), "INTERNAL ERROR", logging.CRITICAL, 1, 1)
    if task.throws and isinstance(exc, task.throws):
        return log_policy_t(_format("LOG_FAILURE"), "raised expected", logging.INFO, 0, 0)
    return log_policy_t(_format("LOG_FAILURE"), "raised unexpected", logging.ERROR, 1, 1)


def get_task_name(request: Context | None, default: str) -> str:
    """Return the name to show for a request: its shadow, if it has one."""
    return getattr(request, "shadow", None) or default


def log_success(name: str, request: Context, runtime: float, retstr: str | None) -> None:
    """Log one line for a task that returned."""
    context = {
        "id": request.id,
        "name": get_task_name(request, name),
        "return_value": retstr,
        "runtime": runtime,
        "args": request.get("argsrepr") or saferepr(request.args),
        "kwargs": request.get("kwargsrepr") or saferepr(request.kwargs),
    }
    logger.info(_format("LOG_SUCCESS"), context, extra={"data": context})


def log_completed_before(name: str, request: Context) -> None:
    """Log that a redelivered task is not run: it is known to have succeeded."""
    context = {
        "id": request.id,
        "name": get_task_name(request, name),
        "description": "Task already completed successfully.",
    }
    logger.info(_format("LOG_IGNORED"), context, extra={"data": context})


def log_retry(task: Task, request: Context, einfo: ExceptionInfo) -> None:
    """Log one line for a task that will be tried again."""
    logger.info(
        _format("LOG_RETRY"),
        {"id": request.id, "name": get_task_name(request, task.name), "exc": str(einfo.exception)},
    )


def log_error(task: Task, request: Context, einfo: ExceptionInfo) -> None:
    """Log the end of a task by an exception, as its policy says."""
    exception = einfo.exception
    policy = get_log_policy(task, einfo, exception)
    if not logger.isEnabledFor(policy.severity):
        return
    shown = repr(exception) if isinstance(exception, (Reject, Ignore)) else saferepr(exception)
    context = {
        "hostname": request.hostname,
        "id": request.id,
        "name": get_task_name(request, task.name),
        "exc": shown,
        "traceback": einfo.traceback,
        "args": request.get("argsrepr") or saferepr(request.args),
        "kwargs": request.get("kwargsrepr") or saferepr(request.kwargs),
        "description": policy.description,
        "internal": einfo.internal,
    }
    logger.log(
        policy.severity,
        policy.format.strip(),
        context,
        exc_info=einfo.exc_info if policy.traceback else None,
        extra={"data": context},
    )


def report_internal_error(task: Task, exc: BaseException) -> ExceptionInfo:
    """Warn of an error in our own code or in a handler, and return it as the outcome.

    Must be called while ``exc`` is being handled.
    """
    shown = "".join(traceback.format_exception(exc))
    warn(f"Task {task.name} was ended by an error outside of its body: {shown}", RuntimeWarning, stacklevel=2)
    return exception_info(task.backend.prepare_exception(exc, "pickle"), internal=True)


def check_kwargs(kwargs: Any) -> None:
    """Raise `InvalidTaskError` unless ``kwargs`` is a mapping."""
    if not hasattr(kwargs, "items"):
        raise InvalidTaskError(f"The keyword arguments of a task must be a mapping, not {type(kwargs).__name__}.")


__all__ = (
    "LOG_FAILURE",
    "LOG_IGNORED",
    "LOG_INTERNAL_ERROR",
    "LOG_RECEIVED",
    "LOG_REJECTED",
    "LOG_RETRY",
    "LOG_SUCCESS",
    "check_kwargs",
    "get_log_policy",
    "get_task_name",
    "log_completed_before",
    "log_error",
    "log_policy_t",
    "log_retry",
    "log_success",
    "logger",
    "report_internal_error",
)
