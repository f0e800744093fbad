"""What is told of an accepted message: an answer to the broker, its state to the result store, events to monitors.

The store is told of an end before the broker is, for of a message without an answer one hears again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from billiard.einfo import ExceptionInfo
from kombu.utils.encoding import safe_repr

from celery import signals
from celery.backends.base import DisabledBackend
from celery.concurrency.base import bare_exception
from celery.exceptions import Retry
from celery.utils.failpoints import is_active
from celery.utils.log import get_logger
from celery.utils.serialization import get_pickled_exception
from celery.worker import state
from celery.worker.accepted import Accepted

__all__ = ("Answered",)

#: Users know it as that of requests.
logger = get_logger("celery.worker.request")

#: Called with what the worker holds, whole requests.
task_ready: Callable[..., None] = state.task_ready

#: Seconds for which a task that never began is acknowledged after its state is stored, not before.
HOLD_SECONDS = 1.0

#: Whether a test of the tests has switched this protection off.
_WAITS_FOR_STORES = is_active("unprotect.books")


class Answered(Accepted):
    """An accepted message, and what is told of it.

    ``on_ack(logger, connection_errors)`` and ``on_reject(logger, connection_errors, requeue)`` answer the broker; see
    `Accepted` for the rest of the arguments.
    """

    acknowledged = False
    #: It acknowledges early and runs: its delivery has no place in the credit any more, but is on record until it ends.
    is_on_record = False
    #: When a slot began to run it.
    time_start: float | None = None

    _already_revoked = False
    _already_cancelled = False

    #: ``(task, mark, task_id, *arguments, done=..., **keywords)`` stores a state without making this thread wait; see
    #: `celery.worker.consumer.bookkeeping`.  Set by the strategy.
    _keep_books: Callable[..., None] | None = None
    #: States that are on their way to the store, and the answer to the broker that waits for them.
    _records_due = 0
    _held_answer: Callable[[], Any] | None = None

    # -- the broker ------------------------------------------------------------------------------------------------

    def acknowledge(self) -> None:
        """Tell the broker that the message is done with; once."""
        if not self.acknowledged:
            self.acknowledged = True
            self._answer(self._on_ack)

    def reject(self, requeue: bool = False) -> None:
        """Tell the broker that the message is refused; ``requeue`` puts it back into its queue."""
        if self.is_on_record:  # it was as good as acknowledged when it began
            self.acknowledge()
        elif not self.acknowledged:
            self.acknowledged = True
            self._answer(self._on_reject, requeue)
            self.send_event("task-rejected", requeue=requeue)

    def _answer(self, answer: Callable[..., Any], *arguments: Any) -> None:
        """Answer the broker; the end of a task is told to the store first, for without an answer it is heard of again.

        What never began waits for `HOLD_SECONDS` at most: its place in the credit is for others if the store is away.
        """
        if self._records_due:
            self._held_answer = partial(answer, logger, self._connection_errors, *arguments)
        else:
            answer(logger, self._connection_errors, *arguments)

    def _begin(self) -> None:
        """Acknowledge early, or have the broker remember that this began until it ends, if anybody wants to know."""
        if not self.acknowledged and self._is_awaited:
            begin = getattr(self._message, "begin", None)
            self.is_on_record = begin is not None and begin()
        if not self.is_on_record:
            self.acknowledge()

    @property
    def _is_awaited(self) -> bool:
        """Whether somebody would wait in vain if this ended without a word."""
        if not self.store_errors and self.group is None:
            return False
        return not isinstance(self.task.backend, DisabledBackend)

    def _refused(self, requeue: bool, shown: str, traceback: str | None) -> None:
        """The task raised `Reject`, ``shown`` in text; it has failed unless it goes back into its queue."""
        if not requeue:
            self.send_event("task-failed", exception=shown, traceback=traceback)
        self.reject(requeue=requeue)

    def _answer_failure(self) -> None:
        """Acknowledge or reject after a failure, as the task's options say."""
        if self.task.acks_late and not self.task.acks_on_failure:
            self.reject(requeue=False)
        else:
            self.acknowledge()

    # -- the result store ------------------------------------------------------------------------------------------

    def _store(self, mark: str, *arguments: Any, **keywords: Any) -> None:
        """Have a state stored: by the method ``mark`` of the task's store, without waiting for that store."""
        task = self.task
        if self._keep_books is not None and not _WAITS_FOR_STORES and not isinstance(task.backend, DisabledBackend):
            if mark != "mark_as_retry":  # its end is still to come, and answers the broker
                self._records_due += 1
                keywords["done"] = self._on_recorded
                keywords["at_most"] = None if self.time_start is not None else HOLD_SECONDS
            self._keep_books(task, mark, self.id, *arguments, request=self._context, **keywords)
            return
        try:
            getattr(task.backend, mark)(self.id, *arguments, request=self._context, **keywords)
        except Exception as error:  # a store that is away must not end the worker
            logger.error("The state of task %s could not be stored: %r", self.humaninfo(), error)

    def _on_recorded(self) -> None:
        """A state is safe, or was given up: answer the broker if that is all that the answer waits for."""
        self._records_due -= 1
        answer = self._held_answer
        if answer is not None and not self._records_due:
            self._held_answer = None
            answer()

    # -- monitors --------------------------------------------------------------------------------------------------

    def send_event(self, type: str, **fields: Any) -> None:
        eventer = self._eventer
        if eventer is not None and eventer.enabled and self.task.send_events:
            eventer.send(type, uuid=self.id, **fields)

    def _send_failed(self, exc_info: ExceptionInfo) -> None:
        if self._eventer is not None:
            self.send_event(
                "task-failed",
                exception=safe_repr(get_pickled_exception(bare_exception(exc_info))),
                traceback=exc_info.traceback,
            )

    # -- all of them: ends that no child process tells of ---------------------------------------------------------

    def fail(self, exc_info: ExceptionInfo) -> None:
        """Store the failure and tell of it from this process: the one that ran the task cannot any more."""
        task, exc, context = self.task, bare_exception(exc_info), self._context
        self._store("mark_as_failure", exc, store_result=self.store_errors)
        try:
            task.on_failure(exc, self.id, context.args, context.kwargs, exc_info)
        except Exception as error:
            logger.error("on_failure of task %s raised %r", self.humaninfo(), error, exc_info=True)
        signals.task_failure.send(
            sender=task,
            task_id=self.id,
            exception=exc,
            args=context.args,
            kwargs=context.kwargs,
            traceback=exc_info.traceback,
            einfo=exc_info,
        )
        self._send_failed(exc_info)

    def _announce_cancelled(self, emit_retry: bool) -> None:
        task_ready(self)
        self.send_event("task-cancelled")
        reason = "cancelled by Celery"
        retry = Retry(message=reason)
        if self.store_errors:
            self._store("mark_as_retry", retry)
        if emit_retry:
            self.task.on_retry(retry, self.id, self.args, self.kwargs, None)
            signals.task_retry.send(sender=self.task, request=self._context, reason=retry, einfo=None)

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        if self._already_revoked or self._already_cancelled:
            return
        self._already_revoked = True
        task_ready(self)
        self.send_event("task-revoked", terminated=terminated, signum=signum, expired=expired)
        self._store("mark_as_revoked", reason, store_result=self.store_errors)
        self.acknowledge()
        signals.task_revoked.send(
            sender=self.task, request=self._context, terminated=terminated, signum=signum, expired=expired
        )
