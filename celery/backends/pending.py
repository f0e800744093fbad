"""Who waits for which task, in this process."""

from __future__ import annotations

import weakref
from collections import namedtuple
from collections.abc import Iterable
from threading import RLock
from typing import Any

__all__ = ("PendingResults", "pending_results_t", "sets_and_singles")

pending_results_t = namedtuple("pending_results_t", ("concrete", "weak"))  # Upstream: what held them


class PendingResults:
    """Handles on results that are to be told; several may wait for one task, and weak ones may be forgotten.

    ``lock`` is held by whoever looks here and at records that came too early, in one step.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        self._strong: dict[str, list[Any]] = {}
        self._weak: dict[str, list[weakref.ref[Any]]] = {}

    def add(self, result: Any, weak: bool = False) -> None:
        """Add a handle, once."""
        with self.lock:
            if any(known is result for known in self._strong.get(result.id, ())):
                return
            if not weak:
                self._strong.setdefault(result.id, []).append(result)
            elif not any(known() is result for known in self._weak.get(result.id, ())):
                self._weak.setdefault(result.id, []).append(weakref.ref(result))

    def take(self, task_id: str) -> list[Any]:
        """Remove and return all handles on a task."""
        with self.lock:
            strong = self._strong.pop(task_id, [])
            weak = [result for reference in self._weak.pop(task_id, ()) if (result := reference()) is not None]
        return [*strong, *(result for result in weak if not any(result is known for known in strong))]

    def discard(self, result: Any) -> bool:
        """Remove one handle; return whether there is no other on its task."""
        with self.lock:
            strong = [known for known in self._strong.pop(result.id, ()) if known is not result]
            if strong:
                self._strong[result.id] = strong
            weak = [known for known in self._weak.pop(result.id, ()) if known() is not None and known() is not result]
            if weak:
                self._weak[result.id] = weak
            return not strong and not weak

    def ids(self) -> list[str]:
        """Return the ids of all tasks that somebody waits for."""
        with self.lock:
            for task_id in [task_id for task_id, known in self._weak.items() if all(one() is None for one in known)]:
                del self._weak[task_id]
            return list({**self._strong, **self._weak})

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._strong or any(one() is not None for one in self._weak.get(task_id, ()))

    def __bool__(self) -> bool:
        return bool(self._strong or self._weak)


def sets_and_singles(results: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """Return the members of a set that are sets themselves, which nobody waits for here, and the others."""
    sets: list[Any] = []
    singles: list[Any] = []
    for member in results:
        (sets if hasattr(member, "results") else singles).append(member)
    return sets, singles
