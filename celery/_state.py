"""What is current: the app and the task of this thread, and the apps that exist."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from celery.local import Proxy
from celery.utils.threads import LocalStack

__all__ = (
    "set_default_app",
    "get_current_app",
    "get_current_task",
    "get_current_worker_task",
    "current_app",
    "current_task",
    "connect_on_app_finalize",
)

#: Used where no app is current; made when first needed.
default_app: Any = None

_apps: weakref.WeakSet[Any] = weakref.WeakSet()
_apps_lock = threading.Lock()
_on_app_finalizers: dict[Callable[[Any], Any], None] = {}


#: Whether a task that waits for another may hold the place that the other would run in; a pool of greenlets has room.
joins_may_deadlock = True


class _TLS(threading.local):
    #: The app made current in this thread, by ``app.set_current()``.
    current_app: Any = None
    #: What was said of waiting for other tasks; nothing: a task that a worker runs must not.
    join_will_block: bool | None = None


_tls = _TLS()

#: The tasks that run here; a task called by a task is above it.
_task_stack = LocalStack()

# a child that is forked while another thread holds the lock must not wait for it
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _renew_lock())


def _renew_lock() -> None:
    global _apps_lock
    _apps_lock = threading.Lock()


# -- the app


def set_default_app(app: Any) -> None:
    """Make ``app`` the one that threads use which have none of their own."""
    global default_app
    default_app = app


def _get_current_app() -> Any:
    if default_app is None:
        _make_default_app()
    return _tls.current_app or default_app


def _make_default_app() -> None:
    from importlib import import_module

    app = import_module("celery.app.base").Celery(
        "default",
        fixups=[],
        set_as_current=False,
        loader=os.environ.get("CELERY_LOADER") or "default",
    )
    with _apps_lock:
        if default_app is None:
            set_default_app(app)


def _explicit_app() -> Any:
    """Return the current app, but complain where none was made current (``C_STRICT_APP``, ``C_WARN_APP``)."""
    if _tls.current_app is None and default_app is None:
        if os.environ.get("C_STRICT_APP"):
            raise RuntimeError("No app is current: pass app=..., or call app.set_current() or app.set_default() first")
        import warnings

        warnings.warn("No app is current; the default one is used", stacklevel=3)
    return _get_current_app()


def _set_current_app(app: Any) -> None:
    _tls.current_app = app


#: Returns the app of this thread, or the default one.
get_current_app: Callable[[], Any]

if os.environ.get("C_STRICT_APP") or os.environ.get("C_WARN_APP"):  # pragma: no cover
    get_current_app = _explicit_app
else:
    get_current_app = _get_current_app


def _app_or_default(app: Any = None) -> Any:
    return get_current_app() if app is None else app


def _app_or_default_trace(app: Any = None) -> Any:  # pragma: no cover - a tool for hunting bugs
    from traceback import print_stack

    if app is None:
        if getattr(_tls, "current_app", None):
            print("-- RETURNING TO CURRENT APP --")
            print_stack()
            return _tls.current_app
        if _process_name() == "MainProcess":
            raise RuntimeError("DEFAULT APP")
        print("-- RETURNING TO DEFAULT APP --")
        print_stack()
        return default_app
    return app


def _process_name() -> str:
    process = sys.modules.get("billiard.process") or sys.modules.get("multiprocessing.process")
    name: str = process.current_process().name if process else "MainProcess"
    return name


#: ``app_or_default(app)`` returns ``app``, or the current one for ``None``.
app_or_default: Callable[..., Any]


def enable_trace() -> None:
    """Print a stack trace whenever code falls back to the current app."""
    global app_or_default
    app_or_default = _app_or_default_trace


def disable_trace() -> None:
    """Fall back to the current app silently."""
    global app_or_default
    app_or_default = _app_or_default


if os.environ.get("CELERY_TRACE_APP"):  # pragma: no cover
    enable_trace()
else:
    disable_trace()


def _register_app(app: Any) -> None:
    with _apps_lock:
        _apps.add(app)


def _deregister_app(app: Any) -> None:
    with _apps_lock:
        _apps.discard(app)


def _get_active_apps() -> Iterable[Any]:
    """Return the apps that are alive."""
    with _apps_lock:
        return list(_apps)


def connect_on_app_finalize(callback: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Have ``callback(app)`` called when any app is finalized."""
    _on_app_finalizers[callback] = None
    return callback


def declare_in_every_app(function: Callable[..., Any], options: dict[str, Any]) -> Callable[[Any], Any]:
    """Have every app that is finalized later make a task of ``function``; return what does it for one app."""

    def declare(app: Any) -> Any:
        return app._task_from_fun(function, **options)

    declare.__wrapped__ = function  # type: ignore[attr-defined]  # for `celery.contrib.testing`, which forgets some
    return connect_on_app_finalize(declare)


def _announce_app_finalized(app: Any) -> None:
    for callback in list(_on_app_finalizers):
        callback(app)


# -- the task


push_current_task = _task_stack.push
pop_current_task = _task_stack.pop


def get_current_task() -> Any:
    """Return the task that runs here, or ``None``."""
    return _task_stack.top


def get_current_worker_task() -> Any:
    """Return the task that a worker runs here, or ``None``.

    Tasks that were called in place by it (``task()`` or ``task.apply()``) are passed over.
    """
    for task in reversed(_task_stack.stack):
        if not task.request.called_directly:
            return task
    return None


def _set_task_join_will_block(blocks: bool | None) -> None:
    _tls.join_will_block = blocks


def task_join_will_block() -> bool:
    """Say whether waiting for another task here may wait for ever, for want of a process to run it."""
    blocks = _tls.join_will_block
    if blocks is None:
        requests = [task.request for task in _task_stack.stack] if joins_may_deadlock else []
        return any(not request.called_directly and not request.is_eager for request in requests)
    return blocks


current_app: Any = Proxy(get_current_app)
current_task: Any = Proxy(get_current_task)
