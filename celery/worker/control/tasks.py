"""Commands about tasks: what is held here, revoking, limits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from billiard.common import TERM_SIGNAME

from celery.backends.base import DisabledBackend
from celery.exceptions import InvalidRate
from celery.platforms import signals as platform_signals
from celery.utils.functional import maybe_list
from celery.utils.log import get_logger
from celery.utils.time import rate
from celery.worker import state as worker_state
from celery.worker.control.panel import control_command, inspect_command, nok, ok

__all__ = (
    "active",
    "query_task",
    "rate_limit",
    "registered",
    "reserved",
    "revoke",
    "revoke_by_stamped_headers",
    "revoked",
    "scheduled",
    "terminate",
    "time_limit",
)

logger = get_logger(__name__)

#: Task attributes that `registered` shows if it is not asked for others.
TASK_INFO = ("exchange", "routing_key", "rate_limit")


# -- what is held here


@inspect_command(variadic="ids", signature="[id1 [id2 [... [idN]]]]")
def query_task(state: Any, ids: Any, **kwargs: Any) -> dict[str, Any]:
    """Tell stage and details of the tasks with these ids, as far as they are here or wait at the broker."""
    ids = list(maybe_list(ids) or ())
    found = {request.id: (_stage_of(request), request.info()) for request in _find(ids)}
    missing = [task_id for task_id in ids if task_id not in found]
    parked = state.consumer.delays.parked(ids=missing) if missing else ()
    return {**{waiting["request"]["id"]: ("scheduled", waiting["request"]) for waiting in parked}, **found}


def _find(ids: Iterable[str]) -> Iterator[Any]:
    for task_id in ids:
        request = worker_state.requests.get(task_id)
        if request is not None:
            yield request


def _stage_of(request: Any) -> str:
    if request in worker_state.active_requests:
        return "active"
    if request in worker_state.reserved_requests:
        return "reserved"
    return "scheduled" if request in worker_state.scheduled_requests else "ready"


@inspect_command(alias="dump_active")
def active(state: Any, safe: bool = False, **kwargs: Any) -> list[dict[str, Any]]:
    """List the tasks that run now."""
    return [request.info(safe=safe) for request in state.tset(worker_state.active_requests)]


@inspect_command(alias="dump_reserved")
def reserved(state: Any, **kwargs: Any) -> list[dict[str, Any]]:
    """List the tasks that were taken and have not begun."""
    waiting = state.tset(worker_state.reserved_requests) - state.tset(worker_state.active_requests)
    return [request.info() for request in waiting]


@inspect_command(alias="dump_schedule")
def scheduled(state: Any, **kwargs: Any) -> list[dict[str, Any]]:
    """List the tasks that wait for their time: those in this worker, then the next ones at the broker.

    Of each queue that is consumed here the first hundred are shown; any worker may run them.  RabbitMQ shows none.
    """
    return [*_scheduled(state.consumer.timer), *state.consumer.delays.parked()]


def _scheduled(timer: Any) -> Iterator[dict[str, Any]]:
    from celery.worker.request import Request

    for waiting in getattr(timer, "schedule", timer).queue:
        arguments = waiting.entry.args
        if arguments and isinstance(arguments[0], Request) and not waiting.entry.canceled:
            request = arguments[0]
            yield {
                "eta": request.eta.isoformat() if request.eta else None,
                "priority": waiting.priority,
                "request": request.info(),
            }


@inspect_command(alias="dump_revoked")
def revoked(state: Any, **kwargs: Any) -> list[str]:
    """List the ids of revoked tasks."""
    return list(worker_state.revoked)


@inspect_command(
    alias="dump_tasks",
    variadic="taskinfoitems",
    signature="[attr1 [attr2 [... [attrN]]]]",
)
def registered(state: Any, taskinfoitems: Any = None, builtins: bool = False, **kwargs: Any) -> list[str]:
    """List the tasks that this worker knows, with the attributes asked for."""
    attributes = taskinfoitems or TASK_INFO
    tasks = state.app.tasks
    names = sorted(name for name in tasks if builtins or not name.startswith("celery."))
    return [_describe(tasks[name], attributes) for name in names]


def _describe(task: Any, attributes: Iterable[str]) -> str:
    found = {name: str(getattr(task, name)) for name in attributes if getattr(task, name, None) is not None}
    text = " ".join(f"{name}={value}" for name, value in found.items())
    return f"{task.name} [{text}]" if found else str(task.name)


# -- revoking


@control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke(state: Any, task_id: Any, terminate: bool = False, signal: Any = None, **kwargs: Any) -> dict[str, Any]:
    """Have tasks not run, by id; with `terminate`, also end those that run."""
    ids = set(maybe_list(task_id) or ())
    size = len(ids)
    worker_state.revoked.update(ids)
    state.consumer.revocations.store(ids)
    _tell_those_who_wait(state, ids)
    if terminate:
        ended = _terminate(state, _find(ids), signal)
        return ok(f"terminate: {', '.join(ended)}" if ended else "terminate: tasks unknown")
    if size:
        logger.info("Tasks flagged as revoked: %s", ", ".join(sorted(ids)))
    return ok(f"tasks {ids} flagged as revoked")


def _tell_those_who_wait(state: Any, ids: Iterable[str]) -> None:
    """Store that tasks are revoked, but for those that run here: they go on, or are terminated and told of then."""
    state.consumer.pool.look()
    running = {request.id for request in worker_state.active_requests}
    if not isinstance(state.app.backend, DisabledBackend):
        state.consumer.bookkeeper.submit(_mark_revoked, state.app, [each for each in ids if each not in running])


def _mark_revoked(app: Any, ids: Iterable[str]) -> None:
    for task_id in ids:
        app.backend.mark_as_revoked_ahead(task_id)


def _terminate(state: Any, requests: Iterable[Any], signal: Any) -> list[str]:
    """End ``requests`` by ``signal``, as soon as they run; returns their ids."""
    signum = platform_signals.signum(signal or TERM_SIGNAME)
    ended = []
    for request in list(requests):
        logger.info("Terminating %s (%s)", request.id, signum)
        request.terminate(state.consumer.pool, signal=signum)
        ended.append(request.id)
    return ended


@control_command(variadic="task_id", args=[("signal", str)], signature="<signal> [id1 [id2 [... [idN]]]]")
def terminate(state: Any, signal: Any, task_id: Any, **kwargs: Any) -> dict[str, Any]:
    """End running tasks by a signal."""
    return revoke(state, task_id, terminate=True, signal=signal)


@control_command(variadic="headers", signature="[key1=value1 [key2=value2 [... [keyN=valueN]]]]")
def revoke_by_stamped_headers(
    state: Any, headers: Any, terminate: bool = False, signal: Any = None, **kwargs: Any
) -> dict[str, Any]:
    """Have tasks not run that carry one of these stamps; with `terminate`, also end those that run."""
    stamps = _stamps(headers)
    worker_state.merge_revoked_stamps(stamps)
    state.consumer.revocations.store((), stamps)
    if not terminate:
        return ok(f"headers {headers} flagged as revoked, but not terminated")
    found = [request for request in list(worker_state.requests.values()) if _has_stamp(request, stamps)]
    ended = _terminate(state, found, signal)
    worker_state.revoked.update(ended)
    if not ended:
        return ok(f"headers {headers} were not terminated")
    return ok(f"headers {headers} revoked")


def _stamps(headers: Any) -> dict[str, list[Any]]:
    """Return ``{header: values}`` for a mapping, or for texts ``header=value`` as the command line has them.

    Raises:
        ValueError: a text is none of these.
    """
    if isinstance(headers, Mapping):
        return {header: list(maybe_list(values) or ()) for header, values in headers.items()}
    stamps: dict[str, list[Any]] = {}
    for text in maybe_list(headers) or ():
        header, equals, value = str(text).partition("=")
        if not equals:
            raise ValueError(f"{text!r} is no stamp: say header=value")
        stamps.setdefault(header, []).append(value)
    return stamps


def _has_stamp(request: Any, stamps: Mapping[str, list[Any]]) -> bool:
    if not request.stamped_headers:
        return False
    return any(
        set(map(str, maybe_list(request.stamps.get(header)) or ())) & set(map(str, values))
        for header, values in stamps.items()
        if header in request.stamped_headers
    )


# -- limits


@control_command(
    args=[("task_name", str), ("rate_limit", str)],
    signature="<task_name> <rate_limit (e.g., 5/s | 5/m | 5/h)>",
)
def rate_limit(state: Any, task_name: str, rate_limit: Any, **kwargs: Any) -> dict[str, Any]:
    """Change how often tasks of one name may start here; 0 for no limit."""
    try:
        rate(rate_limit)
    except InvalidRate as exc:
        logger.error("Rate limit attempt for task %s: %s", task_name, exc)
        return nok(f"Invalid rate limit string: {exc}")
    task = state.app.tasks.get(task_name)
    if task is None:
        logger.error("Rate limit attempt for unknown task %s", task_name)
        return nok("unknown task")
    task.rate_limit = rate_limit
    state.consumer.reset_rate_limits()
    if not rate_limit:
        logger.info("Rate limits disabled for tasks of type %s", task_name)
        return ok("rate limit disabled successfully")
    logger.info("New rate limit for tasks of type %s: %s.", task_name, rate_limit)
    return ok("new rate limit set successfully")


@control_command(
    args=[("task_name", str), ("soft", float), ("hard", float)],
    signature="<task_name> <soft_secs> [hard_secs]",
)
def time_limit(
    state: Any, task_name: str | None = None, hard: float | None = None, soft: float | None = None, **kwargs: Any
) -> dict[str, Any]:
    """Change how long tasks of one name may run here, in seconds."""
    task = state.app.tasks.get(task_name)
    if task is None:
        logger.error("Change time limit attempt for unknown task %s", task_name)
        return nok("unknown task")
    task.soft_time_limit, task.time_limit = soft, hard
    logger.info("New time limits for tasks of type %s: soft=%s hard=%s", task_name, soft, hard)
    return ok("time limits set successfully")
