"""One accepted message: how it is run, and what its end means.

A `Request` is the job that the pool is given.  What the message says is read in `celery.worker.accepted`, and what is
told of it in `celery.worker.answered`.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

from billiard.common import TERM_SIGNAME
from billiard.einfo import ExceptionInfo
from kombu.utils.encoding import safe_repr, safe_str

from celery import platforms
from celery._state import current_app
from celery.app import trace as tracing
from celery.app.trace import child
from celery.concurrency.base import bare_exception, exception_info
from celery.concurrency.guard import SoftlyTerminated
from celery.exceptions import (
    Ignore,
    Reject,
    Retry,
    TaskRevokedError,
    Terminated,
    TimeLimitExceeded,
    WorkerLostError,
)
from celery.states import IGNORED, REJECTED, SUCCESS
from celery.utils.failpoints import is_active
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.answered import Answered

if TYPE_CHECKING:
    from celery.app.task import Task

__all__ = ("Request",)

logger = get_logger(__name__)

task_accepted = state.task_accepted
task_ready = state.task_ready
revoked_tasks = state.revoked
revoked_stamps = state.revoked_stamps

#: Whether a test of the tests has switched this protection off.
_DROPS_WAITING = is_active("unprotect.return")


class Request(Answered):
    """The job that a pool is given: a message that is run, answered and told of.

    See `Answered` and `Accepted` for the arguments.
    """

    worker_pid: int | None = None

    #: The pool that runs it now, and the terminate that waits for its start.
    _pool: Any = None
    _terminate_on_ack: tuple[Any, Any] | None = None
    _apply_result: Any = None
    #: For a message that was delivered before; see `celery.worker.consumer.suspects`.
    on_over: Callable[[Request], Any] | None = None
    before_start: Callable[[], bool] | None = None
    losses_on_record = 0
    is_lost = False
    #: ``(request, cause)`` puts back what lost its process where the message itself cannot; set by the strategy.
    _requeue_elsewhere: Callable[[Any, str], str | None] | None = None

    #: What a pool that takes no jobs is to call in their place.
    _trace: Callable[..., Any] | None = None

    # -- the job of a pool ---------------------------------------------------------------------------------------

    @property
    def hard_limit(self) -> float | None:
        limit = self.time_limits[0]
        return self.task.time_limit if limit is None else limit

    @property
    def soft_limit(self) -> float | None:
        limit = self.time_limits[1]
        return self.task.soft_time_limit if limit is None else limit

    def frame(self) -> bytes | None:
        """Return what the child needs, or ``None`` if it is not to run: revoked while it waited, or no longer ours."""
        if (self._expires is not None or self.id in revoked_tasks or revoked_stamps) and self.revoked():
            return None
        if self.before_start is not None and not self.before_start():
            return None
        message = self._message
        raw = getattr(message, "raw_body", None) if self._body is None or self._body is message.body else None
        if raw is not None:
            body, body_encoding = raw, message.body_encoding or ""
        else:
            body, body_encoding = self.body, ""
        eventer = self._eventer
        return child.pack_frame(
            self._type,
            self.id,
            self._request_dict,
            message.properties or {},
            self.delivery_info,
            body,
            body_encoding,
            message.content_type,
            message.content_encoding,
            self._decoded,
            _wants_answer(self.__class__) or (eventer is not None and eventer.enabled and self.task.send_events),
            self.task.acks_late,
        )

    def on_started(self, pid: int, started_at: float) -> None:
        self.on_accepted(pid, started_at)

    def on_soft_limit(self, seconds: float) -> None:
        self.on_timeout(True, seconds)

    def on_hard_limit(self, seconds: float) -> None:
        self.on_timeout(False, seconds)

    def on_finished(self, answer: bytes) -> None:
        """Take the child's answer; see `celery.app.trace.child.Answer`."""
        if not answer:
            self.on_success((0, None, None))
            return
        status, value, runtime = child.unpack(answer)
        if status == SUCCESS:
            self.on_success((0, value, runtime))
        elif status == REJECTED:
            task_ready(self)
            self._refused(*value)
        elif status == IGNORED:
            task_ready(self)
            self.acknowledge()
        elif status == child.MALFORMED:
            task_ready(self)
            self.on_malformed(value)
        else:
            self.on_success((1, pickle.loads(value), runtime))

    def on_malformed(self, reason: str) -> None:
        """The child could not read the body: put the message aside, with the reason."""
        set_aside = self._set_aside
        if set_aside is not None:
            set_aside(self._message, reason)
            self.acknowledged = True
        else:
            logger.error("Task %s has a body that cannot be read, discarded: %s", self.humaninfo(), reason)
            self.acknowledge()

    #: ``(message, reason)`` puts a message into the dead-letter store; set by the strategy.
    _set_aside: Callable[[Any, str], None] | None = None

    def on_lost(self, error: Exception) -> None:
        """The process died while it ran this request."""
        self.on_failure(exception_info(error))

    def on_dropped(self) -> None:
        """The pool is closing and never started it: give it back to the broker."""
        task_ready(self)
        if not self.acknowledged:
            self.acknowledged = True
            if _DROPS_WAITING:
                self._on_ack(logger, self._connection_errors)
            else:
                self._on_reject(logger, self._connection_errors, True)

    def execute_using_pool(self, pool: Any, **kwargs: Any) -> Any:
        """Hand this request to ``pool``.

        Raises:
            TaskRevokedError: it was revoked, or has expired.
        """
        self._pool = pool
        submit = getattr(pool, "submit", None)
        if submit is not None and self._trace is None:
            return submit(self)
        if self.revoked():
            raise TaskRevokedError(self.id)
        hard, soft = self.hard_limit, self.soft_limit
        result = pool.apply_async(
            self._trace or tracing.fast_trace_task,
            args=(self._type, self.id, self.request_dict, self.body, self.content_type, self.content_encoding),
            accept_callback=self.on_accepted,
            timeout_callback=self.on_timeout,
            callback=self.on_success,
            error_callback=self.on_failure,
            soft_timeout=soft or None,
            timeout=hard or None,
            correlation_id=self.id,
        )
        # The pool keeps the callbacks, so that a strong reference here would be a cycle.
        self._apply_result = ref(result) if result is not None and hasattr(result, "__weakref__") else None
        return result

    def execute(self, loglevel: int | None = None, logfile: str | None = None) -> Any:
        """Run the task here and now, in this process; returns its value or the error with its traceback."""
        if self.revoked():
            return None
        if not self.task.acks_late:
            self.acknowledge()
        request = {
            **self.request_dict,
            **self._embed,
            "loglevel": loglevel,
            "logfile": logfile,
            "is_eager": False,
        }
        result = tracing.trace_task(
            self.task,
            self.id,
            self.args,
            self.kwargs,
            request,
            hostname=self.hostname,
            loader=self.app.loader,
            app=self.app,
        )
        self.acknowledge()
        return result.retval

    # -- what happened to it ---------------------------------------------------------------------------------------

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """A slot began to run it, ``time_accepted`` on the monotonic clock."""
        self.worker_pid = pid
        self.time_start = time.time() - (time.monotonic() - time_accepted)
        task_accepted(self)
        if not self.task.acks_late:
            self._begin()
        else:
            started = getattr(self._message, "started", None)  # a lease tells those that run from those that wait
            if started is not None:
                started()
        if self._eventer is not None:
            self.send_event("task-started")
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("Task accepted: %s[%s] pid:%r", self.name, self.id, pid)
        if self._terminate_on_ack is not None:
            self.terminate(*self._terminate_on_ack)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """It ran longer than a limit of ``timeout`` seconds."""
        if soft:
            logger.warning("Soft time limit (%ss) exceeded for %s[%s]", timeout, self.name, self.id)
            return
        task_ready(self)
        logger.error("Hard time limit (%ss) exceeded for %s[%s]", timeout, self.name, self.id)
        error = TimeLimitExceeded(timeout)
        self.fail(exception_info(error))
        if self.task.acks_late and not self.task.acks_on_timeout:
            self.reject(requeue=False)
        else:
            self.acknowledge()

    def on_success(self, failed__retval__runtime: tuple[int, Any, float | None], **kwargs: Any) -> Any:
        """The child came to an end: ``(failed, representation or ExceptionInfo, seconds)``."""
        failed, retval, runtime = failed__retval__runtime
        if failed:
            exception = retval.exception
            if isinstance(exception, (SystemExit, KeyboardInterrupt)):
                raise exception
            return self.on_failure(retval, return_ok=True)
        task_ready(self, successful=True)
        if not self.acknowledged:
            self.acknowledge()
        if self._eventer is not None:
            self.send_event("task-succeeded", result=retval, runtime=runtime)
        return None

    def on_retry(self, exc_info: ExceptionInfo) -> None:
        """The task asked to be tried again; the new message is on its way."""
        self.acknowledge()
        retry: Any = bare_exception(exc_info)
        self.send_event("task-retried", exception=safe_repr(retry.exc), traceback=safe_str(exc_info.traceback))

    def on_failure(self, exc_info: ExceptionInfo, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """It ended by an exception.

        ``return_ok`` true: the child itself has stored and told of it.  Else it died, and this process does.
        """
        task_ready(self)
        exc = bare_exception(exc_info)
        if isinstance(exc, MemoryError):
            raise MemoryError(f"Process got: {exc}")
        if isinstance(exc, Reject):
            return self._refused(exc.requeue, safe_repr(exc), exc_info.traceback)
        if isinstance(exc, Ignore):
            return self.acknowledge()
        if isinstance(exc, Retry):
            return self.on_retry(exc_info)
        if isinstance(exc, Terminated):
            self._announce_revoked("terminated", True, str(exc), False)
            return None
        is_lost = isinstance(exc, WorkerLostError)
        if is_lost and self._retry_lost(exc):
            return None
        task = self.task
        if is_lost and task.acks_late and task.reject_on_worker_lost and self._requeue_lost(exc):
            pass  # it has not failed yet
        elif return_ok:
            self._answer_failure()
            if send_failed_event and not (self._already_revoked and isinstance(exc, SoftlyTerminated)):
                self._send_failed(exc_info)
        else:
            self.fail(exc_info)
            self._answer_failure()
        if not return_ok:
            logger.error("Task handler raised error: %r", exc)
        return None

    def _requeue_lost(self, exc: BaseException) -> bool:
        """Put the message back because its process was lost; false if that has happened too often.

        A transport that can counts the losses, and sets the message aside at last.
        """
        requeue = getattr(self._message, "requeue_lost", None)
        if requeue is None and self._requeue_elsewhere is not None:
            requeue = partial(self._requeue_elsewhere, self)
        if requeue is None or self.acknowledged:
            self.reject(requeue=True)
            return True
        self.acknowledged = True
        reason = requeue(str(exc))
        self.send_event("task-rejected", requeue=reason is None)
        if reason is not None:
            logger.error("Task %s is set aside: %s", self.humaninfo(), reason)
            exc.args = (reason,)
        return reason is None

    def _retry_lost(self, exc: BaseException) -> bool:
        """Send the task again if it asks for that after the loss of its process; true if that was done."""
        task = self.task
        if not getattr(task, "retry_on_worker_lost", False):
            return False
        retries = self._request_dict.get("retries") or 0
        if task.max_retries is not None and retries >= task.max_retries:
            return False
        try:
            task.signature_from_request(
                self._context, self.args, self.kwargs, countdown=task.default_retry_delay, retries=retries + 1
            ).apply_async()
        except Exception as error:
            logger.error("Task %s was lost, and sending it again failed: %r", self.humaninfo(), error)
            return False
        self.acknowledge()
        if self.store_errors:
            self._store("mark_as_retry", exc, None)
        self.send_event("task-retried", exception=safe_repr(exc), traceback="")
        return True

    # -- revoked, expired, terminated ------------------------------------------------------------------------------

    def maybe_expire(self) -> bool:
        """Revoke it if its time to start has passed; returns whether it has."""
        if self._expires is None or datetime.now(self._expires.tzinfo) < self._expires:
            return False
        revoked_tasks.add(self.id)
        return True

    def revoked(self) -> bool:
        """Return whether it must not run; the first time, say so to everybody concerned."""
        if self._already_revoked:
            return True
        expired = self._expires is not None and self.maybe_expire()
        if expired or self.id in revoked_tasks or (revoked_stamps and self._is_revoked_by_stamp()):
            logger.info("Discarding revoked task: %s[%s]", self.name, self.id)
            self._announce_revoked("expired" if expired else "revoked", False, None, expired)
            return True
        return False

    def _is_revoked_by_stamp(self) -> bool:
        for header, value in self.stamps.items():
            unwanted = revoked_stamps.get(header)
            if unwanted is None:
                continue
            own = value if isinstance(value, (list, tuple, set, frozenset)) else [value]
            others = unwanted if isinstance(unwanted, (list, tuple, set, frozenset)) else [unwanted]
            if any(stamp in others for stamp in own):
                return True
        return False

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """End it by a signal (default TERM): now, or as soon as it starts."""
        signum = platforms.signals.signum(signal or TERM_SIGNAME)
        if self.time_start:
            if self._end_in(pool, signum):
                self._announce_revoked("terminated", True, signum, False)
        else:
            self._terminate_on_ack = pool, signal
        if self._apply_result is not None:
            result = self._apply_result()
            if result is not None:
                result.terminate(signum)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """End its process because the connection that it came by is lost; it will be delivered again."""
        signum = platforms.signals.signum(signal or TERM_SIGNAME)
        if self.time_start:
            self._already_cancelled = True  # first: a pool of threads tells of the end before it returns
            if self._end_in(pool, signum):
                self._announce_cancelled(emit_retry)
            else:
                self._already_cancelled = False
        if self._apply_result is not None:
            result = self._apply_result()
            if result is not None:
                result.terminate(signum)

    def _end_in(self, pool: Any, signum: Any) -> bool:
        """Have ``pool`` end it; false if it has just ended by itself.

        A pool that takes jobs ends this one and no other; of other pools only the process is known.
        """
        target = self if getattr(pool, "submit", None) is not None else self.worker_pid
        return pool.terminate_job(target, signum) is not False

    # -- what it says of itself ------------------------------------------------------------------------------------

    def info(self, safe: bool = False) -> dict[str, Any]:
        """Return a description for remote control; ``safe`` keeps to text for arguments that may not be sendable."""
        return {
            "id": self.id,
            "name": self.name,
            "args": self.argsrepr if safe else self.args,
            "kwargs": self.kwargsrepr if safe else self.kwargs,
            "type": self._type,
            "hostname": self.hostname,
            "time_start": self.time_start,
            "acknowledged": self.acknowledged or self.is_on_record,
            "delivery_info": self.delivery_info,
            "worker_pid": self.worker_pid,
        }

    def __str__(self) -> str:
        shown = [self.humaninfo()]
        if self._eta:
            shown.append(f" ETA:[{self._eta}]")
        if self._expires:
            shown.append(f" expires:[{self._expires}]")
        return "".join(shown)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.humaninfo()} {self.argsrepr} {self.kwargsrepr}>"


def _wants_answer(cls: type[Request]) -> bool:
    """Return true for a class that overrides what it is told of a success."""
    return cls.on_success is not Request.on_success


def create_request_cls(
    base: type[Request],
    task: Task,
    pool: Any,
    hostname: str,
    eventer: Any,
    ref: Any = ref,
    revoked_tasks: Any = revoked_tasks,
    task_ready: Callable[..., None] = task_ready,
    trace: Any = None,
    app: Any = current_app,
) -> type[Request]:
    """Return a subclass of ``base`` for requests of ``task``, with what is the same for all of them on the class."""

    class TaskRequest(base):  # type: ignore[valid-type, misc]  # a base that is only known at run time
        pass

    specialized: Any = TaskRequest
    specialized._task, specialized._hostname, specialized._eventer, specialized._app = task, hostname, eventer, app
    if trace is not None:
        specialized._trace = staticmethod(trace)
    TaskRequest.__name__ = TaskRequest.__qualname__ = base.__name__
    return TaskRequest
