"""What a worker tells a backend when a task starts or ends, and who else must hear of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionInfo

from celery import states
from celery.backends.codec import ResultTooLarge
from celery.backends.errbacks import StandIn, call_errbacks, last_task, members_of
from celery.exceptions import TaskRevokedError

__all__ = ("Outcomes",)

#: States of a task that it is too late to revoke.
_BEGUN = states.READY_STATES | {states.STARTED}


class Outcomes:
    """``mark_as_...``: store the state, count the member of a chord, call errbacks."""

    app: Any
    if TYPE_CHECKING:  # what the store beside it gives
        get_state: Callable[[str], str]
        get_task_meta: Callable[..., dict[str, Any]]

    #: Whether ``on_chord_part_return`` keeps the values of the members itself.
    chord_parts_hold_values: bool = False

    def mark_as_started(self, task_id: str, **meta: Any) -> Any:
        """A process has begun to run the task; ``meta`` says which."""
        return self.store_result(task_id, meta, states.STARTED)

    def mark_as_done(
        self, task_id: str, result: Any, request: Any = None, store_result: bool = True, state: str = states.SUCCESS
    ) -> None:
        """The task has ended well."""
        if (store_result and not (request is not None and request.ignore_result)) or self._chord_reads(request):
            self.store_result(task_id, result, state, request=request)
        if request and request.chord:
            self.on_chord_part_return(request, state, result)

    def _chord_reads(self, request: Any) -> bool:
        """Whether the body of a chord waits for this record, so that it must be there though nobody else wants it."""
        return bool(request and request.chord and request.group) and not self.chord_parts_hold_values

    def mark_as_failure(
        self,
        task_id: str,
        exc: BaseException,
        traceback: Any = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """The task has raised ``exc``, so the rest of its chain will not run either."""
        if store_result or self._chord_reads(request):
            exc = self._store_exception(task_id, exc, state, traceback, request)
        if not request:
            return
        if request.chord:
            self.on_chord_part_return(request, state, exc)
        self.fail_steps_after(request, exc, traceback, store_result, state)
        if call_errbacks and request.errbacks:
            self.send_held()  # an errback that runs elsewhere looks at the state
            self._call_task_errbacks(request, exc, traceback)

    def fail_steps_after(
        self,
        request: Any,
        exc: BaseException,
        traceback: Any = None,
        store_result: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """Store ``state`` and ``exc`` for the steps behind ``request`` in its chain, which will not run."""
        for step in _steps_that_will_not_run(request):
            if (store_result or self._chord_reads(step)) and state in states.PROPAGATE_STATES and step.id:
                self.store_result(step.id, exc, state, traceback=traceback, request=step)
            if step.chord:
                self.on_chord_part_return(step, state, exc)

    def mark_as_lost(self, task_id: str, exc: BaseException, request: Any, store_result: bool = True) -> None:
        """What ran the task is gone, and it will not be run again: it has failed, unless its end is on record."""
        meta = self.get_task_meta(task_id, cache=False)
        state = meta["status"]
        if state == states.SUCCESS:
            if request.chord:  # it may not have come to that
                self.on_chord_part_return(request, state, meta["result"])
        elif state in states.PROPAGATE_STATES:
            self.mark_as_failure(
                task_id, meta["result"], meta.get("traceback"), request, store_result, call_errbacks=False, state=state
            )
        elif state != states.RETRY:  # then the next run is on its way
            self.mark_as_failure(task_id, exc, None, request, store_result)

    def mark_as_ignored(self, request: Any) -> None:
        """The task wants no state of its own; one that it has written itself is told to the chord it belongs to."""

        def count() -> None:
            meta = self.get_task_meta(request.id, cache=False)
            if meta["status"] in states.READY_STATES:
                self.on_chord_part_return(request, meta["status"], meta["result"])

        if request.chord and request.id:
            self.do_or_owe(count)

    def mark_as_revoked(
        self,
        task_id: str,
        reason: str = "",
        request: Any = None,
        store_result: bool = True,
        state: str = states.REVOKED,
    ) -> None:
        """The task will not run, or was killed, nor will the rest of its chain; a chord counts it as failed."""
        error = TaskRevokedError(reason)
        if store_result:
            self.store_result(task_id, error, state, traceback=None, request=request)
        if not request:
            return
        if request.chord:
            self.on_chord_part_return(request, state, error)
        self.fail_steps_after(request, error, None, store_result, state)

    def mark_as_revoked_ahead(self, task_id: str) -> None:
        """A task was revoked that is not known to run: who waits for it is told now, not when its message is met.

        Upstream: each worker that hears of it stores this, unless it runs the task.
        """
        if self.get_state(task_id) not in _BEGUN:
            self.mark_as_revoked(task_id, "revoked")

    def remember_revoked(self, ids: Iterable[str], stamps: Mapping[str, Iterable[Any]]) -> bool:
        """Put revoked tasks, by id or ``{header: stamps}``, on record for workers that start later.

        Returns whether this store keeps such a record.
        """
        return False

    def recall_revoked(self) -> tuple[list[str], dict[str, list[Any]]]:
        """Return what is on record: ids and ``{header: stamps}``."""
        return [], {}

    def mark_as_retry(
        self,
        task_id: str,
        exc: BaseException,
        traceback: Any = None,
        request: Any = None,
        store_result: bool = True,
        state: str = states.RETRY,
    ) -> Any:
        """The task has raised ``exc`` and will run again."""
        if store_result:
            return self._store_exception(task_id, exc, state, traceback, request)
        return None

    def _store_exception(
        self, task_id: str, exc: BaseException, state: str, traceback: Any, request: Any
    ) -> BaseException:
        """Store ``exc``; if that is too large, the error that says so.  Returns which it was."""
        try:
            self.store_result(task_id, exc, state, traceback=traceback, request=request)
            return exc
        except ResultTooLarge:
            # With `result_extended` it may be the arguments that take so much.
            request = copy(request)
            if request is not None:
                request.args = request.kwargs = None
        try:
            self.store_result(task_id, exc, state, traceback=traceback, request=request)
            return exc
        except ResultTooLarge as error:
            self.store_result(task_id, error, state, traceback=None, request=request)
            return error

    def fail_from_current_stack(self, task_id: str, exc: BaseException | None = None) -> ExceptionInfo:
        """Store that the task failed with the exception that is being handled, or with ``exc``."""
        error = exc if exc is not None else sys.exc_info()[1]
        if error is None:
            raise RuntimeError("fail_from_current_stack() needs an exception: none is given and none is being handled")
        info = _with_traceback(error)
        self.mark_as_failure(task_id, error, info.traceback)
        return info

    def _call_task_errbacks(self, request: Any, exc: BaseException, traceback: Any) -> None:
        call_errbacks(self.app, request, exc, traceback)

    if TYPE_CHECKING:  # what the store itself gives

        def store_result(
            self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None
        ) -> Any: ...

        def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None: ...

        def do_or_owe(self, job: Callable[[], Any]) -> None: ...

        def send_held(self) -> None: ...


def _with_traceback(error: BaseException) -> ExceptionInfo:
    if error.__traceback__ is not None:
        return ExceptionInfo((type(error), error, error.__traceback__))
    try:
        raise error
    except BaseException:
        return ExceptionInfo()
    finally:
        error.__traceback__ = None


def _steps_that_will_not_run(request: Any) -> Iterator[StandIn]:
    """Yield the tasks that stand for the steps behind this one in its chain, in the order in which they are kept."""
    for step in request.chain or ():
        last = last_task(step)
        if last.get("subtask_type") == "group":
            yield from (StandIn.of_signature(last_task(member)) for member in members_of(last))
        else:
            yield StandIn.of_signature(last)
