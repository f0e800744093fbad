"""Run one task: request in, outcome out.

``build_tracer`` looks at a task once and returns the function that runs it; what the task does not use (handlers,
signals nobody listens to, a result nobody wants) costs it nothing.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from kombu.exceptions import EncodeError, OperationalError

from celery import signals
from celery._state import _task_stack
from celery.app.context import ignores_result
from celery.app.task import Context
from celery.app.task import Task as BaseTask
from celery.app.trace.outcomes import TraceInfo, traceback_clear
from celery.app.trace.reports import check_kwargs, log_completed_before, log_success, logger, report_internal_error
from celery.concurrency.base import exception_info
from celery.concurrency.guard import user_code
from celery.exceptions import Ignore, Reject, Retry
from celery.states import FAILURE, IGNORED, REJECTED, RETRY, STARTED, SUCCESS
from celery.utils.failpoints import failpoint, is_active
from celery.utils.nodenames import gethostname
from celery.utils.objects import mro_lookup
from celery.utils.saferepr import saferepr

if TYPE_CHECKING:
    from celery.app.base import Celery

IGNORE_STATES = frozenset({IGNORED, RETRY, REJECTED})

#: The body returned, but its value cannot be stored, or its successor cannot be sent: the task has failed.
UNSENDABLE = (EncodeError, OperationalError)


class trace_ok_t(NamedTuple):
    """What a tracer returns: the value (or the error), the `TraceInfo` of an end other than a return,
    seconds taken, and the value's representation, if somebody reads it."""

    retval: Any
    info: TraceInfo | None
    runtime: float | None
    retstr: str | None


#: Whether a test of the tests has switched this protection off: what follows is sent before the success is on record,
#: so that a redelivery which finds it there need not send it.
_STORES_FIRST = is_active("unprotect.successor")

Tracer = Callable[..., trace_ok_t]

#: State, value or exception, what to tell of it (none for a return), and the value or the error with its traceback.
Ending = tuple[str | None, Any, TraceInfo | None, Any]


def task_has_custom(task: Any, attr: str) -> bool:
    """Return true if the task's class, or a base of it between it and ours, defines ``attr``."""
    return bool(mro_lookup(task.__class__, attr, stop={BaseTask, object}, monkey_patched=["celery.app.task"]))


def build_tracer(
    name: str,
    task: Any,
    loader: Any = None,
    hostname: str | None = None,
    store_errors: bool = True,
    Info: type[TraceInfo] = TraceInfo,
    eager: bool = False,
    propagate: bool = False,
    app: Celery | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    trace_ok_t: Callable[..., trace_ok_t] = trace_ok_t,
    IGNORE_STATES: frozenset[str] = IGNORE_STATES,
) -> Tracer:
    """Return the function that runs ``task``: ``trace_task(uuid, args, kwargs, request=None) -> trace_ok_t``.

    ``propagate`` lets exceptions of the task through (eager calls); with ``store_errors`` false none is stored.
    """
    app = task.app if app is None else app
    loader = loader or app.loader
    backend = task.backend
    hostname = hostname or gethostname()

    # A custom __call__ is part of the task's behaviour; ours only adds a request, which is there already.
    body = task if task_has_custom(task, "__call__") else task.run
    before_start = task.before_start if task_has_custom(task, "before_start") else None
    on_success = task.on_success if task_has_custom(task, "on_success") else None
    after_return = task.after_return if task_has_custom(task, "after_return") else None
    on_task_init = loader.on_task_init
    on_process_cleanup = loader.on_process_cleanup
    process_cleanup = backend.process_cleanup
    mark_as_done = backend.mark_as_done

    has_store = not eager or task.store_eager_result
    announces_start = task.track_started and not eager
    skips_completed = (
        not eager and task.acks_late and backend.persistent and app.conf.worker_deduplicate_successful_tasks
    )
    repr_maxsize = task.resultrepr_maxsize

    prerun, postrun, success = signals.task_prerun, signals.task_postrun, signals.task_success
    push_task, pop_task = _task_stack.push, _task_stack.pop
    requests = task.request_stack
    push_request, pop_request = requests.push, requests.pop
    is_logged = logger.isEnabledFor

    def end_with(request: Context, exc: Exception, state: str = FAILURE) -> Ending:
        """Turn an exception into the ending ``state``, and tell everybody concerned."""
        if propagate:
            raise exc
        info = Info(state, exc)
        if store_errors:
            return state, exc, info, info.handle_error_state(task, request, eager=eager)
        return state, exc, info, info.tell(task, request, store_errors=False)

    def dispatch_successors(uuid: str, request: Context, retval: Any) -> None:
        """Send the callbacks and the next step of the chain, as children of this task."""
        root_id = request.root_id or uuid
        options: dict[str, Any] = {"parent_id": uuid, "root_id": root_id}
        if app.conf.task_inherit_parent_priority:
            options["priority"] = (request.delivery_info or {}).get("priority")
        if request.callbacks:
            apply_callbacks(app, request.callbacks, retval, options)
        if request.chain:
            steps = list(request.chain)
            app.signature(steps.pop(), app=app).apply_async((retval,), chain=steps, **options)

    def completed_before(request: Context) -> bool:
        """Return true for a redelivery of a task that is known to have succeeded."""
        if not (request.delivery_info or {}).get("redelivered"):
            return False
        return bool(backend.get_state(request.id) == SUCCESS)

    def announce(uuid: str, request: Context) -> None:
        """Tell whoever listens that the task is about to run."""
        if prerun.receivers:
            prerun.send(sender=task, task_id=uuid, task=task, args=request.args, kwargs=request.kwargs)
        on_task_init(uuid, task)
        if announces_start and not ignores_result(task, request.__dict__):
            backend.store_result(uuid, {"pid": os.getpid(), "hostname": hostname}, STARTED, request=request)

    def run(uuid: str, request: Context) -> Ending:
        """Call the task's body once, and turn whatever happens into an ending."""
        ending: Ending
        args, kwargs = request.args, request.kwargs
        try:
            with user_code:
                if before_start is not None:
                    before_start(uuid, args, kwargs)
                retval = body(*args, **kwargs)
        except Reject as exc:
            info = Info(REJECTED, exc)
            ending = (REJECTED, exc, info, info.handle_reject(task, request))
            traceback_clear(exc)
        except Ignore as exc:
            info = Info(IGNORED, exc)
            ending = (IGNORED, exc, info, info.handle_ignore(task, request))
            traceback_clear(exc)
        except Retry as exc:
            ending = end_with(request, exc, RETRY)
            traceback_clear(exc)
        except Exception as exc:
            if type(exc) is TypeError:
                name_the_caller(exc, task, request)
            ending = end_with(request, exc)
            traceback_clear(exc)
        else:
            return SUCCESS, retval, None, retval
        return ending

    def conclude(uuid: str, request: Context, retval: Any, runtime: float) -> tuple[Ending, str | None]:
        """Send what comes next, store the value, and tell of the success."""
        is_wanted = has_store and not ignores_result(task, request.__dict__)
        if request.callbacks or request.chain:
            if _STORES_FIRST:
                mark_as_done(uuid, retval, request, is_wanted)
                backend.flush()
                failpoint("chain.between")
            try:
                dispatch_successors(uuid, request, retval)
            except Exception as exc:  # of whatever kind: nothing follows, so who waits must hear of it
                if eager and not isinstance(exc, UNSENDABLE):
                    raise
                return end_with(request, exc), None
            failpoint("chain.between")
        try:
            mark_as_done(uuid, retval, request, is_wanted)
        except UNSENDABLE as exc:
            return end_with(request, exc), None
        if success.receivers:
            success.send(sender=task, result=retval, runtime=runtime)
        if on_success is not None:
            on_success(retval, uuid, request.args, request.kwargs)
        retstr = None
        if is_logged(logging.INFO):
            retstr = saferepr(retval, repr_maxsize)
            log_success(name, request, runtime, retstr)
        return (SUCCESS, retval, None, retval), retstr

    def leave(uuid: str, request: Context, state: str | None, retval: Any) -> None:
        """Tell that the task is over, and clean up behind it."""
        try:
            if postrun.receivers:
                postrun.send(
                    sender=task,
                    task_id=uuid,
                    task=task,
                    args=request.args,
                    kwargs=request.kwargs,
                    retval=retval,
                    state=state,
                )
        finally:
            pop_task()
            pop_request()
            if not eager:
                try:
                    process_cleanup()
                    on_process_cleanup()
                except MemoryError:
                    raise
                except Exception as exc:
                    logger.error("Process cleanup failed: %r", exc, exc_info=True)

    def trace_task(uuid: str, args: Any, kwargs: Any, request: Mapping[str, Any] | None = None) -> Any:
        check_kwargs(kwargs)
        task_request = Context(request or {}, args=args, kwargs=kwargs, called_directly=False)
        if skips_completed and completed_before(task_request):
            log_completed_before(name, task_request)
            return trace_ok_t(None, None, 0.0, None)
        ending: Ending = (None, None, None, None)
        retstr = None
        started_at = monotonic()
        push_task(task)
        push_request(task_request)
        try:
            try:
                announce(uuid, task_request)
                ending = run(uuid, task_request)
                runtime = monotonic() - started_at
                if ending[2] is None:
                    ending, retstr = conclude(uuid, task_request, ending[1], runtime)
                if after_return is not None and ending[0] not in IGNORE_STATES:
                    state, retval, info, outcome = ending
                    after_return(state, retval, uuid, args, kwargs, outcome if info else None)
            finally:
                leave(uuid, task_request, ending[0], ending[1])
        except MemoryError:
            raise
        except Exception as exc:
            if propagate and ending[0] is None:
                raise
            _announce_internal_error(task, uuid, args, kwargs, request, exc)
            if eager:
                raise
            return trace_ok_t(
                report_internal_error(task, exc), ending[2] or Info(FAILURE, exc), monotonic() - started_at, retstr
            )
        return trace_ok_t(ending[3], ending[2], runtime, retstr)

    return trace_task


def name_the_caller(error: TypeError, task: Any, request: Context) -> None:
    """Say in ``error`` who sent the call, if its arguments are what is wrong.

    A call by `send_task`, or of another program's, is not checked where it is made.
    """
    check = getattr(task, "__header__", None)
    if check is None or not request.origin or not error.args:
        return
    try:
        check(*request.args, **request.kwargs)
    except TypeError:
        error.args = (f"{error.args[0]} (called by {request.origin})", *error.args[1:])
    except Exception:  # what the parameters' defaults may do; then nothing is known
        return


def apply_callbacks(app: Celery, callbacks: list[Any], retval: Any, options: dict[str, Any]) -> None:
    """Send ``callbacks`` with ``retval`` as their first argument.

    Upstream: several single tasks go as one group, so that they carry a group id.
    """
    signatures = [app.signature(callback, app=app) for callback in callbacks]
    if len(signatures) == 1:
        signatures[0].apply_async((retval,), **options)
        return
    from celery.canvas import group  # a room below, loaded by the first canvas

    singles = [signature for signature in signatures if not isinstance(signature, group)]
    for signature in signatures:
        if isinstance(signature, group):
            signature.apply_async((retval,), **options)
    if singles:
        group(singles, app=app).apply_async((retval,), **options)


def _announce_internal_error(task: Any, uuid: str, args: Any, kwargs: Any, request: Any, exc: Exception) -> None:
    """Send the signal ``task_internal_error``; must be called while ``exc`` is being handled."""
    signals.task_internal_error.send(
        sender=task,
        task_id=uuid,
        args=args,
        kwargs=kwargs,
        request=request,
        exception=exc,
        traceback=exc.__traceback__,
        einfo=exception_info(exc, internal=True),
    )


__all__ = ("IGNORE_STATES", "Tracer", "build_tracer", "task_has_custom", "trace_ok_t")
