"""What happened to a task that did not simply return, and who must be told."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionInfo

from celery import signals
from celery.app.context import ignores_result
from celery.app.trace.reports import log_error, log_retry
from celery.concurrency.base import exception_info
from celery.concurrency.guard import SoftlyTerminated
from celery.exceptions import Reject, Retry, TaskRevokedError
from celery.states import FAILURE, RETRY, REVOKED
from celery.utils.serialization import get_pickleable_etype, get_pickleable_exception

if TYPE_CHECKING:
    from celery.app.task import Context, Task


def traceback_clear(exc: BaseException | None = None) -> None:
    """Let go of the local variables that the traceback of ``exc`` (or of the one being handled) holds."""
    frame = exc.__traceback__ if exc is not None else sys.exc_info()[2]
    while frame is not None:
        try:
            frame.tb_frame.clear()
        except RuntimeError:  # the frame is still running
            pass
        frame = frame.tb_next


class TraceInfo:
    """An end other than a plain return: its state, and the exception that led to it."""

    __slots__ = ("retval", "state")

    def __init__(self, state: str, retval: Any = None) -> None:
        self.state = state
        self.retval = retval

    def handle_error_state(
        self, task: Task, req: Context, eager: bool = False, call_errbacks: bool = True
    ) -> ExceptionInfo | None:
        """Store, announce and log this outcome; return the error with its traceback."""
        return self.tell(task, req, _stores_errors(task, req, eager), call_errbacks)

    def tell(self, task: Task, req: Context, store_errors: bool, call_errbacks: bool = True) -> ExceptionInfo | None:
        """Do as `handle_error_state` does, with the question settled whether the error is stored."""
        if self.state == RETRY:
            return self.handle_retry(task, req, store_errors=store_errors)
        if self.state == FAILURE:
            return self.handle_failure(task, req, store_errors=store_errors, call_errbacks=call_errbacks)
        return None

    def handle_reject(self, task: Task, req: Context, **kwargs: Any) -> ExceptionInfo:
        """Log a message that the task refused; the worker's main process rejects it.

        One that is not put back into its queue has failed: whoever waits for it is told.
        """
        exc: Reject = self.retval
        einfo = exception_info(exc)
        if not exc.requeue and not req.is_eager:
            task.backend.mark_as_failure(req.id, exc, request=req, store_result=_stores_errors(task, req, False))
            _send_failure(task, req, exc, exc.__traceback__, einfo)
        log_error(task, req, einfo)
        return einfo

    def handle_ignore(self, task: Task, req: Context, **kwargs: Any) -> ExceptionInfo:
        """Log a task that wants no state of its own."""
        einfo = exception_info(self.retval)
        if req.chord and not req.is_eager and not getattr(self.retval, "is_replaced", False):
            task.backend.mark_as_ignored(req)
        log_error(task, req, einfo)
        return einfo

    def handle_retry(self, task: Task, req: Context, store_errors: bool = True, **kwargs: Any) -> ExceptionInfo:
        """Store the state RETRY and tell of it; the new message is already on its way."""
        reason: Retry = self.retval
        einfo = exception_info(reason)
        if store_errors:
            task.backend.mark_as_retry(req.id, reason.exc, einfo.traceback, request=req)
        task.on_retry(reason.exc, req.id, req.args, req.kwargs, einfo)
        signals.task_retry.send(sender=task, request=req, reason=reason, einfo=einfo)
        log_retry(task, req, einfo)
        return einfo

    def handle_failure(
        self, task: Task, req: Context, store_errors: bool = True, call_errbacks: bool = True
    ) -> ExceptionInfo:
        """Store the state FAILURE, or REVOKED if it was terminated, call the error callbacks, and tell of it."""
        original = self.retval
        where = original.__traceback__
        einfo = exception_info(original)
        exc = einfo.exception = get_pickleable_exception(original)
        einfo.type = get_pickleable_etype(type(original))
        told = {"request": req, "store_result": store_errors, "call_errbacks": call_errbacks}
        if isinstance(original, SoftlyTerminated):  # the worker stores this, too, before or after
            task.backend.mark_as_failure(req.id, TaskRevokedError("terminated"), None, state=REVOKED, **told)
        else:
            task.backend.mark_as_failure(req.id, exc, einfo.traceback, **told)
        task.on_failure(exc, req.id, req.args, req.kwargs, einfo)
        _send_failure(task, req, exc, where, einfo)
        log_error(task, req, einfo)
        return einfo


def _send_failure(task: Task, req: Context, exc: BaseException, where: Any, einfo: ExceptionInfo) -> None:
    signals.task_failure.send(
        sender=task,
        task_id=req.id,
        exception=exc,
        args=req.args,
        kwargs=req.kwargs,
        traceback=where,
        einfo=einfo,
    )


def _stores_errors(task: Task, req: Context, eager: bool) -> bool:
    if eager and not task.store_eager_result:
        return False
    if ignores_result(task, req.__dict__):
        return bool(task.store_errors_even_if_ignored)
    return True


__all__ = ("TraceInfo", "traceback_clear")
