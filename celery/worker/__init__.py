"""The worker: takes messages from the broker and hands them to the pool.

A delivery passes ``consumer`` → ``strategy`` → ``request`` → pool, and its acknowledgement goes back the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery.worker.worker import WorkController

__all__ = ("WorkController",)


def __getattr__(name: str) -> Any:
    # Children and clients import ``celery.worker.state`` and ``.request``; they need no controller.
    if name == "WorkController":
        from celery.worker.worker import WorkController

        globals()[name] = WorkController
        return WorkController
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
