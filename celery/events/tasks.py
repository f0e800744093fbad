"""A task, as its events tell of it.  Its door is `celery.events.state`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakSet

from kombu.utils.objects import cached_property

from celery import states
from celery.events.nodes import Worker

__all__ = ("TASK_EVENT_TO_STATE", "Task")

TASK_EVENT_TO_STATE = {
    "sent": states.PENDING,
    "received": states.RECEIVED,
    "started": states.STARTED,
    "failed": states.FAILURE,
    "retried": states.RETRY,
    "succeeded": states.SUCCESS,
    "revoked": states.REVOKED,
    "rejected": states.REJECTED,
}


class Task:
    """A task, as its events tell of it.  Each kind of event leaves its time in an attribute of its name."""

    uuid: str | None
    cluster_state: Any
    children: WeakSet[Task]
    worker: Worker | None = None
    name = received = sent = started = succeeded = failed = retried = revoked = rejected = None
    args = kwargs = eta = expires = retries = result = exception = timestamp = runtime = None
    traceback = exchange = routing_key = root_id = parent_id = client = None
    state = states.PENDING
    clock = 0

    #: What a late event may still tell of a task that has gone further.
    merge_rules = {
        states.RECEIVED: ("name", "args", "kwargs", "parent_id", "root_id", "retries", "eta", "expires"),
    }

    _fields = (
        "uuid",
        "name",
        "state",
        "received",
        "sent",
        "started",
        "rejected",
        "succeeded",
        "failed",
        "retried",
        "revoked",
        "args",
        "kwargs",
        "eta",
        "expires",
        "retries",
        "worker",
        "result",
        "exception",
        "timestamp",
        "runtime",
        "traceback",
        "exchange",
        "routing_key",
        "clock",
        "client",
        "root",
        "root_id",
        "parent",
        "parent_id",
        "children",
    )

    #: What `info` shows unless it is told otherwise.
    _info_fields = (
        "args",
        "kwargs",
        "retries",
        "result",
        "eta",
        "runtime",
        "expires",
        "exception",
        "exchange",
        "routing_key",
        "root_id",
        "parent_id",
    )

    def __init__(
        self,
        uuid: str | None = None,
        cluster_state: Any = None,
        children: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.uuid = uuid
        self.cluster_state = cluster_state
        known = (cluster_state.tasks.get(task_id) for task_id in children or ()) if cluster_state else ()
        self.children = WeakSet(task for task in known if task is not None)
        self.__dict__.update(kwargs)

    def event(
        self,
        type_: str,
        timestamp: float | None = None,
        local_received: float | None = None,
        fields: dict[str, Any] | None = None,
        precedence: Callable[[str], int] = states.precedence,
        setattr: Callable[..., None] = setattr,
        task_event_to_state: Callable[[str], str | None] = TASK_EVENT_TO_STATE.get,
        RETRY: str = states.RETRY,
    ) -> None:
        """Take in one event; one that comes late completes what is known, and takes nothing back."""
        told = dict(fields or {})
        state = task_event_to_state(type_)
        if state is not None:
            setattr(self, type_, timestamp)
        else:
            state = type_.upper()  # an event of the user's own
        is_late = RETRY not in (state, self.state) and precedence(state) > precedence(self.state)
        if is_late:
            kept = self.merge_rules.get(state)
            if kept is not None:
                told = {name: told.get(name) for name in kept}
        else:
            told.update(state=state, timestamp=timestamp)
        self.__dict__.update(told)

    def info(self, fields: Iterable[str] | None = None, extra: Iterable[str] | None = None) -> dict[str, Any]:
        """Return what is known of ``fields`` (and ``extra``), without those that are ``None``."""
        names = [*(self._info_fields if fields is None else fields), *(extra or ())]
        values = {name: getattr(self, name, None) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values: related tasks by id, the worker by its host name."""
        values: dict[str, Any] = {name: getattr(self, name, None) for name in self._fields}
        values["children"] = [child.id for child in self.children]
        for relation in ("root", "parent"):
            values[relation] = values[relation].id if values[relation] is not None else None
        return values

    @property
    def id(self) -> str | None:
        return self.uuid

    @property
    def origin(self) -> Any:
        return self.client if self.worker is None else self.worker.id

    @property
    def ready(self) -> bool:
        return self.state in states.READY_STATES

    @cached_property
    def parent(self) -> Task | None:
        return self._relative(self.parent_id)

    @cached_property
    def root(self) -> Task | None:
        return self._relative(self.root_id)

    def _relative(self, task_id: str | None) -> Task | None:
        if task_id and self.cluster_state is not None:
            found: Task | None = self.cluster_state.tasks.get(task_id)
            return found
        return None

    def __reduce__(self) -> Any:
        return _make_task, (self.__class__, self.as_dict())

    def __repr__(self) -> str:
        return f"<Task: {self.name}({self.uuid}) {self.state} clock:{self.clock}>"


def _make_task(cls: type[Task], values: dict[str, Any]) -> Task:
    """Return a task from what `Task.as_dict` gave, without its cluster."""
    values = {name: value for name, value in values.items() if name not in ("root", "parent", "children")}
    return cls(**values)


Task.__module__ = "celery.events.state"  # pickles name the door
