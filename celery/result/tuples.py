"""Results as plain nested tuples, the form in which they travel: ``((id, parent), children)``."""

from __future__ import annotations

from typing import Any

from celery._state import app_or_default
from celery.result.base import ResultBase

__all__ = ("parents_of", "result_from_tuple", "with_parents")


def result_from_tuple(r: Any, app: Any = None) -> Any:
    """Return the result that ``r``, made by ``as_tuple()``, stands for; a result is returned as it is.

    The result of a task has None for children, the result of a group a list.  A parent is a tuple of the same form,
    or None; ``(id, None)`` is accepted for a task without parent.
    """
    if isinstance(r, ResultBase):
        return r
    app = app_or_default(app)
    lineage = []
    while r is not None and not isinstance(r, ResultBase):  # a long chain must not exhaust the stack
        if not isinstance(r, (list, tuple)) or len(r) != 2:
            raise ValueError(f"{r!r:.100} is no result as a tuple: ((id, parent), members)")
        head, members = r
        id, parent = head if isinstance(head, (list, tuple)) else (head, None)
        lineage.append((id, members))
        r = parent or None
    result = r
    for id, members in reversed(lineage):
        result = _one_result(app, id, members, result)
    return result


def _one_result(app: Any, id: str, members: Any, parent: Any) -> Any:
    if members is None:
        return app.AsyncResult(id, parent=parent)
    results = [result_from_tuple(member, app) for member in members]
    if any(result is None for result in results):
        raise ValueError(
            f"{members!r:.100} are no members of a group, for one of them is None: ((id, parent), members)"
        )
    return app.GroupResult(id, results, parent=parent)


def parents_of(result: Any) -> list[Any]:
    """Return the ancestors of ``result``, nearest first."""
    ancestors = []
    while (result := result.parent) is not None:
        ancestors.append(result)
    return ancestors


def with_parents(result: Any) -> tuple[Any, Any]:
    """Return the head of a tuple: ``(id, parent tuple or None)``."""
    head: tuple[Any, Any] | None = None
    for ancestor in reversed(parents_of(result)):
        head = ((ancestor.id, head), ancestor._members_as_tuples())
    return result.id, head
