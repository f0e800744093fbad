"""Call those who asked to be told of a failure (``link_error``).

An errback that can take ``(request, exc, traceback)`` is called here, at once.  Any other is sent as a task
that gets the id of the failed one.
"""

from __future__ import annotations

from collections.abc import Iterator
from inspect import signature as inspect_signature
from typing import Any
from uuid import uuid4

from celery.utils.log import get_logger

__all__ = ("StandIn", "call_errbacks", "last_task", "members_of")

logger = get_logger(__name__)

#: Options that say what a signature is a part of.
_BELONGING = ("chord", "group_id", "group_index", "chain")


class StandIn:
    """The request of a task that never ran, made of its signature; attributes it lacks are None."""

    errbacks: list[Any]

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    @classmethod
    def of_signature(cls, signature: Any) -> StandIn:
        """Return what the request would have said; ``signature`` may be its plain mapping."""
        options = signature.get("options") or {}
        fields = {
            "task": signature.get("task"),
            "args": signature.get("args"),
            "kwargs": signature.get("kwargs"),
            "id": options.get("task_id"),
            "group": options.get("group_id"),
            "errbacks": options.get("link_error") or [],
            "callbacks": options.get("link") or [],
            "options": options,
            "retries": 0,
            "delivery_info": {},
            "children": [],
        }
        return cls(**{**options, **fields})

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
        return

    def get(self, name: str, default: Any = None) -> Any:
        return self.__dict__.get(name, default)

    def __repr__(self) -> str:
        return f"<request of {self.task}[{self.id}]>"


def last_task(workflow: Any) -> Any:
    """Return the task, or the group, whose result is that of ``workflow``, with what ``workflow`` is a part of."""
    kind, kwargs = workflow.get("subtask_type"), workflow.get("kwargs") or {}
    if kind == "chain" and kwargs.get("tasks"):
        inner = kwargs["tasks"][-1]
    elif kind == "chord" and kwargs.get("body"):
        inner = kwargs["body"]
    else:
        return workflow
    outer = {key: value for key, value in (workflow.get("options") or {}).items() if key in _BELONGING}
    last = last_task(inner)
    return {**last, "options": {**outer, **(last.get("options") or {})}}


def members_of(group: Any) -> Iterator[Any]:
    """Yield the members of ``group``; those of groups within it, or in which one of them ends, in their place."""
    for task in (group.get("kwargs") or {}).get("tasks") or ():
        last = last_task(task)
        if last.get("subtask_type") == "group":
            yield from members_of(last)
        else:
            yield task


def call_errbacks(app: Any, request: Any, exc: BaseException, traceback: Any) -> None:
    """Tell all errbacks of ``request``; one that fails is logged and does not stop the others."""
    to_send = []
    for errback in request.errbacks:
        errback = app.signature(errback)
        if _takes_the_exception(app, errback):
            _call_here(errback, request, exc, traceback)
        else:
            to_send.append(errback)
    if to_send:
        _send(app, request, to_send)


def _takes_the_exception(app: Any, errback: Any) -> bool:
    """Whether the errback is a task of this process whose body takes ``(request, exc, traceback)``."""
    if errback.get("subtask_type"):
        return False
    task = app.tasks.get(errback.get("task"))
    if task is None:
        return False
    own = tuple(errback.get("args") or ())
    given = own if errback.get("immutable") else (None, None, None, *own)
    try:
        body = inspect_signature(task.run)
        body.bind(*given, **(errback.get("kwargs") or {}))
    except (TypeError, ValueError):
        return False
    return _takes_more_than_one(body)


def _takes_more_than_one(body: Any) -> bool:
    parameters = body.parameters.values()
    positional = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    return positional > 1 or any(p.kind is p.VAR_POSITIONAL for p in parameters)


def _call_here(errback: Any, request: Any, exc: BaseException, traceback: Any) -> None:
    try:
        errback(request, exc, traceback)
    except Exception:
        logger.exception("Errback %s of task %s[%s] raised", errback.get("task"), request.task, request.id)


def _run_here(errback: Any, request: Any) -> None:
    try:
        errback.apply((request.id,))
    except Exception:  # a chain raises what one of its steps does
        logger.exception("Errback %s of task %s[%s] raised", errback.get("task"), request.task, request.id)


def _send(app: Any, request: Any, errbacks: list[Any]) -> None:
    """Send errbacks as one group, as children of the failed task; run them here if that ran eagerly."""
    if app.conf.task_always_eager or (request.delivery_info or {}).get("is_eager"):
        for errback in errbacks:
            _run_here(errback, request)
        return
    group_id = str(uuid4())
    root_id = request.root_id or request.id
    for index, errback in enumerate(errbacks):
        errback.apply_async((request.id,), parent_id=request.id, root_id=root_id, group_id=group_id, group_index=index)
