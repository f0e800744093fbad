"""A canvas that contains itself has no end; here is found where, and told by names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ("circles_told", "raise_if_circular")


@contextmanager
def circles_told(sig: Any) -> Iterator[None]:
    """Turn a RecursionError into a ValueError that names the parts of ``sig`` that contain themselves."""
    try:
        yield
    except RecursionError:
        raise_if_circular(sig)
        raise


def raise_if_circular(sig: Any) -> None:
    """Raise ValueError that names the way, if a way leads from ``sig`` to a part that contains itself."""
    names = _circle_in(sig)
    if names:
        raise ValueError(f"The {sig['subtask_type'] or 'signature'} contains itself: {' → '.join(names)}") from None


def _circle_in(sig: Any) -> list[str]:
    """Return the names of the tasks on the way from a canvas back to itself; empty if no way leads back."""
    trail: list[Any] = []
    waiting: list[tuple[int, Any]] = [(0, sig)]
    done: set[int] = set()
    while waiting:
        depth, found = waiting.pop()
        del trail[depth:]
        if any(found is above for above in trail):
            return [str(above.get("task")) for above in trail] + [str(found.get("task"))]
        if id(found) in done:
            continue
        done.add(id(found))
        trail.append(found)
        waiting.extend((depth + 1, part) for part in _parts_of(found))
    return []


def _parts_of(sig: Any) -> list[Any]:
    """Return the signatures that are parts of ``sig``, or linked to it."""
    kwargs, options = sig.get("kwargs") or {}, sig.get("options") or {}
    places = (
        kwargs.get("tasks"),
        kwargs.get("header"),
        kwargs.get("body"),
        options.get("link"),
        options.get("link_error"),
    )
    parts = [part for place in places if place for part in (place if isinstance(place, (list, tuple)) else [place])]
    return [part for part in parts if isinstance(part, dict)]
