"""The handle on one task."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import cached_property
from typing import Any, Generic, TypeVar

from vine import promise

from celery import states
from celery._state import app_or_default
from celery.exceptions import IncompleteStream, TaskRevokedError, TimeoutError
from celery.result.base import ResultBase
from celery.result.joining import assert_will_not_block
from celery.result.tuples import parents_of, result_from_tuple, with_parents
from celery.utils.graph import DependencyGraph, GraphFormatter

__all__ = ("AsyncResult",)

#: What the task returns.
R = TypeVar("R")


class AsyncResult(ResultBase, Generic[R]):
    """The state and result of the task ``id``, read from ``backend`` when asked for.

    ``app.AsyncResult`` is this class bound to an app.  Nothing is read or subscribed to when a handle is made.
    """

    app: Any = None
    TimeoutError = TimeoutError
    id: Any = None
    backend: Any = None
    _ignored = False
    _cache: dict[str, Any] | None = None
    _task_name: str | None = None
    _on_ready: Any = None

    def __init__(
        self, id: str, backend: Any = None, task_name: str | None = None, app: Any = None, parent: Any = None
    ) -> None:
        if id is None:
            raise ValueError(f"AsyncResult requires valid id, not {type(id)}")
        self.app = app_or_default(app or self.app)
        self.id = id
        self.backend = backend or self.app.backend
        if task_name is not None:
            self._task_name = task_name
        if parent is not None:
            self.parent = parent

    # -- waiting

    @property
    def on_ready(self) -> Any:
        """The promise that is kept, with this result, when the task has ended."""
        kept = self._on_ready
        if kept is None:
            kept = self.__dict__.setdefault("_on_ready", promise(args=(self,)))
            self._keep_promise()
        return kept

    def _keep_promise(self) -> None:
        """Keep the promise if there is one and the time has come; whoever comes second, of both, does so."""
        kept = self._on_ready
        if kept is not None and self._cache is not None and not kept.ready:
            kept()

    def then(self, callback: Callable[..., Any], on_error: Callable[..., Any] | None = None, weak: bool = False) -> Any:
        """Call ``callback(result)`` when the task has ended and somebody in this process looks or waits.

        ``on_error`` is called if ``callback`` raises; with ``weak`` this handle may be forgotten before.
        """
        self.backend.add_pending_result(self, weak=weak)
        return self.on_ready.then(callback, on_error)

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        no_ack: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, Any], Any] | None = None,
        on_message: Callable[[Any], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
        EXCEPTION_STATES: frozenset[str] = states.EXCEPTION_STATES,
        PROPAGATE_STATES: frozenset[str] = states.PROPAGATE_STATES,
    ) -> R:
        """Wait for the task to end and return its result, or raise what it raised.

        Args:
            timeout: seconds to wait; None waits for ever.
            propagate: return the exception of a failed task instead of raising it, if false.
            interval: seconds between two looks, for stores that cannot notify.
            no_ack: for stores of messages: take them without acknowledging.
            follow_parents: raise also when a task before this one, in its chain, has failed.
            callback: called with id and result before the result is returned.
            on_message: called with each raw record that arrives, also of states in between.
            on_interval: called now and then while waiting.
            disable_sync_subtasks: refuse to wait inside a task.

        Raises:
            TimeoutError: the task has not ended in time.
            RuntimeError: called inside a task.
        """
        if self.ignored:
            return None  # type: ignore[return-value]  # nobody is told what it returned
        if disable_sync_subtasks:
            assert_will_not_block()
        parents = ParentCheck(self) if self.parent is not None and follow_parents and propagate else None
        if parents is not None:
            parents()
            on_interval = _both(parents, on_interval)
        if self._cache is None:
            self.backend.wait_for_pending(
                self,
                timeout=timeout,
                interval=interval,
                on_interval=on_interval,
                no_ack=no_ack,
                propagate=False,
                on_message=on_message,
            )
            if parents is not None and not self.successful():
                parents.look()
        return self.maybe_throw(propagate=propagate, callback=callback)

    wait = get

    def maybe_throw(self, propagate: bool = True, callback: Callable[[str, Any], Any] | None = None) -> R:
        """Return the result as far as it is known, or raise what the task raised."""
        meta = self._get_task_meta()
        value = meta["result"]
        if propagate and meta["status"] in states.PROPAGATE_STATES:
            raise_stored(self.app, value, meta.get("traceback"))
        if callback is not None:
            callback(self.id, value)
        return value  # type: ignore[no-any-return]

    maybe_reraise = maybe_throw

    def throw(self, *args: Any, **kwargs: Any) -> None:
        """Break ``on_ready`` with an exception."""
        self.on_ready.throw(*args, **kwargs)

    # -- the record

    def _get_task_meta(self) -> dict[str, Any]:
        if self._cache is not None:
            return self._cache
        return self._maybe_set_cache(self.backend.get_task_meta(self.id))

    def _maybe_set_cache(self, meta: dict[str, Any]) -> dict[str, Any]:
        """Keep the record of a task that has ended, and tell those who asked with ``then``."""
        if not meta or meta.get("status") not in states.READY_STATES:
            return meta
        meta = self.backend.meta_from_decoded(meta)
        children = meta.get("children")
        if children:
            meta["children"] = [result_from_tuple(child, self.app) for child in children]
        self._cache = meta
        self._keep_promise()
        return meta

    def ready(self) -> bool:
        """Whether the task has ended."""
        return self.state in states.READY_STATES

    def successful(self) -> bool:
        """Whether the task has ended well."""
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        """Whether the task has raised."""
        return self.state == states.FAILURE

    def exists(self) -> bool:
        """Whether there is a record of the task."""
        return self.backend.task_result_exists(self.id)

    @property
    def state(self) -> str:
        """The state of the task; PENDING also where nothing is known of it."""
        return self._get_task_meta()["status"]

    status = state

    @property
    def result(self) -> Any:
        """What the task returned or raised; before that, what it said about its state."""
        return self._get_task_meta()["result"]

    info = result

    @property
    def traceback(self) -> str | None:
        """The traceback of a failed task, as text."""
        return self._get_task_meta().get("traceback")

    @property
    def date_done(self) -> datetime | None:
        """When the task ended."""
        moment = self._get_task_meta().get("date_done")
        if isinstance(moment, str):
            return datetime.fromisoformat(f"{moment[:-1]}+00:00" if moment.endswith("Z") else moment)
        return moment

    @property
    def children(self) -> list[Any] | None:
        """The results of the tasks that this task has called, once it has ended."""
        children = self._get_task_meta().get("children")
        return children and [result_from_tuple(child, self.app) for child in children]

    @property
    def name(self) -> str | None:
        """Name of the task; this and the five below are known with ``result_extended`` only."""
        return self._get_task_meta().get("name") or self._task_name

    @property
    def args(self) -> Any:
        return self._get_task_meta().get("args")

    @property
    def kwargs(self) -> Any:
        return self._get_task_meta().get("kwargs")

    @property
    def worker(self) -> str | None:
        return self._get_task_meta().get("worker")

    @property
    def retries(self) -> int | None:
        return self._get_task_meta().get("retries")

    @property
    def queue(self) -> str | None:
        return self._get_task_meta().get("queue")

    @property
    def task_id(self) -> str:
        return self.id

    @task_id.setter
    def task_id(self, id: str) -> None:
        self.id = id

    @property
    def supports_native_join(self) -> bool:
        return self.backend.supports_native_join

    @property
    def ignored(self) -> bool:
        """Whether the task was called with ``ignore_result``, so that there is nothing to wait for."""
        return self._ignored

    @ignored.setter
    def ignored(self, value: bool) -> None:
        self._ignored = value

    # -- orders

    def forget(self) -> None:
        """Delete the record of this task and of those before it in its chain."""
        for result in [self, *parents_of(self)]:
            result._forget_own()

    def _forget_own(self) -> None:
        self._cache = None
        self.backend.forget(self.id)

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Tell all workers not to run the task; ``terminate`` kills a process that runs it already, with ``signal``.

        ``wait`` waits for their answers, for ``timeout`` seconds.
        """
        self.app.control.revoke(
            self.id, connection=connection, terminate=terminate, signal=signal, reply=wait, timeout=timeout
        )

    def revoke_by_stamped_headers(
        self,
        headers: dict[str, Any],
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Revoke all tasks that carry these stamps; the other arguments are those of ``revoke``."""
        self.app.control.revoke_by_stamped_headers(
            headers, connection=connection, terminate=terminate, signal=signal, reply=wait, timeout=timeout
        )

    # -- the tree of tasks

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[Any, Any]]:
        """Yield ``(parent, result)`` for this task and all that came from it, breadth first.

        Raises:
            IncompleteStream: a task has not ended, so its children are not known; not with ``intermediate``.
        """
        waiting: deque[tuple[Any, Any]] = deque([(None, self)])
        while waiting:
            parent, node = waiting.popleft()
            yield parent, node
            if node.ready():
                waiting.extend((node, child) for child in node.children or ())
            elif not intermediate:
                raise IncompleteStream(f"task {node.id} has not ended, its children are not known yet")

    def collect(self, intermediate: bool = False, **kwargs: Any) -> Iterator[tuple[Any, Any]]:
        """Yield ``(result, value)`` for this task and all that came from it; ``kwargs`` are those of ``get``."""
        for _, node in self.iterdeps(intermediate=intermediate):
            yield node, node.get(**kwargs)

    def get_leaf(self) -> Any:
        """Return the value of the last task that came from this one."""
        last = self
        for _, last in self.iterdeps():
            last.get()
        return last.get()

    def build_graph(self, intermediate: bool = False, formatter: Any = None) -> DependencyGraph:
        """Return the graph of this task and all that came from it."""
        graph = DependencyGraph(formatter=formatter or GraphFormatter(root=self.id, shape="oval"))
        for parent, node in self.iterdeps(intermediate=intermediate):
            graph.add_arc(node)
            if parent is not None:
                graph.add_edge(parent, node)
        return graph

    @cached_property
    def graph(self) -> DependencyGraph:
        return self.build_graph()

    # -- other forms

    def as_tuple(self) -> tuple[Any, Any]:
        """Return ``((id, parent), None)``; ``result_from_tuple`` is the way back."""
        return with_parents(self), self._members_as_tuples()

    def _members_as_tuples(self) -> list[Any] | None:
        return None

    def as_list(self) -> list[str]:
        """Return the ids of this task and of those before it in its chain."""
        return [self.id, *(ancestor.id for ancestor in parents_of(self))]

    def __str__(self) -> str:
        return str(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __hash__(self) -> int:
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AsyncResult):
            return other.id == self.id
        if isinstance(other, str):
            return other == self.id
        return NotImplemented

    def __copy__(self) -> AsyncResult[R]:
        return self.__class__(*self.__reduce_args__())

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, self.__reduce_args__()

    def __reduce_args__(self) -> tuple[Any, ...]:
        return self.id, self.backend, self._task_name, None, self.parent


class ParentCheck:
    """Raises what one of the tasks before a result in its workflow raised, the first first.

    It may be called often: it looks only now and then, the less often the longer a look takes.
    """

    __slots__ = ("_next_at", "_tasks")

    #: A look may take this part of the time.
    SHARE = 0.05

    def __init__(self, result: AsyncResult[Any]) -> None:
        self._tasks = [task for ancestor in reversed(parents_of(result)) for task in _single_tasks(ancestor)]
        self._next_at = 0.0

    def __call__(self) -> None:
        began = time.monotonic()
        if began >= self._next_at:
            self.look()
            ended = time.monotonic()
            self._next_at = ended + (ended - began) / self.SHARE

    def look(self) -> None:
        """Look now."""
        load_finished(self._tasks)
        for task in self._tasks:
            if task._cache is not None and task._cache["status"] in states.PROPAGATE_STATES:
                task.maybe_throw()


def _single_tasks(result: Any) -> Iterator[AsyncResult[Any]]:
    """Yield ``result``, or the members of a set."""
    if isinstance(result, AsyncResult):
        yield result
    else:
        for member in getattr(result, "results", None) or ():
            yield from _single_tasks(member)


def load_finished(results: list[Any]) -> None:
    """Read the records of those that are not known to have ended, in as few trips as their store allows."""
    unknown: dict[Any, list[Any]] = {}
    for result in results:
        if result._cache is None:
            unknown.setdefault(result.backend, []).append(result)
    for backend, group in unknown.items():
        metas = backend.get_task_metas([result.id for result in group])
        for result in group:
            if (meta := metas.get(result.id)) is not None:
                result._maybe_set_cache(meta)


def raise_stored(app: Any, value: Any, traceback: str | None) -> None:
    """Raise the exception of a record; with ``task_remote_tracebacks`` it carries the worker's traceback."""
    if not isinstance(value, BaseException):
        value = TaskRevokedError("revoked") if value is None else Exception(value)
    raise value.with_traceback(_remote_traceback(app, traceback))


def _remote_traceback(app: Any, text: str | None) -> Any:
    if not text or not app.conf.task_remote_tracebacks:
        return None
    try:
        from tblib import Traceback
    except ImportError:
        return None
    try:
        return Traceback.from_string(text).as_traceback()
    except Exception:  # the text is what some worker sent
        return None


def _both(first: Callable[[], Any], second: Callable[[], Any] | None) -> Callable[[], Any]:
    if second is None:
        return first

    def call_both() -> None:
        first()
        second()

    return call_both
