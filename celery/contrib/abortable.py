"""Tasks that can be asked to stop: the caller stores the state ``ABORTED``, and the task looks for it.

A task calls ``self.is_aborted()`` now and then and returns when it is true; ``result.abort()`` asks it to.  Both ends
use the result store, which must keep states that another process writes (all but ``rpc`` do).
"""

from __future__ import annotations

from typing import Any

from celery.app.task import Task
from celery.result import AsyncResult

__all__ = ("AbortableAsyncResult", "AbortableTask")

ABORTED = "ABORTED"


class AbortableAsyncResult(AsyncResult):
    """The handle on an abortable task."""

    def is_aborted(self) -> bool:
        """Whether the task was asked to stop, and has not ended otherwise."""
        return bool(self.state == ABORTED)

    def abort(self) -> Any:
        """Ask the task to stop; whether and when it does is up to the task."""
        return self.backend.store_result(self.id, result=None, state=ABORTED, traceback=None)


class AbortableTask(Task):
    """Base of tasks that look now and then whether they were aborted."""

    abstract = True

    def AsyncResult(self, task_id: str) -> AbortableAsyncResult:  # type: ignore[override]  # Upstream: no more options
        """Return the handle on a call of this task."""
        return AbortableAsyncResult(task_id, backend=self.backend, task_name=self.name, app=self.app)

    def is_aborted(self, **kwargs: Any) -> bool:
        """Whether this call (or the one named by ``task_id``) was aborted.  It reads the store."""
        result = self.AsyncResult(kwargs.get("task_id", self.request.id))
        return isinstance(result, AbortableAsyncResult) and result.is_aborted()
