"""What the cluster looks like, as far as its events tell: workers, and the tasks they have seen.

``State.event`` takes one event after another; everything else only looks.
"""

from __future__ import annotations

import bisect
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any
from weakref import WeakSet, ref

from kombu.clocks import timetuple

from celery import states
from celery.events.nodes import HEARTBEAT_DRIFT_MAX, HEARTBEAT_EXPIRE_WINDOW, Worker, heartbeat_expires
from celery.events.tasks import TASK_EVENT_TO_STATE, Task
from celery.utils.functional import LRUCache

__all__ = (
    "HEARTBEAT_DRIFT_MAX",
    "HEARTBEAT_EXPIRE_WINDOW",
    "TASK_EVENT_TO_STATE",
    "State",
    "Task",
    "Worker",
    "heartbeat_expires",
)


class CallableDefaultdict(defaultdict[Any, Any]):
    """A mapping of sets that can be called, too: ``d[key]`` is the set, ``d(key, ...)`` what ``fun`` selects."""

    def __init__(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.fun = fun
        super().__init__(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fun(*args, **kwargs)


#: For annotations in `State`, where the names themselves are attributes.
_Worker = Worker
_Task = Task


class State:
    """Workers and tasks seen so far.

    ``callback(state, event)`` hears of each event; ``on_node_join(worker)`` and ``on_node_leave(worker)`` of nodes.
    The least recently seen beyond ``max_workers_in_memory`` and ``max_tasks_in_memory`` are forgotten.
    """

    Worker = Worker
    Task = Task
    event_count = 0
    task_count = 0

    #: The heap of events may be this many times as long as the tasks that are kept.
    heap_multiplier = 4

    def __init__(
        self,
        callback: Callable[..., Any] | None = None,
        workers: Any = None,
        tasks: Any = None,
        taskheap: list[Any] | None = None,
        max_workers_in_memory: int = 5000,
        max_tasks_in_memory: int = 10000,
        on_node_join: Callable[..., Any] | None = None,
        on_node_leave: Callable[..., Any] | None = None,
        tasks_by_type: Any = None,
        tasks_by_worker: Any = None,
    ) -> None:
        self.event_callback = callback
        self.workers = LRUCache(max_workers_in_memory) if workers is None else workers
        self.tasks = LRUCache(max_tasks_in_memory) if tasks is None else tasks
        self._taskheap: list[Any] = [] if taskheap is None else taskheap
        self.max_workers_in_memory = max_workers_in_memory
        self.max_tasks_in_memory = max_tasks_in_memory
        self.on_node_join = on_node_join
        self.on_node_leave = on_node_leave
        self.handlers: dict[str, Callable[..., Any]] = {}
        self._mutex = threading.Lock()
        self._seen_types: set[str] = set()
        #: Children that were seen before their parent.
        self._orphans: Any = LRUCache(self.max_tasks_in_memory)
        self.tasks_by_type = CallableDefaultdict(self._tasks_by_type, WeakSet)
        self.tasks_by_worker = CallableDefaultdict(self._tasks_by_worker, WeakSet)
        self.tasks_by_type.update(_as_sets(tasks_by_type, self.tasks))
        self.tasks_by_worker.update(_as_sets(tasks_by_worker, self.tasks))
        self.rebuild_taskheap()

    # -- events come in

    def event(self, event: dict[str, Any]) -> Any:
        """Take in one event; returns ``((worker or task, is new), subject)``, or what a custom handler gives."""
        with self._mutex:
            return self._event(event)

    def _event(self, event: dict[str, Any]) -> Any:
        self.event_count += 1
        if self.event_callback:
            self.event_callback(self, event)
        group, _, subject = event["type"].partition("-")
        handler = self.handlers.get(group)
        if handler is not None:
            return handler(subject, event), subject
        if group == "worker":
            return self._worker_event(subject, event), subject
        if group == "task":
            return self._task_event(subject, event), subject
        return None

    def task_event(self, type_: str, fields: dict[str, Any]) -> Any:
        """Take in an event of a task; ``type_`` without its group."""
        return self._event({**fields, "type": f"task-{type_}"})[0]

    def worker_event(self, type_: str, fields: dict[str, Any]) -> Any:
        """Take in an event of a worker; ``type_`` without its group."""
        return self._event({**fields, "type": f"worker-{type_}"})[0]

    def _worker_event(self, subject: str, event: dict[str, Any]) -> tuple[_Worker, bool] | None:
        hostname = event.get("hostname")
        timestamp = event.get("timestamp")
        if hostname is None:
            return None
        is_new = hostname not in self.workers
        if subject == "offline":
            worker = self.workers.pop(hostname, None) or self.Worker(hostname)
            worker.event(subject, timestamp, event.get("local_received"), event)
            if self.on_node_leave:
                self.on_node_leave(worker)
            return worker, is_new
        worker, _ = self.get_or_create_worker(hostname)
        worker.event(subject, timestamp, event.get("local_received"), event)
        if self.on_node_join and (is_new or subject == "online"):
            self.on_node_join(worker)
        return worker, is_new

    def _task_event(self, subject: str, event: dict[str, Any]) -> tuple[_Task, bool] | None:
        fields = dict(event)
        try:
            uuid, hostname = fields["uuid"], fields["hostname"]
            timestamp, clock = fields["timestamp"], fields["clock"]
        except KeyError:
            return None
        local_received = fields.get("local_received")
        is_from_client = subject == "sent"
        task, is_new = self.get_or_create_task(uuid)
        if is_from_client:
            task.client = hostname
            origin = hostname
        else:
            worker, _ = self.get_or_create_worker(hostname)
            task.worker = worker
            if local_received:
                worker.event(None, timestamp, local_received)
            origin = worker.id
        if subject == "received":
            self.task_count += 1
        for name in ("type", "hostname", "pid", "utcoffset", "local_received"):
            fields.pop(name, None)
        task.event(subject, timestamp, local_received, fields)
        self._remember(timetuple(clock, timestamp, origin, ref(task)))
        if task.name is not None:
            self._seen_types.add(task.name)
            self.tasks_by_type[task.name].add(task)
            if not is_from_client:
                self.tasks_by_worker[hostname].add(task)
        self._join_family(task, is_new)
        return task, is_new

    def _remember(self, when: Any) -> None:
        heap = self._taskheap
        if len(heap) + 1 > self.heap_multiplier * self.max_tasks_in_memory:
            del heap[0]
        if heap and when < heap[-1]:
            bisect.insort(heap, when)
        else:
            heap.append(when)

    def _join_family(self, task: _Task, is_new: bool) -> None:
        """Put the task among its parent's children, and its own early children among its."""
        if task.parent_id:
            parent = self.tasks.get(task.parent_id)
            if parent is not None:
                parent.children.add(task)
            else:
                siblings = self._orphans.get(task.parent_id)
                if siblings is None:
                    siblings = self._orphans[task.parent_id] = WeakSet()
                siblings.add(task)
        if is_new and task.uuid in self._orphans:
            task.children.update(self._orphans.pop(task.uuid))

    # -- what is known

    def get_or_create_worker(self, hostname: str, **kwargs: Any) -> tuple[_Worker, bool]:
        """Return the worker of that name, updated by ``kwargs``, and whether it is new."""
        worker = self.workers.get(hostname)
        if worker is not None:
            if kwargs:
                worker.update(kwargs)
            return worker, False
        worker = self.workers[hostname] = self.Worker(hostname, **kwargs)
        return worker, True

    def get_or_create_task(self, uuid: str) -> tuple[_Task, bool]:
        """Return the task with that id, and whether it is new."""
        try:
            return self.tasks[uuid], False
        except KeyError:
            task = self.tasks[uuid] = self.Task(uuid, cluster_state=self)
            return task, True

    def itertasks(self, limit: int | None = None) -> Iterator[tuple[str, _Task]]:
        """Yield ``(id, task)``, the longest unseen first."""
        yield from islice(self.tasks.items(), limit)

    def tasks_by_time(self, limit: int | None = None, reverse: bool = True) -> Iterator[tuple[str, _Task]]:
        """Yield ``(id, task)`` in the order of their last events, the newest first."""
        heap = list(self._taskheap)
        if reverse:
            heap.reverse()
        return islice(self._unique(heap), limit)

    tasks_by_timestamp = tasks_by_time

    @staticmethod
    def _unique(heap: Iterable[Any]) -> Iterator[tuple[str, _Task]]:
        seen = set()
        for when in heap:
            task = when[3]()
            if task is not None and task.uuid not in seen:
                seen.add(task.uuid)
                yield task.uuid, task

    def _tasks_by_type(self, name: str, limit: int | None = None, reverse: bool = True) -> Iterator[tuple[str, _Task]]:
        return islice(((uuid, task) for uuid, task in self.tasks_by_time(reverse=reverse) if task.name == name), limit)

    def _tasks_by_worker(
        self, hostname: str, limit: int | None = None, reverse: bool = True
    ) -> Iterator[tuple[str, _Task]]:
        tasks = self.tasks_by_time(reverse=reverse)
        return islice(
            ((uuid, task) for uuid, task in tasks if task.worker is not None and task.worker.hostname == hostname),
            limit,
        )

    def task_types(self) -> list[str]:
        """Return the names of all tasks seen, sorted."""
        return sorted(self._seen_types)

    def alive_workers(self) -> Iterator[_Worker]:
        """Yield the workers whose heartbeat is recent."""
        return (worker for worker in list(self.workers.values()) if worker.alive)

    # -- upkeep

    def freeze_while(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call ``fun`` while no event comes in; ``clear_after=True`` forgets what is finished afterwards."""
        clear_after = kwargs.pop("clear_after", False)
        with self._mutex:
            try:
                return fun(*args, **kwargs)
            finally:
                if clear_after:
                    self._clear()

    def clear_tasks(self, ready: bool = True) -> None:
        """Forget all tasks; ``ready`` true: only those that have ended."""
        with self._mutex:
            self._clear_tasks(ready)

    def _clear_tasks(self, ready: bool = True) -> None:
        if ready:
            going_on = {uuid: task for uuid, task in self.itertasks() if task.state not in states.READY_STATES}
            self.tasks.clear()
            self.tasks.update(going_on)
        else:
            self.tasks.clear()
        self._taskheap[:] = [when for when in self._taskheap if _is_kept(when, self.tasks)]

    def clear(self, ready: bool = True) -> None:
        """Forget everything; ``ready`` true: keep the tasks that have not ended."""
        with self._mutex:
            self._clear(ready)

    def _clear(self, ready: bool = True) -> None:
        self.workers.clear()
        self._clear_tasks(ready)
        self.event_count = 0
        self.task_count = 0

    def rebuild_taskheap(self, timetuple: Callable[..., Any] = timetuple) -> None:
        """Order the tasks anew by their last events."""
        self._taskheap[:] = sorted(
            timetuple(task.clock, task.timestamp, task.origin, ref(task)) for task in self.tasks.values()
        )

    def __reduce__(self) -> Any:
        return self.__class__, (
            self.event_callback,
            self.workers,
            self.tasks,
            None,
            self.max_workers_in_memory,
            self.max_tasks_in_memory,
            self.on_node_join,
            self.on_node_leave,
            {name: [task.id for task in tasks] for name, tasks in self.tasks_by_type.items()},
            {name: [task.id for task in tasks] for name, tasks in self.tasks_by_worker.items()},
        )

    def __repr__(self) -> str:
        return f"<State: events={self.event_count} tasks={self.task_count}>"


def _as_sets(ids_by_key: Any, tasks: Any) -> dict[str, WeakSet[Task]]:
    """Return the mapping of key → ids (or tasks) as sets of the tasks that are known."""
    found = {}
    for key, members in (ids_by_key or {}).items():
        known = (tasks.get(member) if isinstance(member, str) else member for member in members)
        found[key] = WeakSet(task for task in known if task is not None)
    return found


def _is_kept(when: Any, tasks: Any) -> bool:
    task = when[3]()
    return task is not None and task.uuid in tasks
