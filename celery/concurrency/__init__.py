"""Pools: places where jobs run.  This table names them; each is imported when it is asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from kombu.utils.imports import symbol_by_name

if TYPE_CHECKING:
    from celery.concurrency.base import BasePool

__all__ = ("get_implementation", "get_available_pool_names")

#: Names a pool class by its dotted path; ``-P custom`` takes it.
CUSTOM_POOL_VARIABLE = "CELERY_CUSTOM_WORKER_POOL"

ALIASES: dict[str, str | None] = {
    "prefork": "celery.concurrency.prefork:TaskPool",
    "eventlet": "celery.concurrency.eventlet:TaskPool",
    "gevent": "celery.concurrency.gevent:TaskPool",
    "solo": "celery.concurrency.solo:TaskPool",
    "processes": "celery.concurrency.prefork:TaskPool",  # Upstream: an old name
    "threads": "celery.concurrency.thread:TaskPool",
    "custom": os.environ.get(CUSTOM_POOL_VARIABLE),
}


def get_implementation(cls: Any) -> type[BasePool]:
    """Return the pool class for a name of the table, a dotted path (``module:Class``) or a class.

    Raises:
        ImportError: there is no such module, or what it needs is not installed.
        ValueError: ``custom`` is asked for, but the environment names none.
    """
    if cls == "custom" and not ALIASES["custom"]:
        raise ValueError(f"The pool 'custom' needs the environment variable {CUSTOM_POOL_VARIABLE}: module:Class")
    pool_class: type[BasePool] = symbol_by_name(cls, ALIASES)  # type: ignore[no-untyped-call]  # kombu has no types
    return pool_class


def get_available_pool_names() -> tuple[str, ...]:
    """Return the names that the worker's ``-P`` takes."""
    return tuple(ALIASES)
