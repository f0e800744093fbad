"""Apps for tests: everything in memory, and nobody else's app touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from celery import Celery, _state
from celery.app.declaring import function_of
from celery.app.log import Logging

#: the settings of a test app, unless others are given
DEFAULT_TEST_CONFIG: dict[str, Any] = {
    "worker_hijack_root_logger": False,
    "worker_log_color": False,
    "accept_content": {"json"},
    "enable_utc": True,
    "timezone": "UTC",
    "broker_url": "memory://",
    "result_backend": "cache+memory://",
    "broker_heartbeat": 0,
}


class Trap:
    """Stands where the current app was; whoever uses it forgot to pass an app."""

    def __getattr__(self, name: str) -> Any:
        # what looks around (inspect, copy, pytest) asks for such names and uses nothing
        if name == "_is_a_test_trap" or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        raise RuntimeError(f"This test depends on the current app: something used current_app.{name}")


class UnitLogging(Logging):
    """Leaves the logging of the test run alone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._setup = True


def TestApp(
    name: str | None = None,
    config: Any = None,
    enable_logging: bool = False,
    set_as_current: bool = False,
    log: Any = UnitLogging,
    backend: Any = None,
    broker: Any = None,
    **kwargs: Any,
) -> Celery:
    """Return an app for tests: ``DEFAULT_TEST_CONFIG`` and ``config`` on top of it."""
    app = Celery(
        name or "celery.tests",
        set_as_current=set_as_current,
        log=None if enable_logging else log,
        broker=broker,
        backend=backend,
        **kwargs,
    )
    app.add_defaults({**deepcopy(DEFAULT_TEST_CONFIG), **(config or {})})
    return app


TestApp.__test__ = False  # type: ignore[attr-defined]  # pytest collects what is called Test*


@contextmanager
def set_trap(app: Any) -> Iterator[None]:
    """Make every use of the current app an error, in this thread and in those that have no app of their own."""
    before = _state._tls.current_app, _state.default_app
    trap: Any = Trap()
    _state._tls.current_app = trap
    _state.set_default_app(trap)
    try:
        yield
    finally:
        _state._tls.current_app, _state.default_app = before


@contextmanager
def setup_default_app(app: Any, use_trap: bool = False) -> Iterator[None]:
    """Put the default and the current app back at the end; with ``use_trap`` there are none meanwhile.

    Tasks that functions have declared meanwhile are forgotten: the next test may declare others of the same name.
    Those of modules stay, since a module is imported once.

    Upstream: ``app`` is not made the current one here; ``app.set_current()`` is up to the user (or a worker).
    """
    before = _state._tls.current_app, _state.default_app
    finalizers = set(_state._on_app_finalizers)
    try:
        if use_trap:
            with set_trap(app):
                yield
        else:
            yield
    finally:
        _state._tls.current_app, _state.default_app = before
        for callback in set(_state._on_app_finalizers) - finalizers:
            function = getattr(callback, "__wrapped__", None)
            if "<locals>" in getattr(function, "__qualname__", ""):
                del _state._on_app_finalizers[callback]
                _drop_copies(function)


def _drop_copies(function: Any) -> None:
    """Take the task of ``function`` out of the apps that have it because it was shared."""
    for app in _state._get_active_apps():
        for name, task in list(app._tasks.items()):
            if name not in app._declared and function_of(task) is function_of(function):
                del app._tasks[name]
