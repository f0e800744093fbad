"""Handles on many tasks: a set of results, and a group that can be saved."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

from vine import barrier, promise

from celery import states
from celery._state import app_or_default
from celery.exceptions import ImproperlyConfigured, TimeoutError
from celery.result.base import ResultBase
from celery.result.joining import assert_will_not_block
from celery.result.single import AsyncResult, load_finished, raise_stored
from celery.result.tuples import parents_of, with_parents

__all__ = ("GroupResult", "ResultSet")


#: While one member after the other is awaited, all are looked at together so often, in seconds.
LOAD_SECONDS = 0.05


class ResultSet(ResultBase):
    """Several results; members may be sets themselves."""

    _app: Any = None

    #: The members, in order.
    results: Any = None

    def __init__(self, results: Iterable[Any], app: Any = None, ready_barrier: Any = None, **kwargs: Any) -> None:
        self._app = app
        self.results = results if isinstance(results, list) else list(results or ())
        self._ready_barrier = ready_barrier
        if kwargs:
            raise TypeError(f"{type(self).__name__} does not know {', '.join(map(repr, kwargs))}")

    # -- members

    def add(self, result: Any) -> None:
        """Add ``result`` unless it is there already.

        Raises:
            TypeError: it is no result.
        """
        if not isinstance(result, ResultBase):
            raise TypeError(f"{result!r:.100} is no result: give app.AsyncResult(id)")
        if result not in self.results:
            self.results.append(result)
            if self._ready_barrier is not None:
                self._ready_barrier.add(result)

    def update(self, results: Iterable[Any]) -> None:
        """Add those that are not there already."""
        known = set(self.results)
        for result in results:
            if result not in known:
                known.add(result)
                self.results.append(result)
                if self._ready_barrier is not None:
                    self._ready_barrier.add(result)

    def remove(self, result: Any) -> None:
        """Take out a result, given by itself or by its id; KeyError if it is not there."""
        try:
            self.results.remove(result)
        except ValueError:
            raise KeyError(result) from None

    def discard(self, result: Any) -> None:
        """Take out a result if it is there."""
        if result in self.results:
            self.results.remove(result)

    def clear(self) -> None:
        """Take out all."""
        self.results[:] = []

    # -- state

    def _load(self) -> None:
        """Learn in bulk which members have ended."""
        load_finished([result for result in self.results if isinstance(result, AsyncResult)])

    def _state_of(self, result: Any) -> str | None:
        """Return the final state of a member, after ``_load``; None for what has not ended or is no single task."""
        cache = result._cache if isinstance(result, AsyncResult) else None
        return cache["status"] if cache is not None else None

    def ready(self) -> bool:
        """Whether all have ended."""
        self._load()
        return all(_ended(result, self._state_of(result)) for result in self.results)

    def successful(self) -> bool:
        """Whether all have ended well."""
        self._load()
        return all(
            result.successful() if isinstance(result, ResultSet) else self._state_of(result) == states.SUCCESS
            for result in self.results
        )

    def failed(self) -> bool:
        """Whether any has raised."""
        self._load()
        return any(
            result.failed() if isinstance(result, ResultSet) else self._state_of(result) == states.FAILURE
            for result in self.results
        )

    def waiting(self) -> bool:
        """Whether any has not ended."""
        return not self.ready()

    def completed_count(self) -> int:
        """Return how many have ended well."""
        self._load()
        return sum(
            result.successful() if isinstance(result, ResultSet) else self._state_of(result) == states.SUCCESS
            for result in self.results
        )

    def maybe_throw(self, callback: Callable[[str, Any], Any] | None = None, propagate: bool = True) -> None:
        """Raise what the first failed member raised."""
        self._load()
        for result in self.results:
            result.maybe_throw(callback=callback, propagate=propagate)

    maybe_reraise = maybe_throw

    # -- waiting

    @cached_property
    def on_ready(self) -> Any:
        """The promise that is kept, with this set, when all members have ended."""
        kept = promise(args=(self,))
        if self._ready_barrier is None:
            self._ready_barrier = barrier()
            for result in self.results:
                self._ready_barrier.add(result)
            self._ready_barrier.finalize()  # not before: all may have ended already
        self._ready_barrier.then(kept)
        return kept

    def then(self, callback: Callable[..., Any], on_error: Callable[..., Any] | None = None, weak: bool = False) -> Any:
        """Call ``callback(set)`` when all have ended; see ``AsyncResult.then``."""
        return self.on_ready.then(callback, on_error)

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, Any], Any] | None = None,
        no_ack: bool = True,
        on_message: Callable[[Any], Any] | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> list[Any]:
        """Wait for all and return their values in order: ``join_native`` where the store can, else ``join``.

        Arguments and errors are those of ``AsyncResult.get``; ``timeout`` counts for all together.
        """
        join = self.join_native if self.supports_native_join else self.join
        return join(
            timeout=timeout,
            propagate=propagate,
            interval=interval,
            callback=callback,
            no_ack=no_ack,
            on_message=on_message,
            disable_sync_subtasks=disable_sync_subtasks,
            on_interval=on_interval,
        )

    def join(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, Any], Any] | None = None,
        no_ack: bool = True,
        on_message: Callable[[Any], Any] | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> list[Any]:
        """Wait for one after the other, in order, and return their values.

        With ``callback``, that gets id and value of each, and the list stays empty.  ``interval`` is seconds between
        two looks, for stores that cannot notify.

        Raises:
            TimeoutError: not all have ended within ``timeout`` seconds.
        """
        if disable_sync_subtasks:
            assert_will_not_block()
        if on_message is not None:
            raise ImproperlyConfigured("Backend does not support on_message callback")
        waiting = {"propagate": propagate, "interval": interval, "no_ack": no_ack, "on_interval": on_interval}
        waiting["disable_sync_subtasks"] = disable_sync_subtasks
        return self._gathered(self._one_by_one(timeout, waiting), callback)

    def _one_by_one(self, timeout: float | None, waiting: dict[str, Any]) -> Iterator[tuple[int, Any]]:
        """Yield place and value of each member, in order."""
        deadline = None if timeout is None else time.monotonic() + timeout
        load_at = 0.0
        for index, result in enumerate(self.results):
            if isinstance(result, AsyncResult) and result._cache is None and time.monotonic() >= load_at:
                self._load()  # one look for all, and not one for each
                load_at = time.monotonic() + LOAD_SECONDS
            remaining = None
            if deadline is not None:
                remaining = deadline - time.monotonic()
                if remaining <= 0.0 and not result.ready():
                    raise TimeoutError("join operation timed out")
            yield index, result.get(timeout=remaining, **waiting)

    def _gathered(self, ended: Iterable[tuple[int, Any]], callback: Callable[[str, Any], Any] | None) -> list[Any]:
        """Return the values by their places; none with ``callback``, which gets id and value of each as it comes."""
        if callback is not None:
            for index, value in ended:
                callback(self.results[index].id, value)
            return []
        values = dict(ended)
        return [values.get(index) for index in range(len(self.results))]

    def iter_native(
        self,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Callable[[Any], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """Yield ``(id, record)`` of each member as it ends, in no order; for a member that is a set, its results.

        Raises:
            TimeoutError: not all have ended within ``timeout`` seconds.
        """
        awaited = self
        if any(getattr(result, "ignored", False) for result in self.results):  # no store will ever tell of those
            awaited = ResultSet([result for result in self.results if not getattr(result, "ignored", False)], self._app)
        return self.backend.iter_native(
            awaited, timeout=timeout, interval=interval, no_ack=no_ack, on_message=on_message, on_interval=on_interval
        )

    def join_native(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, Any], Any] | None = None,
        no_ack: bool = True,
        on_message: Callable[[Any], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> list[Any]:
        """Wait for all at once, as the store tells of them, and return their values in order.

        With ``callback``, that gets id and value of each as it ends, and the list stays empty.

        Raises:
            TimeoutError: not all have ended within ``timeout`` seconds.
        """
        if disable_sync_subtasks:
            assert_will_not_block()
        deadline = None if timeout is None else time.monotonic() + timeout
        metas = self.iter_native(timeout, interval, no_ack, on_message, on_interval)
        return self._gathered(self._as_they_end(metas, propagate, disable_sync_subtasks, deadline), callback)

    def _as_they_end(
        self, metas: Iterable[tuple[str, Any]], propagate: bool, disable_sync_subtasks: bool, deadline: float | None
    ) -> Iterator[tuple[int, Any]]:
        """Yield place and value of each member that ``metas`` tell of."""
        places: dict[Any, list[int]] = {}
        for index, result in enumerate(self.results):
            places.setdefault(result.id, []).append(index)
        for task_id, meta in metas:
            value = self._value_of(meta, propagate, disable_sync_subtasks, deadline)
            for index in places[task_id]:
                yield index, value

    def _value_of(self, meta: Any, propagate: bool, disable_sync_subtasks: bool, deadline: float | None) -> Any:
        if isinstance(meta, list):  # the results of a nested set
            load_finished([member for member in meta if isinstance(member, AsyncResult)])
            nested, remaining = ResultSet(meta, self._app), None
            if deadline is not None:
                remaining = max(0.0, deadline - time.monotonic())
            return nested.join(remaining, propagate, disable_sync_subtasks=disable_sync_subtasks)
        if propagate and meta["status"] in states.PROPAGATE_STATES:
            raise_stored(self.app, meta["result"], meta.get("traceback"))
        return meta["result"]

    def _failed_join_report(self) -> Iterator[Any]:
        return (
            result
            for result in self.results
            if (getattr(result, "_cache", None) is not None or self.backend.is_cached(result.id))
            and result.state in states.PROPAGATE_STATES
        )

    # -- orders

    def forget(self) -> None:
        """Delete the records of all."""
        for result in self.results:
            result.forget()

    def _forget_own(self) -> None:
        self.forget()

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Revoke all, with one message; see ``AsyncResult.revoke``."""
        self.app.control.revoke(
            list(_task_ids(self)),
            connection=connection,
            terminate=terminate,
            signal=signal,
            reply=wait,
            timeout=timeout,
        )

    # -- other forms

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def __getitem__(self, index: Any) -> Any:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ResultSet):
            return other.results == self.results
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # its members change

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: [{', '.join(str(result.id) for result in self.results)}]>"

    @property
    def app(self) -> Any:
        if self._app is None:
            self._app = self.results[0].app if self.results else app_or_default()
        return self._app

    @app.setter
    def app(self, app: Any) -> None:
        self._app = app

    @property
    def backend(self) -> Any:
        first = self.results[0].backend if self.results else None
        return first if first is not None else self.app.backend

    @property
    def supports_native_join(self) -> bool:
        return bool(self.results) and self.results[0].supports_native_join


class GroupResult(ResultSet):
    """The results of a group, under the group's id; it can be saved and found again by that id."""

    #: Id of the group.
    id: Any = None

    #: The results of the tasks of the group.
    results: Any = None

    def __init__(
        self, id: str | None = None, results: Iterable[Any] | None = None, parent: Any = None, **kwargs: Any
    ) -> None:
        self.id = id
        if parent is not None:
            self.parent = parent
        super().__init__(results or (), **kwargs)

    def save(self, backend: Any = None) -> Any:
        """Store ids of group and tasks, so that ``restore`` finds them."""
        return (backend or self.app.backend).save_group(self.id, self)

    def delete(self, backend: Any = None) -> None:
        """Delete what ``save`` stored."""
        (backend or self.app.backend).delete_group(self.id)

    @classmethod
    def restore(cls, id: str, backend: Any = None, app: Any = None) -> Any:
        """Return the group saved under ``id``, or None."""
        app = app or (cls.app if not isinstance(cls.app, property) else None)
        return (backend or app_or_default(app).backend).restore_group(id)

    @property
    def children(self) -> list[Any]:
        return self.results

    def as_tuple(self) -> tuple[Any, Any]:
        """Return ``((id, parent), [members as tuples])``; ``result_from_tuple`` is the way back."""
        return with_parents(self), self._members_as_tuples()

    def _members_as_tuples(self) -> list[Any]:
        return [result.as_tuple() for result in self.results]

    def forget(self) -> None:
        """Delete the records of all members, and of the tasks before the group in its chain."""
        super().forget()
        for ancestor in parents_of(self):
            ancestor._forget_own()

    def __bool__(self) -> bool:
        return bool(self.id or self.results)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GroupResult):
            return other.id == self.id and other.results == self.results and other.parent == self.parent
        if isinstance(other, str):
            return other == self.id
        return NotImplemented

    def __hash__(self) -> int:  # type: ignore[override]  # a set of results has no hash, a group has its id
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id} [{', '.join(str(result.id) for result in self.results)}]>"

    def __str__(self) -> str:
        return str(self.id)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, self.__reduce_args__()

    def __reduce_args__(self) -> tuple[Any, ...]:
        return self.id, self.results


def _ended(result: Any, state: str | None) -> bool:
    return result.ready() if isinstance(result, ResultSet) else state is not None


def _task_ids(results: ResultSet) -> Iterator[str]:
    for result in results.results:
        if isinstance(result, ResultSet):
            yield from _task_ids(result)
        else:
            yield result.id
